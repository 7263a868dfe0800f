"""Indexes shards ahead of a run, and says what is in them and what is wrong with them.

    python -m tools.index 'data/train-{000..099}.tar' [--id json.participant] [--workers 8]

Training does the same at first use; this does it where the shards are written, once, for every run that follows.
"""

from __future__ import annotations

import argparse
import sys

from distpre.data.manifest import Manifest, open_manifest
from distpre.data.shards import expand
from distpre.errors import DataError


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: whole; 1: a shard is damaged; 2: a shard is missing or no tar."""
    parser = argparse.ArgumentParser("python -m tools.index", description="Indexes shards and lists their contents.")
    parser.add_argument("shards", nargs="+", help="paths, brace lists, `::` lists or fsspec URLs")
    parser.add_argument("--id", action="append", default=[], metavar="PATH", help="an id to index: EXT or json.KEY")
    parser.add_argument("--workers", type=int, help="processes; default: one a core where the shards are large")
    asked = parser.parse_args(arguments)
    try:
        manifest = open_manifest(expand(asked.shards), set(asked.id), note=_note, workers=asked.workers)
    except DataError as e:
        print(e, file=sys.stderr)
        return e.exit_status
    _print(manifest)
    return int(any(entry.header.problems for entry in manifest.entries))


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _print(manifest: Manifest) -> None:
    for entry in manifest.entries:
        extensions = " ".join(f"{e}:{n}" for e, n in entry.header.extensions.items())
        print(f"{entry.shard}  {entry.header.count} samples  {extensions}  index {entry.index}")
    print(f"{len(manifest)} samples in {len(manifest.entries)} shards, digest {manifest.digest}")


if __name__ == "__main__":
    sys.exit(main())
