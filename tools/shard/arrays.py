"""Rows of numpy arrays -> shards of {NAME.npy for each array, json}.

SOURCE is an .npz, or a folder of .npy: arrays of as many rows each (their first axis). json holds {"row": its number}
and, with --facts, the row of a table (CSV, TSV, JSONL, parquet) of the same place. --split-by names the column whose
values are never in both parts; without it rows are split one by one.
"""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distpre.errors import DataError
from tools.shard.image_text import add_writing_arguments, require, table_rows
from tools.shard.spread import Workers
from tools.shard.writer import Members, divided, write_shards


@dataclass(frozen=True)
class Row:
    source: Path
    number: int
    facts: dict[str, Any] = field(default_factory=dict)


@lru_cache(maxsize=1)  # a process's rows are of one source
def opened(source: Path) -> dict[str, NDArray]:
    """{name: array}, of .npy mapped. Raises DataError for what holds no arrays, objects, or unequal lengths."""
    try:
        if not source.is_dir() and source.suffix != ".npz":
            raise ValueError("neither an .npz nor a folder")
        if source.is_dir():
            arrays = {p.stem: np.load(p, mmap_mode="r") for p in sorted(source.glob("*.npy"))}
        else:
            with np.load(source) as content:
                arrays = {name: content[name] for name in content.files}
    except (OSError, ValueError, TypeError, AttributeError) as e:
        raise DataError(f"{source}: {e}.", "Name an .npz, or a folder of .npy, of numbers.") from e
    lengths = {name: len(x) if x.ndim else 0 for name, x in arrays.items()}
    if not lengths or 0 in lengths.values() or len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {n}" for name, n in lengths.items()) or "none"
        raise DataError(f"{source}: the arrays' rows are {said}.", "All need as many rows, and one at least.")
    return arrays


def rows(source: Path, table: Path | None, split_by: str | None) -> list[Row]:
    count = len(next(iter(opened(source).values())))
    facts = list(table_rows(table)) if table else [{} for _ in range(count)]
    if len(facts) != count:
        raise DataError(f"{table}: {len(facts)} rows for {count} of {source}.", "It needs one a row, in their order.")
    if split_by:
        for number, fact in enumerate(facts, 1):
            require(fact, (split_by,), f"{table or source}: row {number}")
    return [Row(source, number, {**fact, "row": number}) for number, fact in enumerate(facts)]


def members(row: Row) -> Members:
    out = {}
    for name, array in opened(row.source).items():
        content = io.BytesIO()
        np.save(content, np.asarray(array[row.number]), allow_pickle=False)
        out[f"{name}.npy".lower()] = content.getvalue()
    return {**out, "json": json.dumps(row.facts, ensure_ascii=False).encode()}


def write(
    source: Path,
    out: str | Path,
    *,
    table: Path | None = None,
    split_by: str | None = None,
    share: float = 0.0,
    shard_samples: int = 1000,
    workers: Workers = 1,
) -> str:
    """Writes train-*.tar and, for share > 0, test-*.tar; returns a summary line. Raises DataError before it writes."""
    found = rows(source, table, split_by)
    parts = divided(found, lambda row: str(row.facts[split_by or "row"]), share)
    ids = {f"json.{split_by}"} if split_by else set()
    for split, chosen in parts.items():
        if chosen:
            write_shards(out, split, chosen, members, shard_samples=shard_samples, workers=workers, ids=ids)
    names = ", ".join(f"{name}.npy {x.dtype} {x.shape[1:]}" for name, x in opened(source).items())
    return f"wrote {len(parts['train'])} rows for training and {len(parts['test'])} held out of {names}, in {out}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="an .npz, or a folder of .npy")
    parser.add_argument("--facts", type=Path, help="a table with a row for each of theirs, in their order")
    parser.add_argument("--split-by", help="its column whose values are never in both parts (default: the row)")
    add_writing_arguments(parser)


def run(a: argparse.Namespace) -> str:
    how = {"share": a.held_out, "shard_samples": a.shard_samples, "workers": a.workers}
    return write(a.source, a.out, table=a.facts, split_by=a.split_by, **how)
