"""Handwritten digits with captions: real images that ship inside scikit-learn (UCI, 1,797 scans of 8 x 8 pixels)."""

from __future__ import annotations

import argparse
import io
import json
from typing import Any

import numpy as np

from tools.shard.writer import Members, write_shards

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "a handwritten {}",
    "the digit {}",
    "a scan of the number {}",
    "somebody wrote a {}",
    "{}, written by hand",
    "a small picture of a {}",
)


def write(out: str, held_out: float = 0.2, shards: int = 4, seed: int = 0) -> str:
    """OUT/train-000.tar ... and OUT/test-000.tar with members png, txt and json {"digit": 7}; returns a summary line.

    held_out: share of the scans, drawn at random, that goes into the test part.
    """
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(scans))
    captions = rng.integers(len(TEMPLATES), size=len(scans))
    rows = [(scans[i].reshape(8, 8), int(labels[i]), int(captions[i])) for i in order]
    test = round(len(rows) * held_out)
    write_shards(out, "test", rows[:test], members, shard_samples=max(1, test))
    write_shards(out, "train", rows[test:], members, shard_samples=-(-(len(rows) - test) // shards))
    return f"wrote {len(rows) - test} handwritten digits for training and {test} held out, as tars in {out}"


def members(row: tuple[np.ndarray, int, int]) -> Members:
    from PIL import Image

    scan, digit, template = row
    png = io.BytesIO()
    Image.fromarray(np.round(scan * 255 / 16).astype(np.uint8)).save(png, "png")
    caption = TEMPLATES[template].format(WORDS[digit])
    return {"png": png.getvalue(), "txt": caption.encode(), "json": json.dumps({"digit": digit}).encode()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="folder of the shards")
    parser.add_argument("--held-out", type=float, default=0.2, help="share of the scans for testing (default 0.2)")
    parser.add_argument("--shards", type=int, default=4, help="training shards (default 4)")


def run(arguments: Any) -> str:
    return write(arguments.out, arguments.held_out, arguments.shards)
