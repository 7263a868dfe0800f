"""Ops on scenes, {name: array (n, ...)} of n points and what is known of each: places, labels, pixels that see them.

A scene is one field (an npz), so that views of its points, labels and pixels draw the same points. Each op returns a
new array. Source: CLIP2Scene (Chen et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distpre.views.points import NORMAL, PLACE

Array = np.ndarray
Scene = dict[str, Array]


@dataclass(frozen=True)
class SomeOfScene:
    """`count` of the points, none twice, with all that is known of them; the same ones in all views of the field."""

    count: int
    shared: ClassVar[bool] = True

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        sizes = {name: len(values) for name, values in scene.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"a scene's arrays are of as many points, not {sizes}")
        many = next(iter(sizes.values()))
        if many < self.count:
            raise ValueError(f"a scene of {many} points where the recipe wants {self.count}")
        chosen = rng.choice(many, self.count, replace=False)
        return {name: values[chosen] for name, values in scene.items()}


@dataclass(frozen=True)
class OfScene:
    """One of the arrays; whole numbers as int64, others as float32."""

    part: str

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Array:
        if self.part not in scene:
            raise ValueError(f"the scene has no {self.part!r}; it has {', '.join(scene)}")
        values = scene[self.part]
        return values.astype(np.int64 if values.dtype.kind in "iu" else np.float32)


@dataclass(frozen=True)
class SuperNodes:
    """Points (n, 3 or more) -> (n,) int64: a number for the cube of `size` metres in which each lies.

    Of a cube the first `most` points have its number, the others -1: in none.
    """

    size: float
    most: int = 8

    def __call__(self, points: Array, rng: np.random.Generator) -> Array:
        number = cubes(points, self.size)
        order = np.argsort(number, kind="stable")
        first = np.searchsorted(number[order], number)  # of a point's cube, where in that order it begins
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return np.where(place - first < self.most, number, -1)


def cubes(points: Array, size: float) -> Array:
    """(n,) int64: of each point the number, from 0 without gaps, of the cube of `size` that it lies in."""
    place = np.floor(points[:, PLACE] / size).astype(np.int64)
    place -= place.min(0)
    return np.unique(np.ravel_multi_index(tuple(place.T), tuple(place.max(0) + 1)), return_inverse=True)[1].reshape(-1)


@dataclass(frozen=True)
class Mirror:
    """Points (n, 9) turned round along x, and along y, each with probability p."""

    p: float = 0.5

    def __call__(self, points: Array, rng: np.random.Generator) -> Array:
        sign = np.where(rng.random(3) < self.p, -1, 1) * [1, 1, 0] + [0, 0, 1]
        out = points.copy()
        out[:, PLACE], out[:, NORMAL] = out[:, PLACE] * sign, out[:, NORMAL] * sign
        return out
