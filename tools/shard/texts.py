"""Texts that belong together (a sentence and its translation, a query and its code) -> shards of {COLUMN.txt, json}.

SOURCE is a table (CSV, TSV, JSONL, parquet) with one row a sample, its texts in the columns --text. All other columns
go into json, from where a recipe takes ids. --split-by names the column whose values are never in both parts; without
it rows are split one by one, by their texts.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distpre.errors import DataError
from tools.shard.image_text import add_writing_arguments, require, table_rows
from tools.shard.spread import Workers
from tools.shard.writer import Members, counted, divided, write_shards


@dataclass(frozen=True)
class Texts:
    """{column: text}, and the rest of its row."""

    texts: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)


def rows(table: Path, columns: list[str], split_by: str | None = None) -> list[Texts]:
    """Raises DataError naming the column that is not there, and the nearest that is."""
    found = []
    for number, row in enumerate(table_rows(table), 1):
        require(row, (*columns, *([split_by] if split_by else [])), f"{table}: row {number}")
        facts = {k: v for k, v in row.items() if k not in columns}
        found.append(Texts({column: str(row[column]) for column in columns}, facts))
    return counted(iter(found), str(table))


def write(
    table: Path,
    out: str | Path,
    columns: list[str],
    *,
    split_by: str | None = None,
    share: float = 0.0,
    shard_samples: int = 1000,
    workers: Workers = 1,
) -> str:
    """Writes train-*.tar and, for share > 0, test-*.tar of the held-out share; returns a summary line."""
    found = rows(table, columns, split_by)
    parts = divided(found, lambda row: str((row.texts | row.facts)[split_by] if split_by else row.texts), share)
    ids = {f"json.{split_by}"} if split_by and split_by not in columns else set()
    for split, chosen in parts.items():
        if chosen:
            write_shards(out, split, chosen, members, shard_samples=shard_samples, workers=workers, ids=ids)
    names = ", ".join(f"{column}.txt".lower() for column in columns)
    return f"wrote {len(parts['train'])} rows for training and {len(parts['test'])} held out of {names}, in {out}"


def members(row: Texts) -> Members:
    texts = {f"{column}.txt".lower(): text.encode() for column, text in row.texts.items()}
    return {**texts, "json": json.dumps(row.facts, ensure_ascii=False).encode()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a .csv, .tsv, .jsonl or .parquet")
    parser.add_argument("--text", nargs="+", required=True, help="columns of the texts")
    parser.add_argument("--split-by", help="column whose values are never in both parts (default: the texts)")
    add_writing_arguments(parser)


def run(a: argparse.Namespace) -> str:
    if not a.source.is_file():
        raise DataError(f"{a.source}: no such table.", "Name a .csv, .tsv, .jsonl or .parquet.")
    how = {"share": a.held_out, "shard_samples": a.shard_samples, "workers": a.workers}
    return write(a.source, a.out, a.text, split_by=a.split_by, **how)
