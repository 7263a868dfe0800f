"""Pictures and captions -> shards of {picture, txt, json}. The picture's bytes are kept as they are.

SOURCE is a folder of pictures with a .txt of the same name beside each; or a table (CSV, TSV, JSONL, parquet) with one
row a picture, its path (relative to the table) in the column --image, its caption in --caption. All other columns go
into json, from where a recipe takes ids. --split-by names the column whose values are never in both parts.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distpre.errors import DataError
from tools.shard import spread
from tools.shard.recordings import library
from tools.shard.spread import Workers
from tools.shard.writer import Members, counted, divided, write_shards

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Pair:
    """A picture file, its caption, and what else is known of it."""

    image: Path
    caption: str
    facts: dict[str, Any] = field(default_factory=dict)


def write(
    pairs: list[Pair],
    out: str | Path,
    *,
    split_by: str | None = None,
    share: float = 0.0,
    shard_samples: int = 1000,
    workers: Workers = 1,
    skip_missing: bool = False,
    wrong: float = 0.0,
    concepts: str | None = None,
) -> str:
    """Writes train-*.tar and, for share > 0, test-*.tar of the held-out share; returns a summary line.

    wrong: share of the training pairs that are given the caption of another of them (`shuffled`). concepts: the fact
    that lists what is in the picture; the member concepts.txt is then that in front of the caption. split_by: the fact
    whose values are never in both parts. Raises DataError for pictures that are not there (unless skip_missing) and
    pairs without those facts, before anything is written.
    """
    for column, to in ((split_by, "split by"), (concepts, "put in front of captions")):
        if column and (without := [pair for pair in pairs if column not in pair.facts]):
            raise DataError(
                f"{without[0].image}: no column {column!r} to {to}.",
                f"There is {', '.join(without[0].facts) or 'none'}.",
            )
    missing = [pair.image for pair in pairs if not pair.image.is_file()]
    if missing and not skip_missing:
        listed = ", ".join(map(str, missing[:5])) + (" ..." if len(missing) > 5 else "")
        raise DataError(f"{len(missing)} pictures are missing: {listed}.", "Mend the paths, or give --skip-missing.")
    there = [pair for pair in pairs if pair.image.is_file()]
    parts = divided(there, lambda pair: str(pair.facts[split_by] if split_by else pair.image.name), share)
    if wrong:
        parts["train"] = shuffled(parts["train"], wrong)
    ids = {f"json.{split_by}"} if split_by else set()
    asked = {"shard_samples": shard_samples, "workers": workers, "ids": ids, "of": (concepts,) if concepts else ()}
    for split, chosen in parts.items():
        if chosen:
            write_shards(out, split, chosen, partial(members, concepts=concepts), **asked)
    left = f"; {len(missing)} missing pictures left out" if missing else ""
    return f"wrote {len(parts['train'])} pairs for training and {len(parts['test'])} held out, as tars in {out}{left}"


def shuffled(pairs: list[Pair], share: float) -> list[Pair]:
    """With `share` of them, drawn at random, in a ring where each has the next one's caption, to see what noise does.

    Every pair then has the fact "wrong": 1 where it has another caption than its own.
    """
    ring = np.random.default_rng(0).permutation(len(pairs))[: round(share * len(pairs))]
    said = dict(zip(ring.tolist(), np.roll(ring, -1).tolist(), strict=True))
    captions = [pairs[said.get(i, i)].caption for i in range(len(pairs))]
    return [
        Pair(pair.image, caption, {**pair.facts, "wrong": int(caption != pair.caption)})
        for pair, caption in zip(pairs, captions, strict=True)
    ]


def members(pair: Pair, concepts: str | None = None) -> Members:
    """A picture's members; concepts.txt: NEVLP's concept-enhanced text, "dog, grass. Two dogs at play"."""
    extension = pair.image.suffix.lower().lstrip(".")
    facts = json.dumps({**pair.facts, "file": pair.image.name}, ensure_ascii=False)
    found = {extension: pair.image.read_bytes(), "txt": pair.caption.encode(), "json": facts.encode()}
    if concepts:
        found["concepts.txt"] = f"{pair.facts[concepts]}. {pair.caption}".encode()
    return found


def from_folder(folder: Path) -> Iterator[Pair]:
    """Pictures in the order of their paths. Raises DataError for those that have no caption beside them."""
    images = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
    bare = [image for image in images if not image.with_suffix(".txt").is_file()]
    if bare:
        listed = ", ".join(map(str, bare[:5])) + (" ..." if len(bare) > 5 else "")
        raise DataError(
            f"{len(bare)} of {len(images)} pictures have no .txt beside them: {listed}.",
            "Write the captions, or a table of the pictures that have one.",
        )
    for image in images:
        yield Pair(image, image.with_suffix(".txt").read_text(encoding="utf-8").strip())


def from_table(table: Path, image: str, caption: str) -> Iterator[Pair]:
    """Raises DataError naming the column that is not there, and the nearest that is."""
    for number, row in enumerate(table_rows(table), 1):
        require(row, (image, caption), f"{table}: row {number}")
        facts = {k: v for k, v in row.items() if k not in (image, caption)}
        yield Pair(table.parent / row[image], row[caption], facts)


def require(row: dict[str, Any], columns: tuple[str, ...], place: str) -> None:
    """Raises DataError naming the column that is not there, or empty, and the nearest that is."""
    for column in columns:
        if row.get(column) is None:
            near = difflib.get_close_matches(column, [name for name in row if name != column], 1)
            meant = f"Did you mean {near[0]!r}? " if near else ""
            raise DataError(f"{place} has no column {column!r}.", f"{meant}It has {', '.join(row)}.")


def table_rows(table: Path) -> Iterator[dict[str, Any]]:
    if table.suffix == ".parquet":
        for part in library("pyarrow.parquet").ParquetFile(table).iter_batches():
            yield from part.to_pylist()
        return
    with open(table, newline="", encoding="utf-8-sig") as f:
        if table.suffix == ".jsonl":
            yield from (_object(line, f"{table}:{number}") for number, line in enumerate(f, 1) if line.strip())
            return
        reader = csv.DictReader(f, delimiter="\t" if table.suffix == ".tsv" else ",")
        for row in reader:
            if None in row:
                raise DataError(
                    f"{table}:{reader.line_num}: more values than the {len(row) - 1} columns.", "Quote the value."
                )
            yield row


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as e:
        raise DataError(f"{place}: {e}.", "Every line must be a JSON object.") from e
    if not isinstance(row, dict):
        raise DataError(f"{place}: {type(row).__name__}, not an object.", "Every line must be a JSON object.")
    return row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a folder, or a .csv, .tsv, .jsonl or .parquet")
    add_writing_arguments(parser)
    parser.add_argument("--image", default="image", help="column of the path (default image)")
    parser.add_argument("--caption", default="caption", help="column of the caption (default caption)")
    add_wrong_argument(parser)
    parser.add_argument("--split-by", help="column whose values are never in both parts (default: the file name)")
    parser.add_argument("--concepts", help="column of what is in the picture: concepts.txt has it before the caption")
    parser.add_argument("--skip-missing", action="store_true", help="leave out pictures that are not there")


def add_writing_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="folder of the shards")
    parser.add_argument("--held-out", type=float, default=0.0, help="share for test-*.tar (default 0)")
    parser.add_argument("--shard-samples", type=int, default=1000, help="samples of a shard (default 1000)")
    spread.add_argument(parser)


def add_wrong_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wrong", type=float, default=0.0, help="share of training pairs that get another's caption")


def run(arguments: argparse.Namespace) -> str:
    source = Path(arguments.source)
    if not source.exists():
        raise DataError(f"{source}: no such folder or table.", "Name a folder, or a .csv, .tsv, .jsonl or .parquet.")
    rows = from_folder(source) if source.is_dir() else from_table(source, arguments.image, arguments.caption)
    pairs = counted(rows, str(source))
    return write(
        pairs,
        arguments.out,
        split_by=arguments.split_by,
        share=arguments.held_out,
        shard_samples=arguments.shard_samples,
        workers=arguments.workers,
        skip_missing=arguments.skip_missing,
        wrong=arguments.wrong,
        concepts=arguments.concepts,
    )
