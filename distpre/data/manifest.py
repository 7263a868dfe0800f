"""Every sample of a source: the indexes of its shards, one after another.

An index is built where it is missing or no longer fits its tar, and lies beside the tar as NAME.tar.index; where that
place cannot be written, or is remote, it lies in the user's cache folder. Ship remote shards with their indexes beside
them (`python -m tools.index`): one without is fetched whole, to be indexed. Columns stay in files and are mapped in
when a row is read.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from distpre.data import remote
from distpre.data.cache import Cache
from distpre.data.index import SUFFIX, Header, ShardIndex, scan, with_stamp
from distpre.data.proof import MODULUS, factor, total
from distpre.data.shards import Stamp, is_local, local_path, stamps

OPEN_INDEXES = 1024
HEADER_BYTES = 1 << 24
SMALL = 64 << 20  # bytes of tars that are not worth starting processes for


@dataclass(frozen=True)
class Entry:
    """A shard, its index's file, and the index's header."""

    shard: str
    index: Path
    header: Header


class Manifest:
    """entries in the source's shard order. ordinal = rows of the shards before + row in its shard."""

    def __init__(self, entries: list[Entry]):
        self.entries = entries
        self.counts = np.array([e.header.count for e in entries], np.int64)
        self.ends = self.counts.cumsum()
        self.digest = hashlib.blake2b("".join(e.header.sha256 for e in entries).encode(), digest_size=16).hexdigest()
        self.hash_total = sum(factor(s) * e.header.hash_total for s, e in enumerate(entries)) % MODULUS
        self._open: OrderedDict[int, ShardIndex] = OrderedDict()

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __reduce__(self) -> tuple:
        return Manifest, (self.entries,)

    def locate(self, ordinals: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """ordinals (m,) -> shard numbers (m,), rows in them (m,)."""
        shards = np.searchsorted(self.ends, ordinals, "right")
        return shards, ordinals - (self.ends - self.counts)[shards]

    def shard(self, number: int) -> ShardIndex:
        if number not in self._open:
            entry = self.entries[number]
            self._open[number] = ShardIndex(entry.header, np.memmap(entry.index, np.uint8, "r"))
            if len(self._open) > OPEN_INDEXES:
                self._open.popitem(last=False)
        return self._open[number]

    def column(self, name: str, ordinals: NDArray[np.int64]) -> NDArray:
        """A per-sample column's values, (m,)."""
        shards, rows = self.locate(ordinals)
        out = np.empty(len(ordinals), np.int64)
        for number in np.unique(shards):
            here = shards == number
            out[here] = self.shard(int(number)).column(name)[rows[here]]
        return out

    def hash_sum(self, ordinals: NDArray[np.int64]) -> int:
        """What these samples add to the proof's sum (proof.py)."""
        shards, rows = self.locate(ordinals)
        amount = 0
        for number in np.unique(shards):
            amount += factor(int(number)) * total(self.shard(int(number)).hashes()[rows[shards == number]])
        return amount % MODULUS


def open_manifest(
    shards: list[str],
    ids: set[str],
    *,
    note: Callable[[str], None],
    workers: int | None = None,
    cache: Cache | None = None,
) -> Manifest:
    """Finds or builds the index of every shard. ids: id paths that must be in it. Raises DataError.

    workers: processes that build, by default one a core; cache: where remote shards are kept once they are fetched.
    """
    present = stamps(shards)
    found = [existing(shard, stamp, ids) for shard, stamp in zip(shards, present, strict=True)]
    missing = [i for i, entry in enumerate(found) if entry is None]
    if missing:
        note(f"data: indexing {len(missing)} of {len(shards)} shards ({shards[missing[0]]} ...), at first use")
        tasks = [(shards[i], present[i], ids, cache) for i in missing]
        for i, entry in zip(missing, _built(tasks, note, workers), strict=True):
            found[i] = entry
    entries = [entry for entry in found if entry is not None]
    for entry in entries:
        for problem in entry.header.problems:
            note(f"data: {entry.shard} {problem}; {entry.header.count} samples found in it")
    return Manifest(entries)


def existing(shard: str, stamp: Stamp, ids: set[str]) -> Entry | None:
    """The shard's index, if there is one that fits."""
    for path in _places(shard):
        try:
            with open(path, "rb") as f:
                header = Header.from_json(f.readline(HEADER_BYTES))
        except OSError:
            continue
        if header is not None and header.fits(stamp, ids):
            return Entry(shard, path, header)
    return None


def build(shard: str, stamp: Stamp, ids: set[str], cache: Cache | None = None) -> Entry:
    """Indexes a shard; of several processes that want it, one does and the others wait for it."""
    shipped = None if is_local(shard) else _shipped(shard, stamp, ids)
    if shipped is not None:
        return shipped
    with _local_copy(shard, stamp, cache) as tar, open(tar, "rb") as file, _alone(file):
        entry = existing(shard, stamp, ids)
        if entry is not None:
            return entry
        header, parts = scan(_mapped(file), shard, stamp, ids)
        return Entry(shard, _write(shard, b"".join(parts)), header)


def _shipped(shard: str, stamp: Stamp, ids: set[str]) -> Entry | None:
    """The index that lies beside a remote tar, if it is of a tar of this size: a copy's time or etag is another."""
    try:
        content = remote.read(shard + SUFFIX)
    except (FileNotFoundError, PermissionError):
        return None
    restamped = with_stamp(content, stamp)
    if restamped is None or not restamped[0].fits(stamp, ids):
        return None
    return Entry(shard, _write(shard, restamped[1]), restamped[0])


def _built(tasks: list[tuple], note: Callable[[str], None], workers: int | None) -> Iterator[Entry]:
    processes = min(workers or len(os.sched_getaffinity(0)), len(tasks))
    if processes == 1 or (workers is None and sum(stamp.size for _, stamp, *_ in tasks) < SMALL):
        yield from (build(*task) for task in tasks)
        return
    told, done = time.monotonic(), 0
    with ProcessPoolExecutor(processes) as pool:
        for entry in pool.map(build, *zip(*tasks, strict=True)):
            yield entry
            done += 1
            if time.monotonic() - told > 5:
                told = time.monotonic()
                note(f"data: indexed {done} of {len(tasks)} shards")


def _places(shard: str) -> list[Path]:
    """Where a shard's index may lie, best first."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = os.path.abspath(local_path(shard)) if is_local(shard) else shard
    kept = home / "distpre" / (hashlib.blake2b(place.encode(), digest_size=16).hexdigest() + SUFFIX)
    return [Path(local_path(shard) + SUFFIX), kept] if is_local(shard) else [kept]


def _write(shard: str, content: bytes) -> Path:
    """Whole or not at all, at the first place that can be written."""
    error: OSError | None = None
    for path in _places(shard):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as f:
                f.write(content)
            os.chmod(f.name, 0o644)
            os.replace(f.name, path)
            return path
        except OSError as e:
            error = e
    raise error or OSError(f"no place for the index of {shard}")


@contextmanager
def _local_copy(shard: str, stamp: Stamp, cache: Cache | None) -> Iterator[str]:
    kept = local_path(shard) if is_local(shard) else cache.fetch(shard, stamp) if cache else None
    if kept is not None:
        yield str(kept)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "shard.tar")
        remote.download(shard, copy)
        yield str(copy)


def _mapped(file: BinaryIO) -> mmap.mmap | bytes:
    """The file's bytes; an empty file cannot be mapped."""
    empty = os.fstat(file.fileno()).st_size == 0
    return b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@contextmanager
def _alone(file: BinaryIO) -> Iterator[None]:
    """The tar itself is the lock, so that nothing is left behind; a file system without locks goes without."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        pass
    yield
