"""Made-up retinas: layered OCT volumes with the en-face pictures (IR, FAF) of the same eye.

No public OCT volumes with en-face pictures were found, so this world stands in for them. An eye is layers (tilt,
curvature, foveal pit, waves, brightnesses) and vessels, drawn from (seed, eye) alone. Half of the eyes have a lesion:
dark fluid that lifts the inner layers, seen in some neighbouring B-scans anywhere. A scan is B-scans of the eye with
speckle, in which vessels cast shadows. IR is the projection of the layers along depth; FAF is made of the lesion, the
fovea, the vessels and the outermost layer's thickness. Some eyes lack IR, some FAF; some have two scans, with one and
the same picture beside both.
"""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distpre.errors import DataError
from tools.shard.writer import Members, write_shards

# Three inner layers, fluid, two outer ones: brightness, with the vitreous before and the choroid after them, and
# thickness in shares of the depth.
BRIGHT = np.array([0.06, 0.70, 0.38, 0.55, 0.10, 0.30, 0.90, 0.45])
INNER, OUTER, FLUID = np.array([0.06, 0.09, 0.07]), np.array([0.09, 0.05]), 0.2
FLOOR = 0.55  # depth of the inner layers' lower edge
SPECKLE = 0.2
EYE, SCANS, PICTURES, SPECKLES = range(4)  # what a generator is for


@dataclass(frozen=True)
class Row:
    """A scan of an eye, and which pictures lie beside it."""

    seed: int
    eye: int
    scan: int
    ir: bool
    faf: bool
    frames: int
    side: int


def write(
    out: str,
    train: int = 800,
    test: int = 300,
    frames: int = 12,
    side: int = 64,
    no_ir: float = 0.1,
    no_faf: float = 0.3,
    twice: float = 0.1,
    seed: int = 0,
) -> str:
    """OUT/train-000.tar and OUT/test-000.tar of {oct.npy, ir.png, faf.png, json}; a summary.

    json: {"eye", "scan", "lesion", "ir", "faf"}. train, test: scans. oct.npy is uint8 (frames, side, side): B-scans,
    depth, width; pictures are side x side. no_ir, no_faf: shares of eyes without that picture; twice: share of eyes
    with two scans. No eye is in both parts. Raises DataError for sizes that hold no retina.
    """
    if frames < 2 or side < 16:
        raise DataError(f"phantoms: {frames} frames of {side} x {side} hold no retina.", "Ask for 2 of 16, or more.")
    eye = 0
    for split, count in (("train", train), ("test", test)):
        rows: list[Row] = []
        while len(rows) < count:
            again, ir, faf = _rng(seed, eye, SCANS).random(3) < (twice, 1 - no_ir, 1 - no_faf)
            rows += [Row(seed, eye, scan, bool(ir), bool(faf), frames, side) for scan in range(1 + again)]
            eye += 1
        write_shards(out, split, rows[:count], members, shard_samples=count)
    return f"wrote {train} made-up OCT volumes for training and {test} held out, as tars in {out}"


def members(row: Row) -> Members:
    retina = Retina(row.seed, row.eye, row.side)
    ir, faf = retina.pictures()
    pictures = ({"ir.png": _png(ir)} if row.ir else {}) | ({"faf.png": _png(faf)} if row.faf else {})
    facts = {"eye": row.eye, "scan": row.scan, "lesion": int(retina.ill), "ir": int(row.ir), "faf": int(row.faf)}
    return {"oct.npy": _npy(retina.volume(row.scan, row.frames)), **pictures, "json": json.dumps(facts).encode()}


