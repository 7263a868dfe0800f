"""Samples -> WebDataset tars: sized, split by id, whole or absent, the same bytes from the same input."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distpre.errors import DataError

Members = dict[str, bytes]


class Unusable(Exception):
    """A recording or a shape, or a part of it, that cannot be used; its text is the reason."""


@dataclass(frozen=True)
class Left:
    """A line of quarantine.jsonl. start: seconds into a recording, None for all of a file."""

    file: str
    reason: str
    start: float | None = None


def quarantined(folder: Path, left: list[Left]) -> None:
    """Writes OUT/quarantine.jsonl, empty where nothing was left out."""
    lines = [json.dumps(asdict(line), ensure_ascii=False) + "\n" for line in left]
    (folder / "quarantine.jsonl").write_text("".join(lines))


def write_shards(
    out: str | Path,
    split: str,
    rows: list[Any],
    members: Callable[[Any], Members],
    *,
    shard_samples: int,
    workers: int = 1,
    progress: Callable[[int], None] = lambda n: None,
) -> list[Path]:
    """rows[i] becomes the sample 0000000i of OUT/split-000.tar, split-001.tar ... of `shard_samples` samples each.

    members(row) -> {extension: bytes}, called in `workers` processes. A shard is written under another name and renamed
    when whole, with a line in OUT/SHA256SUMS; one that is there already is left alone, so the same call goes on after
    a kill. progress(n) is told the samples of each finished shard. Raises DataError where OUT holds shards of other
    rows or another size: mixed, held-out samples could stand in training shards.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, split, rows, shard_samples)
    parts = [rows[i : i + shard_samples] for i in range(0, len(rows), shard_samples)]
    jobs = [(folder / f"{split}-{i:03d}.tar", i * shard_samples, part, members) for i, part in enumerate(parts)]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            done = _told(pool.map(_write_shard, jobs), jobs, progress)
    else:
        done = _told(map(_write_shard, jobs), jobs, progress)
    _sum_up(folder)
    return done


def _claim(folder: Path, split: str, rows: list[Any], shard_samples: int) -> None:
    """Notes what the split's shards are made of, before the first of them."""
    made_of = hashlib.blake2b(repr((shard_samples, rows)).encode(), digest_size=16).hexdigest()
    claim = folder / f".{split}.rows"
    there = claim.exists() or any(folder.glob(f"{split}-*.tar"))
    if there and (not claim.exists() or claim.read_text() != made_of):
        raise DataError(f"{folder}: holds {split} shards of other rows, split or size.", "Give an empty folder.")
    claim.write_text(made_of)


def held_out(identity: str, share: float) -> bool:
    """Whether everything of an id (a person, a name) belongs to the test part: by hash, so the same for ever."""
    digest = hashlib.blake2b(identity.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share


def _write_shard(job: tuple[Path, int, list[Any], Callable[[Any], Members]]) -> Path:
    from webdataset import TarWriter

    path, first, rows, members = job
    if path.exists():
        return path
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as stream:
        with TarWriter(stream, encoder=False, mtime=0, user="", group="") as tar:
            for i, row in enumerate(rows):
                tar.write({"__key__": f"{first + i:08d}", **members(row)})
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)
    return path


def _told(paths: Iterable[Path], jobs: list, progress: Callable[[int], None]) -> list[Path]:
    done = []
    for path, job in zip(paths, jobs, strict=True):
        progress(len(job[2]))
        done.append(path)
    return done


def _sum_up(folder: Path) -> None:
    """SHA256SUMS of every tar in the folder, in the form that `sha256sum --check` reads."""
    lines = [f"{_sha256(path)}  {path.name}\n" for path in sorted(folder.glob("*.tar"))]
    partial = folder / ".SHA256SUMS.partial"
    partial.write_text("".join(lines))
    os.replace(partial, folder / "SHA256SUMS")


def _sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def counted(rows: Iterator[Any], source: str) -> list[Any]:
    """The rows as a list. Raises DataError if there are none."""
    found = list(rows)
    if not found:
        raise DataError(f"{source}: holds no samples.", "Name a folder, or a table with at least one row.")
    return found
