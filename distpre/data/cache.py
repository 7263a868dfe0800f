"""A folder on the node that holds whole remote shards, shared by the node's ranks and their workers.

A shard is fetched once: whoever comes second waits on a lock file and then finds it there. The folder stays below its
bound by dropping what was used longest ago; a reader that still has a dropped file open reads on undisturbed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distpre.data.remote import download
from distpre.data.shards import Stamp

SHARD = ".tar"


class Cache:
    """limit_bytes: None for as much as the disk holds."""

    def __init__(self, folder: str | Path, limit_bytes: int | None = None):
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        self.folder.mkdir(parents=True, exist_ok=True)

    def fetch(self, url: str, stamp: Stamp) -> Path | None:
        """The shard as a local file; None where it cannot be kept (larger than the bound, or the disk is full)."""
        kept = self.folder / (hashlib.blake2b(f"{url}{stamp}".encode(), digest_size=16).hexdigest() + SHARD)
        if self._touched(kept):
            return kept
        if self.limit_bytes is not None and stamp.size > self.limit_bytes:
            return None
        with locked(kept.with_suffix(".lock")):
            if self._touched(kept):
                return kept
            self._make_room(stamp.size)
            return self._downloaded(url, stamp, kept)

    def _downloaded(self, url: str, stamp: Stamp, kept: Path) -> Path | None:
        part = kept.with_suffix(".part")
        try:
            download(url, part)
            if part.stat().st_size != stamp.size:
                raise OSError(errno.EIO, f"{url} gave {part.stat().st_size} bytes of {stamp.size}")
            os.replace(part, kept)
        except OSError as e:
            part.unlink(missing_ok=True)
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                return None
            raise
        return kept

    def _touched(self, kept: Path) -> bool:
        try:
            os.utime(kept)
        except FileNotFoundError:
            return False
        return True

    def _make_room(self, size: int) -> None:
        if self.limit_bytes is None:
            return
        found = []
        for path in self.folder.glob("*" + SHARD):
            try:
                found.append((path.stat().st_mtime, path.stat().st_size, path))
            except FileNotFoundError:  # another process dropped it
                continue
        used = sum(entry[1] for entry in found)
        for _, freed, path in sorted(found):
            if used + size <= self.limit_bytes:
                return
            path.unlink(missing_ok=True)
            used -= freed


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock dies with its holder."""
    with open(path, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
