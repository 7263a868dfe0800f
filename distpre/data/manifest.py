"""The index of a shard: where each member of each sample lies, written once beside the tar.

A tar stays a plain WebDataset tar. Consecutive members whose paths agree up to the first dot of the file's name are
one sample; the rest of the name, in lower case, is the extension (webdataset's own rule).
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distpre.errors import DataError

SUFFIX = ".index.npz"
EDGE = 1 << 16  # bytes at each end of a tar that tell whether it changed


@dataclass(frozen=True)
class ShardIndex:
    """keys (n,) str; extensions (e,) str; offset and size (n, e) int64, -1 where a sample lacks the extension."""

    keys: np.ndarray
    extensions: tuple[str, ...]
    offset: np.ndarray
    size: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.keys)


def index_of(shard: Path) -> tuple[ShardIndex, bool]:
    """The shard's index, and whether it had to be built. It is written beside the shard where that is possible.

    Raises DataError for a file that is no tar, or one that was cut off.
    """
    fingerprint, path = fingerprint_of(shard), shard.with_name(shard.name + SUFFIX)
    if (found := _read(path)) is not None and found.fingerprint == fingerprint:
        return found, False
    index = scan(shard, fingerprint)
    _write(path, index)
    return index, True


def fingerprint_of(shard: Path) -> str:
    """Size, and a hash of both ends: cheap, and different for a tar that was written again or cut off."""
    size = shard.stat().st_size
    with open(shard, "rb") as f:
        head = f.read(EDGE)
        f.seek(max(0, size - EDGE))
        tail = f.read(EDGE)
    return f"{size}-{hashlib.blake2b(head + tail, digest_size=16).hexdigest()}"


def scan(shard: Path, fingerprint: str) -> ShardIndex:
    """One pass over the tar's headers."""
    samples: list[tuple[str, dict[str, tuple[int, int]]]] = []
    length = shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                key, extension = split(member.name)
                if key is None:
                    continue
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError("unexpected end of data")
                if not samples or samples[-1][0] != key:
                    samples.append((key, {}))
                if extension in samples[-1][1]:
                    raise DataError(
                        f"{shard}: the sample {key!r} has two members {extension!r}.", "Write the shard again."
                    )
                samples[-1][1][extension] = (member.offset_data, member.size)
    except tarfile.TarError as e:
        raise DataError(
            f"{shard}: not a whole tar ({e}) after {len(samples)} samples and {length:,} bytes.",
            "Write or copy the shard again.",
        ) from e
    if not samples:
        raise DataError(f"{shard}: holds no samples.", "Leave it out of `shards`, or write it again.")
    extensions = tuple(sorted({e for _, members in samples for e in members}))
    place = np.full((len(samples), len(extensions), 2), -1, dtype=np.int64)
    for row, (_, members) in zip(place, samples, strict=True):
        for i, extension in enumerate(extensions):
            if extension in members:
                row[i] = members[extension]
    keys = np.array([key for key, _ in samples])
    return ShardIndex(keys, extensions, place[..., 0], place[..., 1], fingerprint)


def split(name: str) -> tuple[str | None, str]:
    """ "a/b.c.seg.png" -> ("a/b", "c.seg.png"); (None, "") for names without a dot, and for hidden ones."""
    folder, slash, file = name.rpartition("/")
    stem, dot, extension = file.partition(".")
    if not dot or not stem:
        return None, ""
    return f"{folder}{slash}{stem}", extension.lower()


def _read(path: Path) -> ShardIndex | None:
    try:
        with np.load(path, allow_pickle=False) as f:
            extensions = tuple(f["extensions"].tolist())
            return ShardIndex(f["keys"], extensions, f["offset"], f["size"], str(f["fingerprint"]))
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _write(path: Path, index: ShardIndex) -> None:
    """Whole or not at all; silently not where the folder cannot be written (the index is then made at each start)."""
    try:
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError:
        return
    with os.fdopen(handle, "wb") as f:
        np.savez_compressed(
            f,
            keys=index.keys,
            extensions=np.array(index.extensions),
            offset=index.offset,
            size=index.size,
            fingerprint=np.array(index.fingerprint),
        )
    os.chmod(partial, 0o644)
    os.replace(partial, path)
