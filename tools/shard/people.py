"""Whose a file is: ids from its path or its DICOM header, facts of its participant, the options that say so, and
shards by participant of what can be used.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distpre.errors import DataError
from tools.shard import dicom, spread
from tools.shard.image_text import table_rows
from tools.shard.spread import Workers
from tools.shard.writer import Left, Members, Unusable, divided, quarantined, write_shards

Facts = dict[str, dict[str, Any]]


def files(
    source: Path, ids: str, suffixes: tuple[str, ...], facts: Facts | None = None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(file, its ids and the facts of its participant), by path; files that `ids` does not match are passed over.

    Raises DataError for what is no regular expression, or has no group `participant`.
    """
    for file, known in matched(source, ids, lambda path: path.name.lower().endswith(suffixes)):
        inside = file.relative_to(source).as_posix()
        yield file, {**(facts or {}).get(known["participant"], {}), **known, "file": inside}


def matched(
    source: Path, ids: str, wanted: Callable[[Path], bool], header: dict[str, str] | None = None
) -> Iterator[tuple[Path, dict[str, str]]]:
    """(file, ids that its path says), by path; header: ids that the files themselves will say. Raises as `files`."""
    try:
        pattern = re.compile(ids)
    except re.error as e:
        raise DataError(f"--ids {ids!r}: {e}.", "It is a regular expression with named groups.") from e
    if "participant" not in {*pattern.groupindex, *(header or {})}:
        raise DataError(f"--ids {ids!r} has no participant.", "Write (?P<participant>...): splits are by participant.")
    for file in sorted(p for p in source.rglob("*") if p.is_file() and wanted(p)):
        if found := pattern.search(file.relative_to(source).as_posix()):
            yield file, {name: value for name, value in found.groupdict().items() if value is not None}


@dataclass(frozen=True)
class Scan:
    """One recording of a person: what it is called, its files, and the ids that its path says."""

    name: Path
    files: tuple[Path, ...]
    known: dict[str, str]


def together(files: Iterable[tuple[Path, dict[str, str]]], parts: Callable[[Path], bool]) -> list[Scan]:
    """Files as `matched` gives them. Where parts(file), those of one folder and of the same ids are one scan, which is
    called after the folder, or its first file where the folder holds several; any other file is a scan.
    """
    groups: dict[Any, list[Path]] = {}
    for file, known in files:
        groups.setdefault((file.parent if parts(file) else file, tuple(known.items())), []).append(file)
    folders = Counter(place for place, _ in groups)
    return [
        Scan(place if folders[place] == 1 else its[0], tuple(its), dict(ids)) for (place, ids), its in groups.items()
    ]


def told(
    scans: list[Scan], source: Path, header: dict[str, str], facts: Facts | None
) -> tuple[list[tuple[Scan, dict[str, Any]]], list[Left]]:
    """(scan, all that is known of it), and those of which too little is.

    header: {id: keyword of the first file's DICOM header}, as in dicom.ids; a file of another kind has none.
    """
    every, left = [], []
    for scan in scans:
        inside = scan.name.relative_to(source).as_posix()
        try:
            in_header = dicom.ids(scan.files[0], header) if dicom.is_dicom(scan.files[0]) else {}
            known = {**scan.known, **in_header}
            if "participant" not in known:
                raise Unusable("no participant in its path, and no DICOM header")
            every.append((scan, {**(facts or {}).get(known["participant"], {}), **known, "file": inside}))
        except (DataError, MemoryError):
            raise
        except Exception as e:  # and whatever pydicom says of a damaged file
            left.append(Left(inside, _reason(e)))
    return every, left


def facts(table: str | None, column: str) -> Facts:
    """{value of the column: the row's other cells}, whole numbers as such. Raises DataError for a missing column."""
    if table is None:
        return {}
    rows = list(table_rows(Path(table)))
    if rows and column not in rows[0]:
        raise DataError(f"{table}: no column {column!r}.", f"There is {', '.join(rows[0])}.")
    return {str(row[column]): {name: _number(value) for name, value in row.items() if name != column} for row in rows}


def _number(value: Any) -> Any:
    return int(value) if re.fullmatch(r"-?\d+", str(value)) else value


def write(
    rows: list[Any],
    made: Callable[[Any], Any],
    members: Callable[[Any], Members],
    out: str | Path,
    options: dict[str, Any],
    *,
    what: str,
    left: list[Left] = (),  # noqa: B006
    share: float = 0.0,
    shard_samples: int = 100,
    workers: Workers = 1,
) -> str:
    """train-*.tar and test-*.tar of the rows that `made` makes, by participant; a summary line.

    Each row has `facts`, with its file and its participant. dataset.json holds `options`, quarantine.jsonl what was
    left out before and what `made` raises Unusable for, or a library says of a damaged file. Raises DataError where
    nothing can be used.
    """
    folder = Path(out)
    faults = list(spread.spread(functools.partial(_fault, made), rows, workers, "reading"))
    every = [*left, *(fault for fault in faults if fault)]
    usable = [row for row, fault in zip(rows, faults, strict=True) if fault is None]
    if not usable:
        raise DataError(f"none of {len(every)} {what} can be used; the first: {every[0].file}: {every[0].reason}.")
    parts = divided(usable, lambda row: str(row.facts["participant"]), share)
    ids = {"json.participant"}
    for split, chosen in parts.items():
        if chosen:
            write_shards(folder, split, chosen, members, shard_samples=shard_samples, workers=workers, ids=ids)
    (folder / "dataset.json").write_text(json.dumps({**options, "share": share}, indent=1) + "\n")
    quarantined(folder, every)
    return (
        f"wrote {len(parts['train'])} {what} for training and {len(parts['test'])} held out, as tars in {out}; "
        f"{len(every)} left out (quarantine.jsonl)"
    )


def _fault(made: Callable[[Any], Any], row: Any) -> Left | None:
    try:
        made(row)
    except (DataError, MemoryError):
        raise
    except Exception as e:  # and whatever a library says of a damaged file
        return Left(row.facts["file"], _reason(e))
    return None


def _reason(e: Exception) -> str:
    return str(e) if isinstance(e, Unusable) else f"cannot be read: {type(e).__name__}: {e}"


def add_arguments(parser: argparse.ArgumentParser, header: bool = False) -> None:
    """header: files may be DICOM, whose headers say ids too."""
    shown = r"as in 'Person_(?P<participant>\d+)/rec_(?P<recording>\d+)'"
    parser.add_argument("--ids", required=not header, default="", help=shown)
    if header:
        shown = (
            "ids in DICOM headers: participant=PatientID eye=PatientID+Laterality (names go into shards as they are)"
        )
        parser.add_argument("--header", nargs="+", type=_named, default=[], metavar="ID=KEYWORD", help=shown)
    parser.add_argument("--facts", help="a CSV, TSV or JSONL with a row a participant")
    parser.add_argument("--facts-id", default="participant", help="its column of the participant (default participant)")
    parser.add_argument("--held-out", type=float, default=0.0, help="share of participants for test-*.tar (default 0)")


def _named(text: str) -> tuple[str, str]:
    name, equals, keyword = text.partition("=")
    if not (name and equals and keyword):
        raise argparse.ArgumentTypeError(f"{text!r} is not ID=KEYWORD")
    return name, keyword
