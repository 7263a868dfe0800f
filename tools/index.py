"""Index shards: one pass over each tar, and a small file beside it that says where every sample lies.

    python -m tools.index "data/train-{000..127}.tar" [--id json.person] [--workers 8]

Training does the same at first use; this does it ahead, in as many processes as there are cores.
"""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console
from rich.table import Table

from distpre.data.manifest import Manifest, open_manifest
from distpre.data.shards import expand
from distpre.errors import program


@program
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.index", description=__doc__.split("\n")[0])
    parser.add_argument("shards", nargs="+", help="paths, URLs, brace lists, `::` lists")
    parser.add_argument("--id", action="append", default=[], help="an id column: an extension, or json.KEY")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    manifest = open_manifest(expand(arguments.shards), set(arguments.id), note=print, workers=arguments.workers)
    show(manifest, time.monotonic() - began)
    return 0


def show(manifest: Manifest, seconds: float) -> None:
    tars = sum(entry.header.stamp.size for entry in manifest.entries)
    indexes = sum(entry.index.stat().st_size for entry in manifest.entries)
    extensions: dict[str, int] = {}
    for entry in manifest.entries:
        for extension, count in entry.header.extensions.items():
            extensions[extension] = extensions.get(extension, 0) + count
    table = Table("shards", "samples", "members", "tars", "indexes", "digest")
    members = ", ".join(f"{e} {n}" for e, n in sorted(extensions.items()))
    share = f"{indexes / 1e6:.2f} MB ({100 * indexes / tars:.2f} %)"
    table.add_row(
        str(len(manifest.entries)), str(len(manifest)), members, f"{tars / 1e6:.1f} MB", share, manifest.digest
    )
    Console().print(table)
    print(f"ready in {seconds:.2f} s")


if __name__ == "__main__":
    sys.exit(main())
