"""A made-up world whose second domain is its first, rotated: pairs of vectors from one hidden vector.

Hidden vectors are Gaussian with deviations 1, 1/2, 1/3, ...; in domain 1 they are rotated by one random orthogonal
matrix. Each of the two modalities is a random tanh layer of the hidden vector, the same in both domains, plus noise.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace

import numpy as np

from tools.shard.writer import Members, write_shards

WIDTH = 32  # of both modalities


@dataclass(frozen=True)
class Pair:
    x: bytes
    y: bytes
    domain: int
    part: int
    wrong: int = 0


def write(
    out: str,
    first: int = 2000,
    part: int = 400,
    parts: int = 5,
    test: int = 500,
    hidden: int = 12,
    noise: float = 0.4,
    wrong: float = 0.0,
    seed: int = 0,
) -> str:
    """OUT/train-000.tar and OUT/test-000.tar of {x.npy, y.npy, json {"domain", "part", "wrong"}}; a summary line.

    first: training pairs of domain 0, which is part 0; domain 1 has `parts` of `part` pairs. test: of each domain.
    noise: deviation of each modality's own, which makes that a pair cannot always be told from another.
    wrong: share of the training pairs, drawn at random, that have each the y of another of them.
    """
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((hidden, hidden)))[0]
    layers = [rng.standard_normal((2, hidden, WIDTH)) for _ in range(2)]
    deviations = 1 / np.arange(1, hidden + 1)

    def pairs(n: int, domain: int, number: int) -> list[Pair]:
        z = rng.standard_normal((n, hidden)) * deviations
        z = z @ turn if domain else z
        x, y = (np.tanh(2 * z @ a) + 0.5 * z @ b + noise * rng.standard_normal((n, WIDTH)) for a, b in layers)
        return [Pair(_npy(u), _npy(v), domain, number) for u, v in zip(x, y, strict=True)]

    train = pairs(first, 0, 0) + [row for number in range(1, parts + 1) for row in pairs(part, 1, number)]
    held = pairs(test, 0, 0) + pairs(test, 1, 1)
    off = rng.permutation(len(train))[: round(wrong * len(train))]
    for i, other, y in zip(off, np.roll(off, 1), [train[j].y for j in np.roll(off, 1)], strict=True):
        train[i] = replace(train[i], y=y, wrong=int(i != other))
    for split, rows in (("train", train), ("test", held)):
        write_shards(out, split, rows, members, shard_samples=len(rows))
    return f"wrote {len(train)} pairs for training and {len(held)} held out, as tars in {out}"


def members(pair: Pair) -> Members:
    facts = json.dumps({"domain": pair.domain, "part": pair.part, "wrong": pair.wrong}).encode()
    return {"x.npy": pair.x, "y.npy": pair.y, "json": facts}


def _npy(vector: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, vector.astype(np.float32))
    return content.getvalue()
