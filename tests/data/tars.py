"""Small sources for the tests: tars of numbered texts, and views that need no library."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from distpre.data.source import Source


def tar(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    with tarfile.open(path, "w", **options) as out:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


def numbered(folder: Path, counts: list[int], group: Any = lambda n: n % 3) -> list[str]:
    """Shards of counts[i] samples; sample n has txt "n" and json {"n": n, "group": group(n)}. Keys repeat in each."""
    n, names = 0, []
    for i, count in enumerate(counts):
        members = []
        for row in range(count):
            said = json.dumps({"n": n, "group": group(n)}).encode()
            members += [(f"{row:04d}.txt", str(n).encode()), (f"{row:04d}.json", said)]
            n += 1
        names.append(str(tar(folder / f"shard-{i:03d}.tar", members)))
    return names


FIELDS, IDS = {"text": "txt"}, {"n": "json.n", "group": "json.group"}


def source(folder: Path, counts: list[int], **options: Any) -> Source:
    return Source.open(numbered(folder, counts, **options), FIELDS, IDS)


class Number:
    """A view of the text: [its number, a draw that depends on seed, epoch and ordinal]."""

    field = "text"

    def at(self, value: str, *, seed: int, epoch: int, ordinal: int) -> np.ndarray:
        draw = np.random.Generator(np.random.Philox(key=[seed * 1000 + epoch, ordinal])).integers(1 << 30)
        return np.array([int(value), draw])

    def evaluation(self, value: str) -> np.ndarray:
        return np.array([int(value), 0])


VIEWS = {"number": Number()}
