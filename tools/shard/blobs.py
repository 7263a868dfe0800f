"""A made-up world of volumes in which one label is seen in any slice, and another only in the order of the slices.

A volume holds one blob on a dim ground. Its shape (disc, square, ring, plus) is that of every slice. Its radius changes
from slice to slice by a pattern (rising, falling, hill, valley); all patterns have the same radii in other orders, so
what is said of the slices as a set says nothing about the pattern. Place, size, brightness and noise tell nothing.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distpre.errors import DataError
from tools.shard.writer import Members, write_shards

SHAPES, PATTERNS = 4, 4
LEAST, MOST = 0.25, 0.65  # radius, in shares of half the side


@dataclass(frozen=True)
class Row:
    seed: int
    volume: int
    slices: int
    side: int


def write(out: str, train: int = 800, test: int = 250, slices: int = 16, side: int = 24, seed: int = 0) -> str:
    """OUT/train-000.tar and OUT/test-000.tar of {volume.npy, json {"volume", "shape", "pattern"}}; a summary line.

    volume.npy is uint8 (slices, side, side), drawn from (seed, volume). Raises DataError for sizes without a pattern.
    """
    if slices < 4 or side < 12:
        raise DataError(f"blobs: {slices} slices of {side} x {side} show no pattern.", "Ask for 4 of 12, or more.")
    for split, first, count in (("train", 0, train), ("test", train, test)):
        rows = [Row(seed, first + i, slices, side) for i in range(count)]
        write_shards(out, split, rows, members, shard_samples=count)
    return f"wrote {train} made-up volumes for training and {test} held out, as tars in {out}"


def members(row: Row) -> Members:
    volume, shape, pattern = drawn(row)
    content = io.BytesIO()
    np.save(content, volume)
    facts = {"volume": row.volume, "shape": shape, "pattern": pattern}
    return {"volume.npy": content.getvalue(), "json": json.dumps(facts).encode()}


def drawn(row: Row) -> tuple[NDArray[np.uint8], int, int]:
    """(slices, side, side), shape, pattern."""
    rng = np.random.default_rng((row.seed, row.volume))
    shape, pattern = (int(rng.integers(many)) for many in (SHAPES, PATTERNS))
    radius = radii(pattern, row.slices) * rng.uniform(0.9, 1.1)
    y, x = np.meshgrid(*[np.linspace(-1, 1, row.side)] * 2, indexing="ij")
    across, down = ((its - rng.uniform(-0.15, 0.15)) / radius[:, None, None] for its in (x, y))
    ground = rng.uniform(0.05, 0.2)
    bright = ground + rng.uniform(0.3, 0.7)
    clean = np.where(inside(shape, across, down), bright, ground)
    noisy = clean + 0.05 * rng.standard_normal(clean.shape)
    return np.round(255 * noisy.clip(0, 1)).astype(np.uint8), shape, pattern


def radii(pattern: int, slices: int) -> NDArray[np.float64]:
    """(slices,): the same numbers for every pattern: rising, falling, the largest in the middle, the smallest there."""
    level = np.linspace(LEAST, MOST, slices)
    hill = np.concatenate([level[0::2], level[1::2][::-1]])
    valley = np.concatenate([level[1::2][::-1], level[0::2]])
    return (level, level[::-1], hill, valley)[pattern]


def inside(shape: int, x: NDArray, y: NDArray) -> NDArray[np.bool_]:
    """Where places in units of the radius belong to a disc, a square, a ring or a plus."""
    distance, farther, nearer = np.hypot(x, y), np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    return (distance < 1, farther < 0.9, (distance > 0.5) & (distance < 1.05), (nearer < 0.3) & (farther < 1.05))[shape]
