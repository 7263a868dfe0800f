"""Files that belong together -> shards: a group in one sample (--into sample), or never in two shards (--into shard).

SOURCE is a table (CSV, TSV, JSONL, parquet) with one row a file: its path (relative to the table) in the column --file,
what it belongs to (a person, an object) in --group. Files are kept byte for byte. Into shards: {extension, json} a
file, json holds the row, groups lie one after another. Into samples: {0.extension, 1.extension, ..., json} a group,
json holds what its rows have in common, and `views`, what is each one's own. No group is in both parts.
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
from tools.shard.writer import Members, counted, divided, shared_facts, write_shards


@dataclass(frozen=True)
class File:
    """A file, what it belongs to, and its row."""

    path: Path
    group: str
    facts: dict[str, Any] = field(default_factory=dict)


def files(table: Path, file: str, group: str) -> list[File]:
    """Group by group, in the order in which the table first names them. Raises DataError for what is not there."""
    found: dict[str, list[File]] = {}
    for number, row in enumerate(table_rows(table), 1):
        require(row, (file, group), f"{table}: row {number}")
        facts = {k: v for k, v in row.items() if k != file} | {"file": row[file]}
        found.setdefault(str(row[group]), []).append(File(table.parent / row[file], str(row[group]), facts))
    everything = [one for group_files in found.values() for one in group_files]
    missing = [one.path for one in everything if not one.path.is_file()]
    if missing:
        listed = ", ".join(map(str, missing[:5])) + (" ..." if len(missing) > 5 else "")
        raise DataError(f"{len(missing)} files are missing: {listed}.", "Mend the paths, or leave the rows out.")
    bare = [one.path for one in everything if not one.path.suffix]
    if bare:
        raise DataError(f"{bare[0]} has no extension: nobody could tell how to decode it.", "Rename it.")
    return everything


def write(
    table: Path,
    out: str | Path,
    *,
    file: str,
    group: str,
    into: str = "sample",
    share: float = 0.0,
    shard_samples: int = 1000,
    workers: Workers = 1,
) -> str:
    """Writes train-*.tar and, for share > 0, test-*.tar of the held-out share of groups; returns a summary line."""
    found = counted(iter(files(table, file, group)), str(table))
    groups = {split: _grouped(part) for split, part in divided(found, lambda one: one.group, share).items()}
    how = {"shard_samples": shard_samples, "workers": workers, "ids": {f"json.{group}"}}
    for split, rows in groups.items():
        if rows and into == "sample":
            write_shards(out, split, rows, members_together, **how)
        elif rows:
            alone = [one for row in rows for one in row]
            write_shards(out, split, alone, members, together=lambda one: one.group, **how)
    return (
        f"wrote {len(groups['train'])} groups for training and {len(groups['test'])} held out, {len(found)} files in "
        f"all, as tars in {out}"
    )


def _grouped(found: list[File]) -> list[list[File]]:
    rows: dict[str, list[File]] = {}
    for one in found:
        rows.setdefault(one.group, []).append(one)
    return list(rows.values())


def members(one: File) -> Members:
    return {_extension(one.path): one.path.read_bytes(), "json": json.dumps(one.facts, ensure_ascii=False).encode()}


def members_together(row: list[File]) -> Members:
    same, each = shared_facts([one.facts for one in row])
    contents = {f"{i}.{_extension(one.path)}": one.path.read_bytes() for i, one in enumerate(row)}
    return {**contents, "json": json.dumps({**same, "views": each}, ensure_ascii=False).encode()}


def _extension(path: Path) -> str:
    return path.suffix.lower().lstrip(".")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a .csv, .tsv, .jsonl or .parquet")
    parser.add_argument("--file", default="file", help="column of the path (default file)")
    parser.add_argument("--group", required=True, help="column of what a file belongs to")
    parser.add_argument("--into", choices=("sample", "shard"), default="sample", help="what holds a group whole")
    add_writing_arguments(parser)


def run(a: argparse.Namespace) -> str:
    if not a.source.is_file():
        raise DataError(f"{a.source}: no such table.", "Name a .csv, .tsv, .jsonl or .parquet.")
    how = {"share": a.held_out, "shard_samples": a.shard_samples, "workers": a.workers}
    return write(a.source, a.out, file=a.file, group=a.group, into=a.into, **how)
