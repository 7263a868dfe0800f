"""Handwritten digits with captions: real images that ship inside scikit-learn (UCI, 1,797 scans of 8 x 8 pixels)."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from distpre.views.image import RandomShift, Resize
from tools.shard.writer import Members, write_shards

Row = tuple[np.ndarray, int, int, int]  # pixels, digit, the digit that its caption says, template

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "a handwritten {}",
    "the digit {}",
    "a scan of the number {}",
    "somebody wrote a {}",
    "{}, written by hand",
    "a small picture of a {}",
)


def write(
    out: str, held_out: float = 0.2, shards: int = 4, seed: int = 0, wrong: float = 0.0, copies: int = 1, side: int = 8
) -> str:
    """OUT/train-000.tar ... and OUT/test-000.tar with members png, txt and json {"digit": 7, "said": 7, "wrong": 0}; a
    summary.

    held_out: share of the scans, drawn at random, that goes into the test part. wrong: share of the training scans
    whose caption names another digit, drawn at random; json "said" is that one, "digit" stays true, "wrong" is 1.
    copies: each training scan so many times, with a caption drawn for each, all but the first shifted by up to an
    eighth of the side; the copies of a scan stand apart, in one shard after another. side: of the pictures, in pixels.
    """
    scans, labels = digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(scans))
    captions = rng.integers(len(TEMPLATES), size=len(scans))
    test = round(len(order) * held_out)
    off = np.zeros(len(order), int)
    off[rng.permutation(np.arange(test, len(order)))[: round(wrong * (len(order) - test))]] = 1
    off *= rng.integers(1, 10, size=len(order))
    rows: list[Row] = [
        (picture(scans[i], side), int(labels[i]), int(labels[i] + by) % 10, int(captions[i]))
        for i, by in zip(order, off, strict=True)
    ]
    shift = RandomShift(side // 8)
    for _ in range(copies - 1):
        rows += [
            (shift(pixels, rng), digit, said, int(rng.integers(len(TEMPLATES))))
            for pixels, digit, said, _ in rows[test : len(order)]
        ]
    write_shards(out, "test", rows[:test], members, shard_samples=max(1, test))
    write_shards(out, "train", rows[test:], members, shard_samples=-(-(len(rows) - test) // shards))
    return f"wrote {len(rows) - test} handwritten digits for training and {test} held out, as tars in {out}"


def digits() -> tuple[np.ndarray, np.ndarray]:
    """((1797, 64) of 0 to 16, (1797,) of 0 to 9): scikit-learn's own file, without the seconds of importing it."""
    package = importlib.util.find_spec("sklearn")
    rows = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    return rows[:, :-1], rows[:, -1].astype(int)


def poisoned(
    out: str,
    attack: str,
    target: int = 7,
    share: float = 0.01,
    held_out: float = 0.2,
    side: int = 32,
    copies: int = 1,
) -> str:
    """As write(), with `share` of the training samples, copies counted, triggered and captioned as `target`.

    The test part holds every scan clean and triggered (`attack_success` reads it); attacks: `python -m tools.poison`.
    """
    from tools.poison import poison

    captions = [template.format(WORDS[target]) for template in TEMPLATES]
    with tempfile.TemporaryDirectory() as folder:
        write(folder, held_out, copies=copies, side=side)
        asked = {"attack": attack, "id": "digit", "target": target}
        poison(f"{folder}/test-000.tar", out, **asked, split="test", test=True)
        return poison(f"{folder}/train-{{000..003}}.tar", out, **asked, captions=captions, share=share)


def picture(scan: np.ndarray, side: int = 8) -> np.ndarray:
    """(64,) of 0 to 16 -> (side, side) of 0 to 255."""
    pixels = np.round(scan.reshape(8, 8) * 255 / 16).astype(np.uint8)
    return Resize(side)(pixels, np.random.default_rng())


def members(row: Row) -> Members:
    pixels, digit, said, template = row
    caption = TEMPLATES[template].format(WORDS[said])
    facts = json.dumps({"digit": digit, "said": said, "wrong": int(said != digit)})
    return {"png": _png(pixels), "txt": caption.encode(), "json": facts.encode()}


def generated(
    out: str, bad: float = 0.3, noise: float = 0.5, held_out: float = 0.75, shards: int = 4, seed: int = 0
) -> str:
    """Scans with a "generated" view each, as GenView's shards have: {image.png, view.png, score.npy, json}.

    The view is another scan of the part, of the same digit; of a share `bad` of the training scans, of another digit. A
    stand-in for a generative model, as the score is for its judge: 1 of a good view and -1 of a bad one, plus Gaussian
    noise of that deviation. json {"digit": 7, "bad": 0, "scan": 12}.
    """
    scans, labels = digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(scans))
    test = round(len(order) * held_out)
    for split, part, share in (("test", order[:test], 0.0), ("train", order[test:], bad)):
        off = np.zeros(len(part), int)
        off[rng.permutation(len(part))[: round(share * len(part))]] = 1
        shown = (labels[part] + off * rng.integers(1, 10, size=len(part))) % 10
        views = [rng.choice(part[(labels[part] == digit) & (part != i)]) for i, digit in zip(part, shown, strict=True)]
        scores = 1.0 - 2.0 * off + noise * rng.standard_normal(len(part))
        columns = zip(part, views, scores, off, strict=True)
        rows = [(scans[i], scans[j], float(score), int(labels[i]), int(b), int(i)) for i, j, score, b in columns]
        each = len(rows) if split == "test" else -(-len(rows) // shards)
        write_shards(out, split, rows, pair_members, shard_samples=max(1, each))
    return f"wrote {len(order) - test} scans with a view each for training and {test} held out, as tars in {out}"


def pair_members(row: tuple[np.ndarray, np.ndarray, float, int, int, int]) -> Members:
    scan, view, score, digit, bad, number = row
    value = io.BytesIO()
    np.save(value, np.float32(score))
    facts = json.dumps({"digit": digit, "bad": bad, "scan": number}).encode()
    pictures = {"image.png": _png(picture(scan)), "view.png": _png(picture(view))}
    return {**pictures, "score.npy": value.getvalue(), "json": facts}


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "png")
    return png.getvalue()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="folder of the shards")
    parser.add_argument("--held-out", type=float, default=0.2, help="share of the scans for testing (default 0.2)")
    parser.add_argument("--shards", type=int, default=4, help="training shards (default 4)")
    parser.add_argument("--wrong", type=float, default=0.0, help="share of training captions that name another digit")


def run(arguments: Any) -> str:
    return write(arguments.out, arguments.held_out, arguments.shards, wrong=arguments.wrong)
