"""Ops on volumes (channels, x, y, z): a grid of cells, boxes of a cell's size, and how the two overlap.

Source: Wu et al. 2024 (VoCo). A view of parts is (k, channels, x, y, z); what follows treats each part by itself. Each
op returns a new array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class ResizeVolume:
    """The last three axes get these sizes: trilinear, as floats; labels become the nearest voxel's."""

    size: list[int]
    labels: bool = False

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        import torch
        import torch.nn.functional as F

        kind = x.dtype if self.labels else np.float32
        planes = torch.from_numpy(np.float32(x) if self.labels else floats(x)).reshape(1, -1, *x.shape[-3:])
        how = {"mode": "nearest-exact"} if self.labels else {"mode": "trilinear", "align_corners": False}
        return F.interpolate(planes, self.size, **how).reshape(*x.shape[:-3], *self.size).numpy().astype(kind)


@dataclass(frozen=True)
class CellsAndBoxes:
    """All cells of a grid, then `count` boxes of a cell's size from anywhere in the volume.

    (cells + count, channels, x/gx, y/gy, z/gz); the grid's z runs fastest. `box_overlaps` draws the same boxes.
    """

    grid: list[int]
    count: int
    shared: ClassVar[bool] = True

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        a, b, c = _cell(x, self.grid)
        cells = np.ndindex(*self.grid)
        starts = [(i * a, j * b, k * c) for i, j, k in cells] + _starts(x, self.grid, self.count, rng).tolist()
        return np.stack([x[:, i : i + a, j : j + b, k : k + c] for i, j, k in starts])


@dataclass(frozen=True)
class BoxOverlaps:
    """(count, cells) float32: the share of each of `cells_and_boxes`' boxes that lies in each of its cells.

    A row sums to 1. The ops before it, the grid and the count are to be those of the view with the boxes.
    """

    grid: list[int]
    count: int
    shared: ClassVar[bool] = True

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        starts, cell = _starts(x, self.grid, self.count, rng), _cell(x, self.grid)
        along = [
            np.maximum(0, 1 - np.abs(start[:, None] / width - np.arange(many)))
            for start, width, many in zip(starts.T, cell, self.grid, strict=True)
        ]
        return np.einsum("mi,mj,mk->mijk", *along).reshape(self.count, -1).astype(np.float32)


@dataclass(frozen=True)
class CellNumbers:
    """(cells + count,) int64: the cell that holds most of each part of `cells_and_boxes`, what a probe may ask for."""

    grid: list[int]
    count: int
    shared: ClassVar[bool] = True

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        boxes = BoxOverlaps(self.grid, self.count)(x, rng)
        return np.concatenate([np.arange(boxes.shape[1]), boxes.argmax(1)])


@dataclass(frozen=True)
class Patches:
    """All boxes of this size at these strides: (k, channels, ...), z fastest."""

    size: list[int]
    stride: list[int]

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        i, j, k = self.stride
        boxes = np.lib.stride_tricks.sliding_window_view(x, self.size, (1, 2, 3))[:, ::i, ::j, ::k]
        return boxes.transpose(1, 2, 3, 0, 4, 5, 6).reshape(-1, len(x), *self.size)


@dataclass(frozen=True)
class PatchLabels:
    """Of labels (x, y, z): (k,) int64, that of the middle voxel of each of `patches`' boxes."""

    size: list[int]
    stride: list[int]

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        middles = (
            slice(s // 2, many - s + s // 2 + 1, step)
            for s, many, step in zip(self.size, x.shape, self.stride, strict=True)
        )
        return x[tuple(middles)].reshape(-1).astype(np.int64)


@dataclass(frozen=True)
class FlipAxes:
    """Each part of a volume is turned round along each axis with probability p."""

    p: float = 0.2

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        flips = rng.random((len(x), 3)) < self.p
        return np.stack([np.flip(part, np.flatnonzero(f) + 1) for part, f in zip(x, flips, strict=True)])


@dataclass(frozen=True)
class QuarterTurns:
    """Each part is turned by one to three quarters about z with probability p; it must be square in x and y."""

    p: float = 0.2

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        if x.shape[2] != x.shape[3]:
            raise ValueError(f"parts of {x.shape[2:]} voxels are not square in x and y: no quarter turn")
        turns = np.where(rng.random(len(x)) < self.p, rng.integers(1, 4, len(x)), 0)
        return np.stack([np.rot90(part, turn, (1, 2)) for part, turn in zip(x, turns, strict=True)])


@dataclass(frozen=True)
class ShiftIntensity:
    """To each part a number from [-most, most] is added, with probability p."""

    most: float = 0.1
    p: float = 0.1

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        shift = np.where(rng.random(len(x)) < self.p, rng.uniform(-self.most, self.most, len(x)), 0)
        return (x + shift.reshape(-1, *[1] * (x.ndim - 1))).astype(x.dtype)


def floats(x: Array) -> Array:
    """Whole numbers become 0 to 1."""
    scale = np.float32(np.iinfo(x.dtype).max if x.dtype.kind in "iu" else 1)
    return np.ascontiguousarray(x, dtype=np.float32) / scale


def _cell(x: Array, grid: list[int]) -> tuple[int, ...]:
    """Voxels of a cell along each axis. Raises ValueError where the grid does not divide the volume."""
    shape = x.shape[-3:]
    if any(many % parts for many, parts in zip(shape, grid, strict=True)):
        raise ValueError(f"a grid of {grid} does not divide {shape} voxels; resize_volume before it")
    return tuple(many // parts for many, parts in zip(shape, grid, strict=True))


def _starts(x: Array, grid: list[int], count: int, rng: np.random.Generator) -> Array:
    room = np.subtract(x.shape[-3:], _cell(x, grid))
    return rng.integers(0, room + 1, (count, 3))
