"""Made-up scenes: things on a floor, seen by a teacher that is often wrong -> shards of {npz, json}, and anchors.

Points of some kinds of things (primitive shapes, or meshes of a folder by their names) stand on a floor, which is a
kind too. A pixel sees most points. What it says is the anchor of the point's kind, or of another: mistakes are of whole
patches, a few decimetres wide, and mostly between a kind and the next, as CLIP's are. The teacher's label is the anchor
likest to that pixel, as MaskCLIP's. A scene's arrays: points (n, 9) float32 of place, normal and colour, z up, metres;
label (n,) int16, -1 where no pixel sees the point; pixels (n, width) float16; truth (n,) int16. OUT/anchors.safetensors
holds random unit vectors in the place of texts.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distpre.anchors import Anchors
from distpre.errors import DataError
from distpre.views.scenes import cubes
from tools.shard.shapes import MESHES, NO_COLOUR, Shape, sampled, words
from tools.shard.writer import Members, held_out, write_shards

FLOOR = 0.2  # share of the points
SIDE = 6.0  # of the floor, metres
PLACES = 4  # along each side, where a thing may stand
PATCH = 0.25  # metres, of a mistake
TO_THE_NEXT = 0.7  # share of the mistakes that are of a kind and the next
FOGGED = 1.0  # length of the noise beside a pixel's anchor, half a patch's and half its own
ANCHORS, SCENES, SEEN = range(3)  # what a generator is for
MESH_POINTS = 1000

Models = tuple[tuple[NDArray[np.float32], ...], ...]  # of each kind its meshes' points
Surface = Callable[[np.random.Generator, int], NDArray[np.float64]]  # -> (n, 6) place and normal


@dataclass(frozen=True)
class Row:
    """A scene; models: empty for primitive shapes."""

    seed: int
    number: int
    points: int
    things: int
    wrong: float
    unseen: float
    width: int
    kinds: tuple[str, ...]
    models: Models = ()


def ball(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    normal = _unit(rng.standard_normal((n, 3)))
    return np.hstack([0.5 * normal, normal])


def box(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    place, side = rng.uniform(-0.5, 0.5, (n, 3)), rng.integers(6, size=n)
    normal = np.eye(3)[side % 3] * np.where(side < 3, 1, -1)[:, None]
    return np.hstack([np.where(normal != 0, 0.5 * normal, place), normal])


def cylinder(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    around = _circle(rng, n)
    flat, up = rng.random(n) < 1 / 3, rng.choice([-1.0, 1.0], n)
    radius = np.where(flat, np.sqrt(rng.random(n)), 1.0)[:, None]
    height = np.where(flat, 0.5 * up, rng.uniform(-0.5, 0.5, n))[:, None]
    normal = np.where(flat[:, None], up[:, None] * [0, 0, 1], np.hstack([around, np.zeros((n, 1))]))
    return np.hstack([0.5 * radius * around, height, normal])


def cone(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    around, radius = _circle(rng, n), np.sqrt(rng.random((n, 1)))
    base = rng.random((n, 1)) < 0.3
    height = np.where(base, -0.5, 0.5 - radius)
    normal = np.where(base, [[0.0, 0.0, -1.0]], np.hstack([around * 2, np.ones((n, 1))]) / 5**0.5)
    return np.hstack([0.5 * radius * around, height, normal])


def ring(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Upright, as a wheel stands."""
    about, tube = _circle(rng, n), _circle(rng, n)
    normal = np.stack([about[:, 0] * tube[:, 0], tube[:, 1], about[:, 1] * tube[:, 0]], 1)
    middle = 0.38 * np.stack([about[:, 0], np.zeros(n), about[:, 1]], 1)
    return np.hstack([middle + 0.12 * normal, normal])


SHAPES: dict[str, Surface] = {"ball": ball, "box": box, "cylinder": cylinder, "cone": cone, "ring": ring}


def write(
    out: str,
    train: int = 200,
    test: int = 60,
    points: int = 2048,
    things: int = 8,
    wrong: float = 0.3,
    unseen: float = 0.15,
    width: int = 32,
    meshes: str | None = None,
    kinds: list[str] | None = None,
    share: float = 0.3,
    seed: int = 0,
) -> str:
    """OUT/train-000.tar, OUT/test-000.tar of {npz, json {"scene"}} and OUT/anchors.safetensors; a summary line.

    train, test: scenes. things: on each floor, at most 16. wrong: share of the patches whose pixels say another kind.
    unseen: share of the patches that no pixel sees. meshes: a folder; a mesh of it is a thing where just one of `kinds`
    is a word of its name; `share` of the names are in held-out scenes only. Raises DataError.
    """
    if not 0 < things <= PLACES**2 or points < 16 * things:
        raise DataError(
            f"scenes: {things} things of {points} points are no scene.", "Ask for 1 to 16 things, of 16 points each."
        )
    names = ("floor", *(kinds or SHAPES)) if meshes else ("floor", *SHAPES)
    models = _models(meshes, names[1:], share) if meshes else {"train": (), "test": ()}
    fixed = (points, things, wrong, unseen, width, names)
    for split, first, count in (("train", 0, train), ("test", train, test)):
        rows = [Row(seed, first + i, *fixed, models[split]) for i in range(count)]
        write_shards(out, split, rows, members, shard_samples=count)
    Anchors(anchors(seed, len(names), width), names).write(Path(out, "anchors.safetensors"))
    return f"wrote {train} made-up scenes for training and {test} held out, as tars in {out}"


def members(row: Row) -> Members:
    content = io.BytesIO()
    np.savez(content, **scene(row))
    return {"npz": content.getvalue(), "json": json.dumps({"scene": row.number}).encode()}


