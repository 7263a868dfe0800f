"""What shards hold: counts, fields with shapes and sizes, ids, and a sheet of sample pictures.

python -m tools.inspect "data/train-{000..003}.tar" [--id json.person] [--sheet sheet.png]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from distpre.data.decode import decode
from distpre.data.ids import MISSING
from distpre.data.manifest import Manifest, open_manifest
from distpre.data.permutation import permute
from distpre.data.reader import Reader
from distpre.data.shards import expand
from distpre.errors import program

PICTURES = ("png", "jpg", "jpeg", "webp")
SAMPLED = 64  # samples that are decoded for shapes
SIDE, MARGIN, LINE = 128, 6, 12  # of the sheet, in pixels
BARS = 10


@program
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.inspect", description=__doc__.split("\n")[0])
    parser.add_argument("shards", nargs="+", help="paths, URLs, brace lists, `::` lists")
    parser.add_argument("--id", action="append", default=[], help="an extension, or json.KEY")
    parser.add_argument("--sheet", type=Path, help="write pictures of a few samples into this PNG")
    arguments = parser.parse_args(argv)
    names = expand(arguments.shards)
    manifest = open_manifest(names, set(arguments.id), note=print)
    reader = Reader(names, [entry.header.stamp for entry in manifest.entries])
    show(manifest, reader, arguments.id)
    if arguments.sheet:
        shown = sheet(manifest, reader, arguments.sheet)
        print(f"{shown} pictures in {arguments.sheet}" if shown else "no pictures, no sheet")
    return 0


def show(manifest: Manifest, reader: Reader, ids: list[str]) -> None:
    console = Console()
    counts = manifest.counts
    print(f"{len(manifest)} samples in {len(counts)} shards of {counts.min()} to {counts.max()}")
    print(f"digest {manifest.digest}")
    fields = Table("field", "samples", "bytes: median", "largest", "what it is", "sizes", title="fields")
    for extension, sizes in sorted(_sizes(manifest).items()):
        kinds = ", ".join(f"{kind} ({n})" for kind, n in _kinds(manifest, reader, extension).most_common(3))
        row = (extension, len(sizes), int(np.median(sizes)), sizes.max(), kinds, bars(sizes))
        fields.add_row(*map(str, row))
    console.print(fields)
    for path in ids:
        column = manifest.column(f"id:{path}", np.arange(len(manifest)))
        values, numbers = np.unique(column[column != MISSING], return_counts=True)
        spread = f"{numbers.min()} to {numbers.max()} samples each" if len(values) else ""
        print(f"id {path}: {len(values)} values, {spread}; {int((column == MISSING).sum())} samples without it")


def _sizes(manifest: Manifest) -> dict[str, np.ndarray]:
    """{extension: bytes of every member}"""
    found: dict[str, list[np.ndarray]] = {}
    for number in range(len(manifest.entries)):
        index = manifest.shard(number)
        for i, extension in enumerate(index.extensions):
            mine = index.column("member_extension") == i
            found.setdefault(extension, []).append(index.column("member_size")[mine])
    return {extension: np.concatenate(parts) for extension, parts in found.items()}


def bars(sizes: np.ndarray) -> str:
    """A histogram in one line, from the smallest size to the largest."""
    heights = np.histogram(sizes, BARS)[0]
    return "".join(" ▁▂▃▄▅▆▇█"[int(np.ceil(8 * h / heights.max()))] for h in heights)


def _kinds(manifest: Manifest, reader: Reader, extension: str) -> Counter[str]:
    return Counter(_kind(value) for _, value in _some(manifest, reader, extension, SAMPLED))


def _kind(value: Any) -> str:
    if isinstance(value, Exception):
        return f"unreadable: {type(value).__name__}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(value)) + "}"
    return type(value).__name__


def _some(manifest: Manifest, reader: Reader, extension: str, most: int) -> Iterator[tuple[int, Any]]:
    """(ordinal, decoded member or the exception) of samples drawn from all over, the same at each call."""
    given = 0
    for ordinal in permute(np.arange(min(len(manifest), 8 * most)), len(manifest), 0).tolist():
        shards, rows = manifest.locate(np.array([ordinal]))
        place = manifest.shard(int(shards[0])).members(int(rows[0])).get(extension)
        if place is None:
            continue
        try:
            yield ordinal, decode(extension, reader.read(int(shards[0]), *place))
        except Exception as e:
            yield ordinal, e
        given += 1
        if given == most:
            return


def sheet(manifest: Manifest, reader: Reader, path: Path, columns: int = 8, rows: int = 4) -> int:
    """Writes a PNG of pictures, field by field, with captions (.txt) or keys below; returns how many."""
    there = [e for e in sorted(_sizes(manifest)) if e.rpartition(".")[2] in PICTURES][: columns * rows]
    if not there:
        return 0
    cell = SIDE + MARGIN
    out = Image.new("RGB", (columns * cell + MARGIN, rows * (cell + LINE) + MARGIN), "white")
    draw = ImageDraw.Draw(out)
    shown = 0
    each = columns * rows // len(there)
    for ordinal, value in (found for field in there for found in _some(manifest, reader, field, each)):
        if isinstance(value, Exception):
            continue
        x, y = MARGIN + shown % columns * cell, MARGIN + shown // columns * (cell + LINE)
        picture = Image.fromarray(value if value.dtype == np.uint8 else (value >> 8).astype(np.uint8)).convert("RGB")
        picture = picture.resize(_fitted(picture.size), Image.Resampling.LANCZOS)
        out.paste(picture, (x, y))
        draw.text((x, y + SIDE), _caption(manifest, reader, ordinal)[: SIDE // 6], fill="black")
        shown += 1
    out.save(path, "png")
    return shown


def _fitted(size: tuple[int, int]) -> tuple[int, int]:
    scale = SIDE / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _caption(manifest: Manifest, reader: Reader, ordinal: int) -> str:
    shards, rows = manifest.locate(np.array([ordinal]))
    index = manifest.shard(int(shards[0]))
    place = index.members(int(rows[0])).get("txt")
    text = reader.read(int(shards[0]), *place).decode("utf-8", "replace") if place else index.key(int(rows[0]))
    return text.encode("latin-1", "replace").decode("latin-1").replace("\n", " ")  # what the built-in font can draw


if __name__ == "__main__":
    sys.exit(main())