class Retina:
    """An eye. Fields over its surface are (side, side): y runs from B-scan to B-scan, x along one.

    edges: (7, side, side) depths in pixels, the upper edges of six layers and the lower edge of the last, each at or
    below the one before; bright: (8,), of what lies above, between and below them; vessels: (side, side) in [0, 1].
    """

    def __init__(self, seed: int, eye: int, side: int):
        self.seed, self.eye, self.side = seed, eye, side
        rng = _rng(seed, eye, EYE)
        self.y, self.x = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
        self.fovea = self._bump(rng.uniform(-0.3, 0.3, 2), 0.2)
        inner, outer = (self._thickness(rng, its) for its in (INNER, OUTER))
        inner = inner * (1 - 0.7 * self.fovea)
        self.ill, where, size = bool(rng.random() < 0.5), rng.uniform(-0.8, 0.8, 2), rng.uniform(0.3, 0.5)
        self.lesion = self.ill * self._bump(where, size)
        tilt, bend = rng.normal(0, 0.04, 2), rng.uniform(0.02, 0.06)
        floor = FLOOR + tilt[0] * self.y + tilt[1] * self.x - bend * (self.x**2 + self.y**2) + self._waves(rng, 0.012)
        fluid = FLUID * rng.uniform(0.8, 1.2) * self.lesion
        upper = floor - fluid - np.cumsum(inner[::-1], 0)[::-1]
        self.edges = side * np.stack([*upper, floor - fluid, floor, *(floor + np.cumsum(outer, 0))])
        self.bright = BRIGHT * rng.uniform(0.85, 1.1, len(BRIGHT))
        self.outermost = outer[-1] / OUTER[-1]
        self.vessels = self._vessels(rng)

    def volume(self, scan: int, frames: int) -> NDArray[np.uint8]:
        """(frames, side, side): B-scans at even places, each (depth, x)."""
        rng = _rng(self.seed, self.eye, SPECKLES, scan)
        edges = self.edges[:, np.linspace(0, self.side - 1, frames).round().astype(int)] + rng.uniform(-2, 2)
        shadows = self.vessels[np.linspace(0, self.side - 1, frames).round().astype(int)]
        clean = self._reflected(edges, shadows)
        return _bytes(clean * (1 + SPECKLE * rng.standard_normal(clean.shape)))

    def pictures(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """IR and FAF, (side, side) each."""
        rng = _rng(self.seed, self.eye, PICTURES)
        depth = self._reflected(self.edges, self.vessels).mean(1)
        ir = (2.5 * depth) ** 1.3 * (1 - 0.2 * (self.x**2 + self.y**2)) + 0.3 * self.lesion
        faf = 0.6 * self.outermost - 0.35 * self.fovea - 0.5 * self.lesion - 0.3 * self.vessels
        return tuple(_bytes(p + 0.04 * rng.standard_normal(p.shape)) for p in (ir, faf))

    def _reflected(self, edges: NDArray, shadows: NDArray) -> NDArray:
        """Edges (7, n, side), shadows (n, side) -> (n, depth, side): an edge within a pixel is shared out."""
        depth, edges = np.arange(self.side, dtype=np.float32)[:, None], edges.astype(np.float32)[:, :, None]
        out = np.full((edges.shape[1], self.side, self.side), self.bright[0], np.float32)
        for edge, step in zip(edges, np.diff(self.bright), strict=True):
            out += np.float32(step) * (depth - edge + 0.5).clip(0, 1)
        out *= np.exp(-(depth - edges[-1]).clip(0) / (0.2 * self.side))
        return out * (1 - 0.6 * shadows.astype(np.float32)[:, None] * (depth - edges[1] + 0.5).clip(0, 1))

    def _thickness(self, rng: np.random.Generator, share: NDArray) -> NDArray:
        each = share * rng.uniform(0.8, 1.25, len(share))
        return np.stack([its * (1 + self._waves(rng, 0.1)) for its in each])

    def _waves(self, rng: np.random.Generator, size: float) -> NDArray:
        """A smooth field: four cosines of random direction, at most one and a half periods across."""
        out = np.zeros_like(self.x)
        for ky, kx, phase in zip(*rng.uniform(-1.5, 1.5, (2, 4)), rng.uniform(0, 2 * np.pi, 4), strict=True):
            out += np.cos(np.pi * (ky * self.y + kx * self.x) + phase)
        return size * out

    def _vessels(self, rng: np.random.Generator) -> NDArray:
        """Parabolas across the surface, at any angle."""
        out = np.zeros_like(self.x)
        for _ in range(rng.integers(4, 8)):
            turn, offset, bend, width = rng.uniform((0, -0.9, -0.5, 0.03), (np.pi, 0.9, 0.5, 0.06))
            along, across = (self.x * np.cos(turn + a) + self.y * np.sin(turn + a) for a in (0, np.pi / 2))
            out = np.maximum(out, np.exp(-(((across - offset - bend * along**2) / width) ** 2)))
        return out

    def _bump(self, centre: NDArray, size: float) -> NDArray:
        """1 at the centre, round, flat on top."""
        return np.exp(-((((self.y - centre[0]) ** 2 + (self.x - centre[1]) ** 2) / size**2) ** 2))


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def _bytes(x: NDArray) -> NDArray[np.uint8]:
    return np.round(255 * x.clip(0, 1)).astype(np.uint8)


def _png(picture: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, "png")
    return out.getvalue()


def _npy(x: NDArray) -> bytes:
    out = io.BytesIO()
    np.save(out, x)
    return out.getvalue()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="folder of the shards")
    parser.add_argument("--train", type=int, default=800, help="scans for training (default 800)")
    parser.add_argument("--test", type=int, default=300, help="scans held out (default 300)")
    parser.add_argument("--frames", type=int, default=12, help="B-scans of a volume (default 12)")
    parser.add_argument("--side", type=int, default=64, help="pixels along a B-scan's and a picture's sides")


def run(arguments: Any) -> str:
    a = arguments
    return write(a.out, a.train, a.test, a.frames, a.side)