def scene(row: Row) -> dict[str, NDArray]:
    rng = _rng(row.seed, SCENES, row.number)
    on_floor = round(FLOOR * row.points)
    flat = np.hstack([rng.uniform(0, SIDE, (on_floor, 2)), np.zeros((on_floor, 3)), np.ones((on_floor, 1))])
    parts, truth = [flat], [np.zeros(on_floor, np.int16)]
    spots = rng.permutation(PLACES**2)[: row.things]
    kinds = rng.integers(1, len(row.kinds), row.things)
    for spot, kind, its in zip(spots, kinds, np.array_split(np.arange(row.points - on_floor), row.things), strict=True):
        thing = _thing(row, int(kind), len(its), rng)
        thing[:, :2] += (np.array(divmod(int(spot), PLACES)) + 0.5 + rng.uniform(-0.15, 0.15, 2)) * SIDE / PLACES
        parts.append(thing)
        truth.append(np.full(len(its), kind, np.int16))
    order = rng.permutation(row.points)
    surface, truth = np.concatenate(parts)[order], np.concatenate(truth)[order]
    points = np.hstack([surface, np.full((row.points, 3), NO_COLOUR)]).astype(np.float32)
    return {"points": points, "truth": truth, **_seen(row, points, truth)}


def anchors(seed: int, classes: int, width: int) -> torch.Tensor:
    """(classes, width) random unit vectors."""
    return torch.from_numpy(_unit(_rng(seed, ANCHORS).standard_normal((classes, width)))).float()


def _thing(row: Row, kind: int, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n, 6) of a metre or so, turned about z, its lowest point on the floor."""
    if row.models:
        model = row.models[kind - 1][rng.integers(len(row.models[kind - 1]))].astype(np.float64)
        place, normal = model[rng.choice(len(model), n, replace=len(model) < n), :6].reshape(n, 2, 3).transpose(1, 0, 2)
        middle = (model[:, :3].max(0) + model[:, :3].min(0)) / 2
        place = (place - middle) / np.ptp(model[:, :3], axis=0).max() * rng.uniform(0.8, 1.2)
    else:
        place, normal = SHAPES[row.kinds[kind]](rng, n).reshape(n, 2, 3).transpose(1, 0, 2)
        size = rng.uniform(0.7, 1.1) * rng.uniform(0.75, 1.25, 3)
        place, normal = place * size, _unit(normal / size)
    turn = rng.uniform(0, 2 * np.pi)
    about = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    return np.hstack([(place - [0, 0, place[:, 2].min()]) @ about.T, normal @ about.T])


def _seen(row: Row, points: NDArray, truth: NDArray) -> dict[str, NDArray]:
    """What pixels say of the points, and what is made of it."""
    rng, many = _rng(row.seed, SEEN, row.number), len(row.kinds)
    patch = np.unique(cubes(points, PATCH) * many + truth, return_inverse=True)[1].reshape(-1)
    patches = int(patch.max()) + 1
    shift = np.where(rng.random(patches) < TO_THE_NEXT, 1, rng.integers(1, many, patches))
    said = (truth + np.where(rng.random(patches) < row.wrong, shift, 0)[patch]) % many
    hidden = (rng.random(patches) < row.unseen)[patch]
    vectors = anchors(row.seed, many, row.width).numpy()
    fog = rng.standard_normal((patches, row.width))[patch] + rng.standard_normal((row.points, row.width))
    pixels = _unit(vectors[said] + FOGGED * _unit(fog))
    label = np.where(hidden, -1, (pixels @ vectors.T).argmax(1)).astype(np.int16)
    return {"label": label, "pixels": np.where(hidden[:, None], 0, pixels).astype(np.float16)}


def _models(folder: str, kinds: tuple[str, ...], share: float) -> dict[str, Models]:
    """{split: models}. Raises DataError for a kind without one in either part."""
    found: dict[str, dict[str, list[NDArray]]] = {split: {kind: [] for kind in kinds} for split in ("train", "test")}
    for path in sorted(Path(folder).rglob("*")):
        named = set(words(path.stem).split()) & set(kinds)
        if path.suffix.lower() in MESHES and len(named) == 1:
            name = path.relative_to(folder).as_posix()
            split = "test" if held_out(words(path.stem), share) else "train"
            found[split][named.pop()].append(sampled(Shape(Path(folder), name, MESH_POINTS, "y", "{}")))
    for split, its in found.items():
        for kind, models in its.items():
            if not models:
                what = f"{folder}: no mesh named {kind} for {split}ing scenes."
                raise DataError(what, "Name other --kinds, or another --held-out.")
    return {split: tuple(tuple(models) for models in its.values()) for split, its in found.items()}


def _circle(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def _unit(x: NDArray) -> NDArray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="folder of the shards")
    parser.add_argument("--train", type=int, default=200, help="scenes for training (default 200)")
    parser.add_argument("--test", type=int, default=60, help="scenes held out (default 60)")
    parser.add_argument("--points", type=int, default=2048, help="of a scene (default 2048)")
    parser.add_argument("--things", type=int, default=8, help="in a scene (default 8)")
    parser.add_argument("--wrong", type=float, default=0.3, help="share of patches that are taken for another kind")
    parser.add_argument("--meshes", help="a folder of meshes to take as things, in place of primitive shapes")
    parser.add_argument("--kinds", nargs="+", help="words of the meshes' names, each a class")
    parser.add_argument("--held-out", type=float, default=0.3, help="share of meshes for held-out scenes (default 0.3)")
    parser.add_argument("--seed", type=int, default=0)


def run(a: Any) -> str:
    return write(
        a.out,
        a.train,
        a.test,
        a.points,
        a.things,
        a.wrong,
        meshes=a.meshes,
        kinds=a.kinds,
        share=a.held_out,
        seed=a.seed,
    )
