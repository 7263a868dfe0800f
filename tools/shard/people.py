"""Whose a file is: ids from its path, facts of its participant, and the options that say so."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distpre.errors import DataError
from tools.shard.image_text import table_rows

Facts = dict[str, dict[str, Any]]


def files(
    source: Path, ids: str, suffixes: tuple[str, ...], facts: Facts | None = None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(file, its ids and the facts of its participant), by path; files that `ids` does not match are passed over.

    Raises DataError for what is no regular expression, or has no group `participant`.
    """
    try:
        pattern = re.compile(ids)
    except re.error as e:
        raise DataError(f"--ids {ids!r}: {e}.", "It is a regular expression with named groups.") from e
    if "participant" not in pattern.groupindex:
        raise DataError(f"--ids {ids!r} has no participant.", "Write (?P<participant>...): splits are by participant.")
    for file in sorted(p for p in source.rglob("*") if p.name.lower().endswith(suffixes)):
        inside = file.relative_to(source).as_posix()
        if found := pattern.search(inside):
            known = {name: value for name, value in found.groupdict().items() if value is not None}
            yield file, {**(facts or {}).get(known["participant"], {}), **known, "file": inside}


def facts(table: str | None, column: str) -> Facts:
    """{value of the column: the row's other cells}, whole numbers as such. Raises DataError for a missing column."""
    if table is None:
        return {}
    rows = list(table_rows(Path(table)))
    if rows and column not in rows[0]:
        raise DataError(f"{table}: no column {column!r}.", f"There is {', '.join(rows[0])}.")
    return {row[column]: {name: _number(value) for name, value in row.items() if name != column} for row in rows}


def _number(value: Any) -> Any:
    return int(value) if re.fullmatch(r"-?\d+", str(value)) else value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ids", required=True, help=r"as in 'Person_(?P<participant>\d+)/rec_(?P<recording>\d+)'")
    parser.add_argument("--facts", help="a CSV, TSV or JSONL with a row a participant")
    parser.add_argument("--facts-id", default="participant", help="its column of the participant (default participant)")
    parser.add_argument("--held-out", type=float, default=0.0, help="share of participants for test-*.tar (default 0)")
