"""Ops on volumes: arrays (frames, height, width), cut at last into the tubelets that the encoder `tubelets` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from distpre.types import Padded
from distpre.views.cells import floats

Array = np.ndarray


@dataclass(frozen=True)
class Normalise:
    """(x - mean) / std; whole numbers become floats from 0 to 1 before."""

    mean: float
    std: float

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        return (floats(x) - np.float32(self.mean)) / np.float32(self.std)


@dataclass(frozen=True)
class FlipVolume:
    """Along each of `axes` (0 frames, 1 height, 2 width) by itself, with probability p."""

    axes: list[int]
    p: float = 0.5

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        return np.flip(x, [axis for axis in self.axes if rng.random() < self.p])


@dataclass(frozen=True)
class OneFrame:
    """(frames, height, width) -> (1, height, width): a frame drawn evenly, or the middle one."""

    which: Literal["any", "middle"] = "any"
    shared: ClassVar[bool] = True

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        number = _frame(self.which, x, rng)
        return x[number : number + 1]


@dataclass(frozen=True)
class FramePart:
    """(frames, ...) -> which of `parts` equal stretches holds the frame that `one_frame` takes in another view.

    Both are the first of their views' ops that draw alike in all views of the field.
    """

    parts: int
    which: Literal["any", "middle"] = "any"
    shared: ClassVar[bool] = True

    def __call__(self, x: Array, rng: np.random.Generator) -> int:
        return _frame(self.which, x, rng) * self.parts // len(x)


@dataclass(frozen=True)
class Tubelets:
    """(frames, height, width) -> Padded (n, pixels), frame by frame and row by row; size: of a tubelet.

    hidden: the share of them, drawn evenly, whose mask is False (He et al. 2022, section 3; Feichtenhofer et al. 2022).
    It is drawn here and not in the encoder, so that any number of ranks hides the same ones.
    """

    size: list[int]
    hidden: float = 0.0

    def __call__(self, x: Array, rng: np.random.Generator) -> Padded:
        if x.ndim != 3 or any(whole % part for whole, part in zip(x.shape, self.size, strict=True)):
            raise ValueError(f"a volume {x.shape} cannot be cut into tubelets {tuple(self.size)}; resize_volume first")
        grid = [whole // part for whole, part in zip(x.shape, self.size, strict=True)]
        cut = floats(x).reshape(grid[0], self.size[0], grid[1], self.size[1], grid[2], self.size[2])
        values = np.ascontiguousarray(cut.transpose(0, 2, 4, 1, 3, 5)).reshape(-1, int(np.prod(self.size)))
        seen = np.ones(len(values), bool)
        seen[rng.permutation(len(values))[: min(round(self.hidden * len(values)), len(values) - 1)]] = False
        return Padded(torch.from_numpy(values), torch.from_numpy(seen))


def _frame(which: str, x: Array, rng: np.random.Generator) -> int:
    return int(rng.integers(len(x))) if which == "any" else len(x) // 2
