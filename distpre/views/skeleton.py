"""Ops on the motion of a body: arrays (joints, channels, time), float32 in and out. Source: UniMTS, Zhang et al. 2024.

Channels are triples of x, y, z of the joint's own frame: acceleration, and where there is one the turning rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class RotateJoints:
    """Each joint's sensor as if it were worn otherwise: one rotation a joint, any alike, the same at all times."""

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        turns = _rotations(len(x), rng)[:, None]  # of every triple of channels
        triples = x.reshape(len(x), -1, 3, x.shape[2])
        return (turns @ triples).reshape(x.shape).astype(x.dtype)


@dataclass(frozen=True)
class KeepJoints:
    """Of some joints, one to `most`, any number alike, the motion; of the others zeros: as a body wears sensors."""

    most: int = 5

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        kept = rng.choice(len(x), min(rng.integers(1, self.most + 1), len(x)), replace=False)
        out = np.zeros_like(x)
        out[kept] = x[kept]
        return out


@dataclass(frozen=True)
class OnlyJoints:
    """Of these joints the motion, of the others zeros: where a person wears sensors."""

    joints: list[int]

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        out = np.zeros_like(x)
        out[self.joints] = x[self.joints]
        return out


@dataclass(frozen=True)
class WornAt:
    """A sensor's (channels, time) -> (joints, channels, time): at `joint`, the nearest to it, and zeros elsewhere."""

    joint: int
    joints: int = 22

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        out = np.zeros((self.joints, *x.shape), x.dtype)
        out[self.joint] = x
        return out


@dataclass(frozen=True)
class RepeatTo:
    """The first `samples` time steps; a shorter one begins again."""

    samples: int

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        return x[..., np.arange(self.samples) % x.shape[-1]]


def _rotations(n: int, rng: np.random.Generator) -> Array:
    """(n, 3, 3) evenly drawn: from quaternions of normal numbers (Shoemake 1992)."""
    w, x, y, z = (q := rng.normal(size=(4, n))) / np.linalg.norm(q, axis=0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)
