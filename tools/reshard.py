"""The same samples in shards of another size, or split anew by an id.

    python -m tools.reshard "old/*-{000..127}.tar" --out new --samples 10000
    python -m tools.reshard old/all-000.tar --out new --samples 1000 --held-out 0.2 --id json.person

Samples keep their members byte for byte and get running numbers as keys. A killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

from distpre.data.ids import MISSING
from distpre.data.manifest import Manifest, open_manifest
from distpre.data.reader import Reader
from distpre.data.shards import expand
from distpre.errors import DataError, program
from tools.shard import spread
from tools.shard.writer import held_out, write_shards

Row = tuple[str, int]  # digest of the source, ordinal: the digest tells the writer one source from another


@program
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.reshard", description=__doc__.split("\n")[0])
    parser.add_argument("shards", nargs="+", help="paths, URLs, brace lists, `::` lists")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, required=True, help="of a shard")
    parser.add_argument("--name", default="train", help="of the new shards: NAME-000.tar (default: train)")
    parser.add_argument("--held-out", type=float, help="share of ids that goes to test-000.tar ...")
    parser.add_argument("--id", help="what a split keeps together: an extension, or json.KEY")
    spread.add_argument(parser)
    arguments = parser.parse_args(argv)
    if (arguments.held_out is None) != (arguments.id is None):
        parser.error("--held-out and --id go together")
    for split, count, shards in reshard(arguments):
        print(f"{split}: {count} samples in {shards} shards in {arguments.out}")
    return 0


def reshard(arguments: argparse.Namespace) -> list[tuple[str, int, int]]:
    """[(split, samples, shards)]"""
    names = expand(arguments.shards)
    ids = {arguments.id} if arguments.id else set()
    manifest = open_manifest(names, ids, note=print)
    members = partial(members_of, manifest, Reader(names, [entry.header.stamp for entry in manifest.entries]))
    out = []
    for split, ordinals in splits(manifest, arguments.name, arguments.id, arguments.held_out).items():
        rows: list[Row] = [(manifest.digest, ordinal) for ordinal in ordinals]
        shards = write_shards(
            arguments.out,
            split,
            rows,
            members,
            shard_samples=arguments.samples,
            workers=arguments.workers,
            ids=ids,
        )
        out.append((split, len(rows), len(shards)))
    return out


def splits(manifest: Manifest, name: str, id: str | None, share: float | None) -> dict[str, list[int]]:
    """{split: ordinals}; all samples of an id are in one split. Flawed samples are left out, and said so."""
    everything = np.arange(len(manifest))
    whole = manifest.column("flaw", everything) == 0
    if not whole.all():
        print(f"left out: {int((~whole).sum())} flawed samples, which `python -m tools.verify` names")
    if id is None:
        return {name: everything[whole].tolist()}
    column = manifest.column(f"id:{id}", everything)
    if (column[whole] == MISSING).any():
        without = int((column[whole] == MISSING).sum())
        raise DataError(f"{without} samples have no {id}.", "Split by an id that all have.")
    values, which = np.unique(column, return_inverse=True)
    test = np.array([held_out(str(value), share) for value in values.tolist()])[which]
    parts = {name: everything[whole & ~test].tolist(), "test": everything[whole & test].tolist()}
    return {split: ordinals for split, ordinals in parts.items() if ordinals}


def members_of(manifest: Manifest, reader: Reader, row: Row) -> dict[str, bytes]:
    shards, rows = manifest.locate(np.array([row[1]]))
    shard, inside = int(shards[0]), int(rows[0])
    index = manifest.shard(shard)
    try:
        return {e: reader.read(shard, *place) for e, place in index.members(inside).items()}
    except OSError as e:
        where = f"{manifest.entries[shard].shard} key {index.key(inside)}"
        raise DataError(f"{where}: {e}.", "Mend the shard, or leave it out.") from e


if __name__ == "__main__":
    sys.exit(main())
