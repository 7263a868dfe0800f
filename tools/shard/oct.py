"""OCT scans of eyes -> shards of {oct.npy, json}, and of the pictures beside them.

SOURCE is a folder of multi-frame DICOM files, of TIFFs (a page a B-scan) or of pictures (PNG, JPEG) of one B-scan each;
with --stack the pictures of a folder are the B-scans of one scan, in the order of the numbers in their names. --ids is
a regular expression on a file's path below SOURCE, whose named groups (participant, and any of visit, eye, diagnosis
...) go into json; files that it does not match are passed over. --header takes ids from DICOM headers. oct.npy is uint8
(frames, height, width) as it was taken: nothing is turned or resized, and 16 bits become 8. json holds the spacing of
the three axes in mm where the header tells it. --beside finds the en-face picture of the same eye by replacing a part
of the path (.dcm by _ir.png) and writes it as NAME.png; where there is none, the sample has none. OUT holds
dataset.json and quarantine.jsonl, a line with the reason for every scan that was left out.
"""

from __future__ import annotations

import argparse
import io
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from tools.shard import dicom, people, spread
from tools.shard.image_text import PICTURES
from tools.shard.spread import Workers
from tools.shard.writer import Members, Unusable, counted

PAGES = (".tif", ".tiff")


@dataclass(frozen=True)
class Making:
    """least: B-scans of a scan. stack: pictures of a folder are one scan. beside: (name of the picture, part of the
    path, what to put in its place) of each.
    """

    least: int = 1
    stack: bool = False
    beside: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Scan:
    files: tuple[Path, ...]
    making: Making
    facts: dict[str, Any] = field(default_factory=dict)


def made(scan: Scan) -> tuple[NDArray[np.uint8], list[float] | None]:
    """(frames, height, width), and their spacing in mm. Raises Unusable, and what readers raise of a damaged file."""
    spacing = None
    if dicom.is_dicom(scan.files[0]):
        x, spacing = dicom.frames(scan.files[0])
    else:
        pages = [page for file in scan.files for page in _pages(file)]
        if len(shapes := {page.shape for page in pages}) > 1:
            raise Unusable(f"B-scans of {len(shapes)} sizes")
        x = np.stack(pages)
    if len(x) < scan.making.least:
        raise Unusable(f"{len(x)} B-scans, fewer than {scan.making.least}")
    flat = np.flatnonzero(np.ptp(x.reshape(len(x), -1), 1) == 0)
    if len(flat):
        raise Unusable(f"{len(flat)} of {len(x)} B-scans hold one value, the first of them number {flat[0]}")
    for _, beside in _beside(scan):
        with Image.open(beside) as picture:
            picture.load()
    return x, spacing


def _pages(file: Path) -> list[NDArray[np.uint8]]:
    with Image.open(file) as opened:
        return [_grey(page) for page in ImageSequence.Iterator(opened)]


def _grey(page: Image.Image) -> NDArray[np.uint8]:
    if page.mode.startswith("I;16"):
        return np.round(np.asarray(page, np.float32) / 257).astype(np.uint8)
    if page.mode not in ("L", "P", "1", "LA", "RGB", "RGBA"):
        raise Unusable(f"pixels of the mode {page.mode}, neither 8 nor 16 whole bits")
    return np.asarray(page.convert("L"))


def _beside(scan: Scan) -> list[tuple[str, Path]]:
    """Those that are there; of a stack beside its folder."""
    name = scan.files[0].parent if scan.making.stack else scan.files[0]
    found = [(kind, Path(str(name).replace(part, instead))) for kind, part, instead in scan.making.beside]
    return [(kind, path) for kind, path in found if path != name and path.is_file()]


def members(scan: Scan) -> Members:
    x, spacing = made(scan)
    content = io.BytesIO()
    np.save(content, x)
    facts = scan.facts if spacing is None else {**scan.facts, "spacing": spacing}
    pictures = {f"{kind}.png": _png(path) for kind, path in _beside(scan)}
    return {"oct.npy": content.getvalue(), **pictures, "json": json.dumps(facts, ensure_ascii=False).encode()}


def _png(path: Path) -> bytes:
    with Image.open(path) as picture:
        if picture.format == "PNG":
            return path.read_bytes()
        out = io.BytesIO()
        picture.save(out, "png")
        return out.getvalue()


def write(
    source: str | Path,
    out: str | Path,
    ids: str,
    making: Making,
    *,
    header: dict[str, str] | None = None,
    share: float = 0.0,
    facts: people.Facts | None = None,
    shard_samples: int = 100,
    workers: Workers = 1,
) -> str:
    """Writes train-*.tar and test-*.tar; returns a summary line. Raises DataError where nothing can be used."""
    source, header = Path(source), header or {}
    files = sorted(people.matched(source, ids, _wanted, header), key=lambda its: _numbered(its[0]))
    scans = people.together(files, lambda file: making.stack and file.suffix.lower() in PICTURES)
    every, left = people.told(counted(iter(scans), f"{source} (files that --ids matches)"), source, header, facts)
    rows = [Scan(scan.files, making, known) for scan, known in every]
    options = {"ids": ids, "header": header, **asdict(making)}
    how = {"share": share, "shard_samples": shard_samples, "workers": workers}
    return people.write(rows, made, members, out, options, what="OCT scans", left=left, **how)


def _wanted(file: Path) -> bool:
    return file.suffix.lower() in (*PAGES, *PICTURES) or dicom.is_dicom(file)


def _numbered(file: Path) -> list[Any]:
    """b2 before b10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(file))]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="the folder of scans")
    parser.add_argument("--out", required=True, help="folder of the shards")
    people.add_arguments(parser, header=True)
    parser.add_argument("--least", type=int, default=1, help="B-scans of a scan (default 1)")
    parser.add_argument("--stack", action="store_true", help="the pictures of a folder are one scan")
    parser.add_argument(
        "--beside", nargs=3, action="append", default=[], metavar=("NAME", "PART", "INSTEAD"), help="ir .dcm _ir.png"
    )
    parser.add_argument("--shard-samples", type=int, default=100, help="scans of a shard (default 100)")
    spread.add_argument(parser)


def run(a: argparse.Namespace) -> str:
    return write(
        a.source,
        a.out,
        a.ids,
        Making(a.least, a.stack, tuple(map(tuple, a.beside))),
        header=dict(a.header),
        share=a.held_out,
        facts=people.facts(a.facts, a.facts_id),
        shard_samples=a.shard_samples,
        workers=a.workers,
    )
