"""Ops on point sets: arrays (n, 9) float32 of place, normal and colour; z is up. Source: Liu et al. 2023 (OpenShape).

Each returns a new array. The defaults are the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Array = np.ndarray
PLACE, NORMAL, COLOUR = slice(0, 3), slice(3, 6), slice(6, 9)


@dataclass(frozen=True)
class SomePoints:
    """`count` of the points, none twice."""

    count: int

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        if len(x) < self.count:
            raise ValueError(f"{len(x)} points where the recipe wants {self.count}")
        return x[rng.choice(len(x), self.count, replace=False)]


@dataclass(frozen=True)
class UnitSphere:
    """Centred, the farthest point at 1."""

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        out = x.copy()
        out[:, PLACE] -= out[:, PLACE].mean(0)
        out[:, PLACE] /= np.linalg.norm(out[:, PLACE], axis=1).max()
        return out


@dataclass(frozen=True)
class DropPoints:
    """Each point is replaced by the first with a probability drawn from [0, most] for the whole set."""

    most: float = 0.875

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        gone = rng.random(len(x)) < rng.uniform(0, self.most)
        return np.where(gone[:, None], x[:1], x)


@dataclass(frozen=True)
class ScaleShift:
    """Larger or smaller by a factor from `scale`, moved by up to `shift` along each axis."""

    scale: list[float] = field(default_factory=lambda: [0.8, 1.25])
    shift: float = 0.1

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        out = x.copy()
        out[:, PLACE] = out[:, PLACE] * rng.uniform(*self.scale) + rng.uniform(-self.shift, self.shift, 3)
        return out


@dataclass(frozen=True)
class RotateUpright:
    """About the upward axis, by any angle."""

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        return _rotated(x, [0.0, 0.0, rng.uniform(0, 2 * np.pi)])


@dataclass(frozen=True)
class Tilt:
    """About each axis by a normal angle of `deviation` radians, at most `most`."""

    deviation: float = 0.06
    most: float = 0.18

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        return _rotated(x, np.clip(rng.normal(0, self.deviation, 3), -self.most, self.most))


@dataclass(frozen=True)
class DropColour:
    """With probability p, every point is grey."""

    p: float = 0.5
    grey: float = 0.4

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        if rng.random() >= self.p:
            return x
        out = x.copy()
        out[:, COLOUR] = self.grey
        return out


@dataclass(frozen=True)
class PointChannels:
    """(n, 3 · parts): what an encoder is given of each point, places first."""

    parts: list[Literal["place", "normal", "colour"]] = field(default_factory=lambda: ["place", "colour"])

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        columns = {"place": PLACE, "normal": NORMAL, "colour": COLOUR}
        return np.concatenate([x[:, columns[part]] for part in self.parts], axis=1)


def _rotated(x: Array, angles: Array | list[float]) -> Array:
    """Places and normals about x, then y, then z, by these angles."""
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        about = np.eye(3)
        about[[i, j], [i, j]] = np.cos(angle)
        about[j, i], about[i, j] = np.sin(angle), -np.sin(angle)
        turn = about @ turn
    out = x.copy()
    out[:, PLACE], out[:, NORMAL] = out[:, PLACE] @ turn.T, out[:, NORMAL] @ turn.T
    return out
