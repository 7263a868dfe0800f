"""Made-up objects: coloured points, and frozen vectors of texts and pictures of them, as a CLIP would give.

An object is one of ten families, stretched in one of three ways, in one of four colours. A vector is the sum of its
words' vectors and noise. Pictures show everything; texts leave words out. Of the raw texts some are of another object
altogether, and most of those are flagged; machine captions mistake a word now and then; retrieved texts are of objects
that resemble it; some objects have a raw text only. Combinations of words that are held out are in no training sample.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tools.shard.writer import Members, divided, write_shards

FAMILIES = ("box", "ball", "rod", "cone", "ring", "dome", "dumbbell", "cross", "stairs", "table")
STRETCH = {"flat": 0.4, "plain": 1.0, "tall": 2.2}  # of the upward axis
COLOURS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.8, 0.2), "blue": (0.1, 0.2, 0.9), "white": (0.9, 0.9, 0.9)}
KINDS = (len(FAMILIES), len(STRETCH), len(COLOURS))
WIDTH, POINTS, RENDERS = 64, 256, 12
NOISE = 0.5  # length of a vector's noise; a family's word has 1, another's 0.7


@dataclass(frozen=True)
class Thing:
    """words: place in FAMILIES, STRETCH, COLOURS; seed: of all that is drawn for it."""

    words: tuple[int, int, int]
    seed: int
    corrupted: float = field(default=0.4, kw_only=True)

    @property
    def kind(self) -> int:
        return int(np.ravel_multi_index(self.words, KINDS))


def surface(family: str, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n, 3) places, z is up."""
    turn, u, v = rng.uniform(0, 2 * np.pi, n), rng.uniform(-1, 1, n), rng.random(n)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    ball = np.column_stack([circle * np.sqrt(1 - u**2)[:, None], u])
    part = rng.integers(4, size=n)
    if family == "ball":
        return ball
    if family == "rod":
        return np.column_stack([circle * 0.5, u])
    if family == "cone":
        return np.column_stack([circle * np.sqrt(v)[:, None], 1 - 2 * np.sqrt(v)])
    if family == "ring":
        other = rng.uniform(0, 2 * np.pi, n)
        return np.column_stack([circle * (1 + 0.3 * np.cos(other))[:, None], 0.3 * np.sin(other)])
    if family == "dome":
        return np.column_stack([ball[:, :2], np.abs(ball[:, 2])])
    if family == "dumbbell":
        return ball * 0.5 + np.array([0.8, 0, 0]) * np.where(part < 2, 1, -1)[:, None]
    cube = rng.uniform(-1, 1, (n, 3))
    cube[np.arange(n), rng.integers(3, size=n)] = rng.choice([-1.0, 1.0], n)
    if family == "box":
        return cube
    if family == "cross":
        return cube * np.where((part < 2)[:, None], [1, 0.3, 0.3], [0.3, 1, 0.3])
    if family == "stairs":
        step = np.minimum(part, 2)
        return cube * [0.33, 1, 0.33] + np.stack([step * 0.66 - 0.66, 0 * step, step * 0.66 - 0.66], 1)
    legs = np.array([[0.8, 0.8], [0.8, -0.8], [-0.8, 0.8], [-0.8, -0.8]])[part]  # a table
    leg = np.column_stack([legs + 0.1 * cube[:, :2], 0.8 * cube[:, 2] - 0.2])
    return np.where((v < 0.5)[:, None], cube * [1, 1, 0.1] + [0, 0, 0.7], leg)


def points(thing: Thing) -> NDArray[np.float32]:
    """(256, 9), without normals."""
    rng = np.random.default_rng([thing.seed, 1])
    family, stretch, colour = thing.words
    place = surface(FAMILIES[family], POINTS, rng) * [1, 1, list(STRETCH.values())[stretch] * rng.uniform(0.85, 1.15)]
    paint = np.clip(list(COLOURS.values())[colour] + rng.normal(0, 0.08, (POINTS, 3)), 0, 1)
    return np.hstack([place + rng.normal(0, 0.02, place.shape), 0 * place, paint]).astype(np.float32)


