"""Re-read every byte of shards: sums, counts, keys, every member decoded; and whether two splits share an id.

    python -m tools.verify "data/train-{000..127}.tar" [--against data/test-000.tar --id json.person]

Exit status 1 with a list of faults, 0 without any.
"""

from __future__ import annotations

import argparse
import mmap
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from distpre.data.decode import decode
from distpre.data.ids import MISSING
from distpre.data.index import SUFFIX, Header, ShardIndex, scan
from distpre.data.record import FLAWS
from distpre.data.shards import expand, is_local, local_path, stamps
from distpre.errors import DataError, program


@dataclass
class Checked:
    """One shard: its samples, what is wrong, and its ids."""

    shard: str
    samples: int = 0
    faults: list[str] = field(default_factory=list)
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


@program
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.verify", description=__doc__.split("\n")[0])
    parser.add_argument("shards", nargs="+", help="local paths, brace lists, `::` lists")
    parser.add_argument("--against", nargs="+", default=[], help="shards of another split")
    parser.add_argument("--id", help="the id that no two splits may share: an extension, or json.KEY")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    arguments = parser.parse_args(argv)
    if bool(arguments.against) != bool(arguments.id):
        parser.error("--against and --id go together")
    return report(*verify(arguments.shards, arguments.against, arguments.id, arguments.workers))


def verify(
    shards: list[str], against: list[str], id: str | None = None, workers: int | None = None
) -> tuple[list[Checked], list[str]]:
    """Every shard's findings, and the faults between splits."""
    here, there = expand(shards), expand(against) if against else []
    stamps(here + there)
    told, done = time.monotonic(), []
    with ProcessPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        for checked in pool.map(partial(check, id=id), here + there):
            done.append(checked)
            if time.monotonic() - told > 5:
                told = time.monotonic()
                print(f"{len(done)} of {len(here) + len(there)} shards", flush=True)
    return done, _leaks(done[: len(here)], done[len(here) :], id)


def report(done: list[Checked], leaks: list[str]) -> int:
    faults = [f"{c.shard}: {fault}" for c in done for fault in c.faults] + leaks
    for fault in faults:
        print(fault)
    samples = sum(c.samples for c in done)
    print(f"{len(faults) or 'no'} faults in {samples} samples of {len(done)} shards")
    return int(bool(faults))


def check(shard: str, id: str | None = None) -> Checked:
    """Everything that one shard can say of itself."""
    if not is_local(shard):
        raise DataError(f"{shard} is remote.", "Verify it on a machine that has it as a file.")
    path = Path(local_path(shard))
    (stamp,) = stamps([shard])
    try:
        with open(path, "rb") as f:
            data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) if stamp.size else b""
            header, parts = scan(data, shard, stamp, {id} if id else set())
    except DataError as e:
        return Checked(shard, faults=[e.what])
    index = ShardIndex(header, np.frombuffer(b"".join(parts), np.uint8))
    found = Checked(shard, len(index), list(header.problems) + _sums(path, header))
    for row in range(len(index)):
        found.faults += _row(data, index, row)
    if id:
        column = index.column(f"id:{id}")
        found.ids = np.unique(column[column != MISSING])
        found.faults += [f"{int((column == MISSING).sum())} samples without {id}"] if (column == MISSING).any() else []
    return found


def _row(data: mmap.mmap | bytes, index: ShardIndex, row: int) -> list[str]:
    key, faults = index.key(row), []
    flaw = int(index.column("flaw")[row])
    if flaw:
        return [f"key {key} (row {row}): {FLAWS[flaw]}"]
    members = index.members(row)
    lacking = [e for e in index.extensions if e not in members]
    if lacking:
        faults.append(f"key {key} (row {row}): no {', '.join('.' + e for e in lacking)}")
    for extension, (offset, size) in members.items():
        content = data[offset : offset + size]
        try:
            if len(content) < size:
                raise ValueError(f"cut off: {len(content)} bytes of {size}")
            decode(extension, content)
        except Exception as e:
            faults.append(f"key {key} (row {row}): .{extension}: {type(e).__name__}: {e}")
    return faults


def _sums(path: Path, header: Header) -> list[str]:
    """Against the index beside it and against SHA256SUMS, where they are."""
    faults = []
    beside = Path(f"{path}{SUFFIX}")
    if beside.exists():
        with open(beside, "rb") as f:
            known = Header.from_json(f.readline())
        if known is None:
            faults.append(f"{beside.name} is damaged; delete it")
        elif known.sha256 != header.sha256:
            faults.append(f"sha256 {header.sha256[:16]}..., its index was made of {known.sha256[:16]}...")
        elif known.count != header.count:
            faults.append(f"{header.count} samples, its index says {known.count}")
    sums = path.with_name("SHA256SUMS")
    listed = dict(line.split(maxsplit=1)[::-1] for line in sums.read_text().splitlines()) if sums.exists() else {}
    if listed.get(path.name, header.sha256) != header.sha256:
        faults.append(f"sha256 {header.sha256[:16]}..., SHA256SUMS says {listed[path.name][:16]}...")
    return faults


def _leaks(here: list[Checked], there: list[Checked], id: str | None) -> list[str]:
    if not there:
        return []
    ours, theirs = (np.unique(np.concatenate([c.ids for c in side])) for side in (here, there))
    shared = np.intersect1d(ours, theirs)
    if not len(shared):
        return []
    shown = ", ".join(map(str, shared[:5].tolist())) + (" ..." if len(shared) > 5 else "")
    return [f"split leak: {len(shared)} values of {id} stand in both splits: {shown}"]


if __name__ == "__main__":
    sys.exit(main())
