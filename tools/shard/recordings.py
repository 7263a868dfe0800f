"""One recording from a file: WFDB header (.hea), EDF, or a table of samples (.csv, .tsv, .parquet)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distpre.errors import DataError
from tools.shard.writer import Unusable

GAP = 10  # median steps without a sample are a hole, not jitter


@dataclass(frozen=True)
class Recording:
    """signal: (channels, n) in physical units, NaN where nothing was recorded; rate: Hz.

    facts: what the header says of the person. labels: (n,) text a sample, or None. start: seconds, when the first
    sample was taken by the recording's clock, where a table has one.
    """

    signal: NDArray[np.float64]
    rate: float
    facts: dict[str, Any] = field(default_factory=dict)
    labels: NDArray | None = None
    start: float | None = None


@dataclass(frozen=True)
class Columns:
    """channels: names, or numbers as text; none takes all. Of a table also: time, its clock's column; unit, seconds of
    one tick of it; rate, Hz, where it has no clock; label, the column of what was going on.
    """

    channels: tuple[str, ...] = ()
    time: str | None = None
    unit: float = 1.0
    rate: float | None = None
    label: str | None = None


def read(path: Path, columns: Columns) -> Recording:
    """Raises Unusable for channels that are not there or of several rates, and what a format's own reader raises."""
    return READERS[path.suffix.lower()](path, columns)


def wfdb(path: Path, columns: Columns) -> Recording:
    """Comments like `# Age: 23` become facts {age: 23}."""
    reader = library("wfdb")
    record = reader.rdrecord(str(path.with_suffix("")))
    if record.p_signal is None:
        raise Unusable("the channels have several rates")
    chosen = _chosen(record.sig_name, columns.channels)
    told = dict(re.split(r"\s*:\s*", comment, maxsplit=1) for comment in record.comments if ":" in comment)
    facts = {name.lower().strip("<> "): _number(value.strip()) for name, value in told.items()}
    return Recording(record.p_signal.T[chosen], float(record.fs), facts)


def edf(path: Path, columns: Columns) -> Recording:
    """Continuous EDF and EDF+; facts: sex and age, where the header has them."""
    record = library("edfio").read_edf(path)
    signals = list(record.signals)
    chosen = [signals[i] for i in _chosen([s.label for s in signals], columns.channels)]
    rates = {s.sampling_frequency for s in chosen}
    if len(rates) > 1:
        raise Unusable(f"the channels have several rates: {', '.join(f'{r:g} Hz' for r in sorted(rates))}")
    return Recording(np.stack([s.data for s in chosen]).astype(np.float64), float(rates.pop()), _patient(record))


def table(path: Path, columns: Columns) -> Recording:
    """Columns of numbers. With a clock, samples are put on an even grid of its median step, and holes become NaN."""
    pandas = library("pandas")
    if path.suffix.lower() == ".parquet":
        rows = pandas.read_parquet(path)
    else:
        rows = pandas.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",")
    beside = {columns.time, columns.label}
    named = [c for c in rows.columns if c not in beside and pandas.api.types.is_numeric_dtype(rows[c])]
    chosen = [named[i] for i in _chosen(named, columns.channels)]
    for column in filter(None, beside):
        _chosen(list(rows.columns), (column,))
    signal = rows[chosen].to_numpy(np.float64).T
    labels = rows[columns.label].astype(str).to_numpy(str) if columns.label else None
    if columns.time:
        return _evened(signal, rows[columns.time].to_numpy(np.float64) * columns.unit, labels)
    if columns.rate is None:
        raise DataError(f"{path}: a table has no rate of its own.", "Give --time COLUMN, or --source-rate HZ.")
    return Recording(signal, columns.rate, labels=labels)


def _evened(signal: NDArray, time: NDArray, labels: NDArray | None) -> Recording:
    """Rows out of order or without a time are a broken clock: Unusable. Two rows of one tick keep the first."""
    if len(time) < 2 or not np.isfinite(time).all() or (np.diff(time) < 0).any():
        raise Unusable("the clock runs backwards or has holes in its column")
    time, first = np.unique(time, return_index=True)
    step = float(np.median(np.diff(time))) if len(time) > 1 else 0.0
    if step <= 0:
        raise Unusable("the clock stands still")
    grid = time[0] + step * np.arange(int((time[-1] - time[0]) / step * (1 + 1e-12)) + 1)
    after = np.searchsorted(time, grid).clip(1, len(time) - 1)
    hole = time[after] - time[after - 1] > GAP * step
    nearest = first[np.where(grid - time[after - 1] <= time[after] - grid, after - 1, after)]
    even = np.stack([np.interp(grid, time, channel) for channel in signal[:, first]])
    labels = None if labels is None else labels[nearest]
    return Recording(np.where(hole, np.nan, even), 1 / step, labels=labels, start=float(time[0]))


def _chosen(there: list[str], wanted: tuple[str, ...]) -> list[int]:
    """Places of the wanted names, or numbers; of all, where none is wanted."""
    if not wanted:
        return list(range(len(there)))
    places = {name: i for i, name in reversed(list(enumerate(there)))} | {
        str(i): i for i in range(len(there)) if str(i) not in there
    }
    missing = [name for name in wanted if name not in places]
    if missing:
        raise Unusable(f"no channel {', '.join(map(repr, missing))}; it has {', '.join(map(str, there))}")
    return [places[name] for name in wanted]


def _patient(record: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    try:
        patient, taken = record.patient, record.startdate
        facts = {"sex": {"F": "female", "M": "male"}.get(patient.sex)}
        facts["age"] = (taken - patient.birthdate).days * 100 // 36525 if patient.birthdate else None
    except (ValueError, AttributeError):  # anonymised, or plain EDF, whose header has no such fields
        pass
    return {name: value for name, value in facts.items() if value is not None}


def _number(text: str) -> int | str:
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def library(name: str) -> Any:
    """Raises DataError with the remedy where it is not installed."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise DataError(
            f"This format is read by {name}, which is not here: {e}.", "pip install 'distpre[signals]'"
        ) from e


READERS: dict[str, Callable[[Path, Columns], Recording]] = {
    ".hea": wfdb,
    ".edf": edf,
    **dict.fromkeys((".csv", ".tsv", ".parquet"), table),
}