@lru_cache(maxsize=1)
def words() -> list[NDArray[np.float64]]:
    """The frozen towers: a vector a word, the same in every data set; the last are of texts and of pictures."""
    rng = np.random.default_rng(2)
    drawn = [rng.normal(size=(n, WIDTH)) for n in (*KINDS, 2)]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in drawn]
    return [unit[0], 0.7 * unit[1], 0.7 * unit[2], 0.7 * unit[3]]


def said(of: tuple[int, ...], heard: NDArray, rng: np.random.Generator, picture: bool = False) -> NDArray[np.float64]:
    """The unit vector of those words of an object that are heard: the sum, its kind's own part, and noise."""
    vectors = words()
    x = sum(h * vectors[i][w] for i, (w, h) in enumerate(zip(of, heard, strict=True))) + vectors[3][int(picture)]
    x = x + NOISE * rng.normal(size=WIDTH) / np.sqrt(WIDTH)
    return x / np.linalg.norm(x)


def texts(thing: Thing) -> dict[str, NDArray[np.float32]]:
    """{raw, flagged, blip, azure, retrieved (4, 64)}; clean: the raw text before it was spoilt; label: all words."""
    rng, true = np.random.default_rng([thing.seed, 2]), thing.words

    def any_of() -> tuple[int, ...]:
        return tuple(int(rng.integers(n)) for n in KINDS)

    def heard(p: float) -> NDArray:
        return np.array([1, *(rng.random(2) < p)])

    def mistaken(p: float) -> tuple[int, ...]:
        return tuple(int(rng.integers(n)) if rng.random() < p else w for w, n in zip(true, KINDS, strict=True))

    clean = said(true, heard(0.7), rng)
    spoilt = rng.random() < thing.corrupted
    made = {
        "clean": clean,
        "raw": said(any_of(), heard(0.7), rng) if spoilt else clean,
        "flagged": np.float32(rng.random() < (0.9 if spoilt else 0.05)),
        "label": said(true, np.ones(3), np.random.default_rng([thing.kind, 3])),
    }
    if rng.random() < 0.9:
        made["blip"], made["azure"] = (said(mistaken(0.1), heard(0.6), rng) for _ in range(2))
        made["retrieved"] = np.stack([said((true[0], *mistaken(0.4)[1:]), heard(0.8), rng) for _ in range(4)])
    return {name: np.asarray(x, np.float32) for name, x in made.items()}


def pictures(thing: Thing) -> dict[str, NDArray[np.float32]]:
    """{thumbnail (64,) of every other object, renders (12, 64)}; each shows it from elsewhere."""
    rng = np.random.default_rng([thing.seed, 4])
    seen = np.stack([said(thing.words, np.ones(3), rng, picture=True) for _ in range(RENDERS + 1)]).astype(np.float32)
    return {"renders": seen[1:], **({"thumbnail": seen[0]} if rng.random() < 0.5 else {})}


def write(out: str, each: int = 8, held_out: float = 0.2, corrupted: float = 0.4, seed: int = 0) -> str:
    """OUT/train-000.tar and OUT/test-000.tar of {npy, text.npz, image.npz, json {class}}; a summary.

    each: objects of a combination of words; corrupted: the share of raw texts that are of another object.
    """
    kinds = [np.unravel_index(kind, KINDS) for kind in range(int(np.prod(KINDS))) for _ in range(each)]
    things = [Thing(tuple(map(int, its)), seed * len(kinds) + i, corrupted=corrupted) for i, its in enumerate(kinds)]
    parts = divided(things, lambda thing: str(thing.words), held_out)
    for split, rows in parts.items():
        write_shards(out, split, rows, members, shard_samples=max(1, len(rows)), ids={"json.class"})
    return f"wrote {len(parts['train'])} objects for training and {len(parts['test'])} held out, as tars in {out}"


def members(thing: Thing) -> Members:
    npy, text, image = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, points(thing))
    np.savez(text, **texts(thing))
    np.savez(image, **pictures(thing))
    facts = json.dumps({"class": thing.kind}).encode()
    return {"npy": npy.getvalue(), "text.npz": text.getvalue(), "image.npz": image.getvalue(), "json": facts}
