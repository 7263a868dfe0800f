"""Samples -> WebDataset tars: sized, split by id, whole or absent, the same bytes from the same input."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from distpre.data.manifest import open_manifest
from distpre.errors import DataError
from tools.shard.spread import Workers, spread

Members = dict[str, bytes]
Row = TypeVar("Row")
PARTICIPANT = frozenset({"json.participant"})


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
    workers: Workers = 1,
    ids: Iterable[str] = (),
    together: Callable[[Any], Any] | None = None,
    of: Any = (),
) -> list[Path]:
    """rows[i] becomes the sample 0000000i of OUT/split-000.tar, split-001.tar ... of `shard_samples` samples each.

    members(row) -> {extension: bytes}, called by `workers` (spread.py). A shard is written under another name and
    renamed when whole, and gets an index beside it, with the id columns `ids` (distpre/data/ids.py), and a line in
    OUT/SHA256SUMS; one that is there already is left alone, so the same call goes on after a kill. Neighbouring rows
    of one together(row) are never in two shards: a shard then ends before a group that would not fit. of: what members
    are made of beside the rows. Raises DataError where OUT holds shards of other rows or contents, or of another size:
    mixed, held-out samples could stand in training shards.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, split, rows, shard_samples, of)
    cuts = _cuts(rows, shard_samples, together)
    jobs = [
        (folder / f"{split}-{i:03d}.tar", first, rows[first:end], members)
        for i, (first, end) in enumerate(itertools.pairwise(cuts))
    ]
    done = list(spread(_write_shard, jobs, workers, f"writing {split}"))
    _sum_up(folder, set(ids))
    return done


def _cuts(rows: list[Any], shard_samples: int, together: Callable[[Any], Any] | None) -> list[int]:
    """Where shards begin, and the end."""
    if together is None:
        return [*range(0, len(rows), shard_samples), len(rows)]
    cuts, end = [0], 0
    for _, group in itertools.groupby(rows, together):
        size = len(list(group))
        if end > cuts[-1] and end + size - cuts[-1] > shard_samples:
            cuts.append(end)
        end += size
    return [*cuts, end]


def _claim(folder: Path, split: str, rows: list[Any], shard_samples: int, of: Any) -> None:
    """Notes what the split's shards are made of, before the first of them."""
    digest = hashlib.blake2b(str(shard_samples).encode(), digest_size=16)
    _feed(digest, rows)
    if of != ():
        _feed(digest, of)
    made_of = digest.hexdigest()
    claim = folder / f".{split}.rows"
    there = claim.exists() or any(folder.glob(f"{split}-*.tar"))
    if there and (not claim.exists() or claim.read_text() != made_of):
        raise DataError(
            f"{folder}: holds {split} shards of other rows, contents, split or size.", "Give an empty folder."
        )
    claim.write_text(made_of)


def _feed(digest: Any, value: Any) -> None:
    """All of it: the repr of a large array leaves most of it out."""
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, list | tuple):
        digest.update(f"({len(value)}".encode())
        for each in value:
            _feed(digest, each)
    else:
        digest.update(repr(value).encode() + b",")


def divided(rows: Iterable[Row], identity: Callable[[Row], str], share: float) -> dict[str, list[Row]]:
    """{"train": rows, "test": rows}; all rows of an identity are in one of them."""
    parts: dict[str, list[Row]] = {"train": [], "test": []}
    for row in rows:
        parts["test" if held_out(identity(row), share) else "train"].append(row)
    return parts


def shared_facts(every: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is the same in all, and what is each one's own."""
    same = {k: v for k, v in every[0].items() if all(k in facts and facts[k] == v for facts in every)}
    return same, [{k: v for k, v in facts.items() if k not in same} for facts in every]


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


def _sum_up(folder: Path, ids: set[str]) -> None:
    """The index of every tar in the folder, and SHA256SUMS of them, in the form that `sha256sum --check` reads."""
    tars = [str(path) for path in sorted(folder.glob("*.tar"))]
    if not tars:
        return
    entries = open_manifest(tars, ids, note=lambda line: None).entries
    lines = [f"{entry.header.sha256}  {Path(entry.shard).name}\n" for entry in entries]
    partial = folder / ".SHA256SUMS.partial"
    partial.write_text("".join(lines))
    os.replace(partial, folder / "SHA256SUMS")


def counted(rows: Iterator[Any], source: str) -> list[Any]:
    """The rows as a list. Raises DataError if there are none."""
    found = list(rows)
    if not found:
        link = next((p for p in sorted(Path(source).glob("**/*")) if p.is_symlink() and p.is_dir()), None)
        remedy = f"{link} is a link to a folder, which is not followed: name the folder itself." if link else None
        raise DataError(f"{source}: holds no samples.", remedy or "Name a folder, or a table with at least one row.")
    return found
