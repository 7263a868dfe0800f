"""Recordings of people -> shards of segments {npy, json}: one sample is one segment, (channels, time) float32.

SOURCE is a folder of WFDB records (.hea), EDF, or tables (.csv, .tsv, .parquet). --ids is a regular expression on a
file's path below it, whose named groups (participant, and any of visit, device, recording ...) go into json beside
what the header says of the person; files that it does not match are passed over. Whoever a participant is, all of their
segments are in train or all in test. In this order: band-pass, resampling, cutting, z-score of each channel. With
--together a training sample is instead all segments of a participant, (segments, channels, time), of which views take
two. With --pair device, a group of --ids, a sample is what each device recorded at one time, {sp.npy, sw.npy, json} of
devices sp and sw; tables with one clock are then cut at whole strides of it. OUT holds dataset.json, the options all
segments were made with, and quarantine.jsonl, a line with the reason for every recording and segment that was left out.
"""

from __future__ import annotations

import argparse
import io
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distpre.errors import DataError
from tools.shard import people, spread
from tools.shard.recordings import READERS, Columns, Recording, read
from tools.shard.spread import Workers
from tools.shard.writer import (
    PARTICIPANT,
    Left,
    Members,
    Unusable,
    counted,
    divided,
    quarantined,
    shared_facts,
    write_shards,
)

FLAT = 1e-3  # of the recording's own deviation


@dataclass(frozen=True)
class Making:
    """How recordings become segments. rate: Hz; seconds: a segment's length; stride: from start to start, seconds.

    band: (low, high) Hz of a Butterworth filter of 4th order run both ways, 0 leaves that side open; None leaves all.
    zscore: each channel of a segment to mean 0 and deviation 1. by_clock: starts are whole strides of the clock.
    classes: labels; a segment's `class` is the place of its own among them, -1 where it is none of them. has: (fact,
    another fact, code) each: the fact is 1 where the other, a list of codes, has the code, else 0.
    """

    columns: Columns
    rate: float
    seconds: float
    stride: float
    band: tuple[float, float] | None = None
    zscore: bool = True
    by_clock: bool = False
    classes: tuple[str, ...] = ()
    has: tuple[tuple[str, str, str], ...] = ()

    @property
    def samples(self) -> int:
        return round(self.seconds * self.rate)


@dataclass(frozen=True)
class Segment:
    """Samples [first, first + making.samples) of a recording at the new rate."""

    file: Path
    first: int
    channels: int
    making: Making
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Conditioned:
    """signal: (channels, n) at the new rate; recording: as read, its holes bridged; missing: (m,) bool at its rate."""

    signal: NDArray[np.float64]
    recording: Recording
    missing: NDArray[np.bool_]


def conditioned(file: Path, making: Making) -> Conditioned:
    """Holes are bridged for the filter's sake and stay marked. Raises Unusable, and what a reader raises."""
    from scipy.signal import butter, resample_poly, sosfiltfilt

    recording = read(file, making.columns)
    x, rate = recording.signal, recording.rate
    if x.shape[1] / rate * (1 + 1e-9) < making.seconds:
        raise Unusable(f"too short: {x.shape[1] / rate:.2f} s of {making.seconds:g} s")
    missing = ~np.isfinite(x)
    if missing.all(1).any():
        raise Unusable("a channel has no finite value")
    x = np.stack([_bridged(channel, ~gone) for channel, gone in zip(x, missing, strict=True)])
    if any(np.ptp(channel) == 0 for channel in x):
        raise Unusable("a channel is flat all through")
    y = x
    if making.band:
        low, high = making.band
        if 2 * high >= rate:
            raise Unusable(f"recorded at {rate:g} Hz, which holds no band up to {high:g} Hz")
        kind, edges = ("band", [low, high]) if low and high else ("high", low) if low else ("low", high)
        y = sosfiltfilt(butter(4, edges, kind, fs=rate, output="sos"), x, axis=1)
    ratio = Fraction(making.rate / rate).limit_denominator(1000)
    if ratio != 1:
        y = resample_poly(y, ratio.numerator, ratio.denominator, axis=1, padtype="line")
    return Conditioned(y, replace(recording, signal=x), missing.any(0))


def planned(making: Making, file: Path, ids: dict[str, Any]) -> tuple[list[Segment], list[Left]]:
    """The segments of a recording, and what of it is left out and why."""
    shown = ids["file"]
    try:
        it = conditioned(file, making)
    except (DataError, MemoryError):
        raise
    except Unusable as e:
        return [], [Left(shown, str(e))]
    except Exception as e:  # whatever a format's reader says of a damaged file
        return [], [Left(shown, f"cannot be read: {type(e).__name__}: {e}")]
    before = it.recording
    whole = before.signal.std(1)
    segments, left = [], []
    step = max(1, round(making.stride * making.rate))
    begin, numbered = 0, 0
    if making.by_clock:
        if before.start is None:
            raise DataError(f"{file}: a recording without a clock cannot be paired.", "Give --time COLUMN of a table.")
        numbered = int(np.ceil(before.start / making.stride))
        begin = round((numbered * making.stride - before.start) * making.rate)
    for number, first in enumerate(range(begin, it.signal.shape[1] - making.samples + 1, step), numbered):
        start = round(first / making.rate, 6)
        part = slice(int(start * before.rate), int(np.ceil((start + making.seconds) * before.rate)))
        if it.missing[part].any():
            left.append(Left(shown, "holes or values that are not finite", start))
        elif (before.signal[:, part].std(1) < FLAT * whole).any():
            left.append(Left(shown, "flat", start))
        else:
            facts = {**before.facts, **ids, "segment": number, "start": start, "rate": making.rate}
            facts |= {name: int(code in listed(facts.get(of))) for name, of, code in making.has}
            if before.labels is not None:
                facts["label"] = Counter(before.labels[part].tolist()).most_common(1)[0][0]
                if making.classes:
                    named = facts["label"] in making.classes
                    facts["class"] = making.classes.index(facts["label"]) if named else -1
            segments.append(Segment(file, first, len(it.signal), making, facts))
    if not segments and not left:  # resampling may round the last sample away
        left.append(Left(shown, f"too short: {it.signal.shape[1]} of {making.samples} samples"))
    return segments, left


def listed(fact: Any) -> list[str]:
    """ "426177001, 284470004" of a header -> both."""
    return [] if fact is None else re.split(r"\s*,\s*", str(fact))


def _planned(making: Making, job: tuple[Path, dict[str, Any]]) -> tuple[list[Segment], list[Left]]:
    return planned(making, *job)


def members(segment: Segment) -> Members:
    return _written(_cut(segment), segment.facts)


def members_together(segments: list[Segment]) -> Members:
    """json holds what is the same in all segments, and `segments`, what is each one's own."""
    same, each = shared_facts([s.facts for s in segments])
    return _written(np.stack([_cut(s) for s in segments]), {**same, "segments": each})


def members_paired(segments: dict[str, Segment]) -> Members:
    """{device.npy: one each, json}; json is that of the first device by name."""
    made = {device: members(segment) for device, segment in segments.items()}
    return {f"{device}.npy": its["npy"] for device, its in made.items()} | {"json": made[min(made)]["json"]}


def _written(x: NDArray, facts: dict[str, Any]) -> Members:
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(x, np.float32))
    return {"npy": content.getvalue(), "json": json.dumps(facts, ensure_ascii=False).encode()}


def _cut(segment: Segment) -> NDArray:
    making = segment.making
    x = _held(segment.file, making).signal[:, segment.first : segment.first + making.samples]
    return (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True) if making.zscore else x


@lru_cache(maxsize=8)  # a recording's segments are neighbours, and so are those of several devices
def _held(file: Path, making: Making) -> Conditioned:
    return conditioned(file, making)


def _bridged(x: NDArray, there: NDArray) -> NDArray:
    at = np.arange(len(x))
    return x if there.all() else np.interp(at, at[there], x[there])


def write(
    source: str | Path,
    out: str | Path,
    ids: str,
    making: Making,
    *,
    share: float = 0.0,
    facts: dict[str, dict[str, Any]] | None = None,
    together: bool = False,
    pair: str | None = None,
    shard_samples: int = 1000,
    workers: Workers = 1,
) -> str:
    """Writes train-*.tar and test-*.tar; returns a summary line. facts: {participant: what else is known of them}.

    together: a training sample is all segments of a participant; who has one only is left out. pair: a sample is a
    segment of each value of this group of `ids`, of one time and alike in the other groups; the rest is left out.

    Raises DataError for an --ids without a participant, a source in which it finds nothing, and shards of other
    segments or options in OUT.
    """
    source, folder = Path(source), Path(out)
    if pair and (together or f"(?P<{pair}>" not in ids):
        raise DataError(f"--pair {pair} will not do.", "Name a group of --ids, and leave --together out.")
    making = replace(making, by_clock=bool(pair))
    files = counted(people.files(source, ids, tuple(READERS), facts), f"{source} (files that --ids matches)")
    segments: list[Segment] = []
    left: list[Left] = []
    for some, others in spread.spread(partial(_planned, making), files, workers, "reading", chunk=8):
        segments += some
        left += others
    parts = divided(segments, lambda segment: str(segment.facts["participant"]), share)
    if not segments:
        raise DataError(f"{source}: none of {len(files)} recordings can be used; the first: {left[0].reason}.")
    paired = {split: _pairs(some, pair, left) for split, some in parts.items()} if pair else {}
    rows: list[list[Segment]] = list(_by_participant(parts["train"]).values())
    if together:
        left += [Left(row[0].facts["file"], "the participant's only segment") for row in rows if len(row) == 1]
        parts["train"] = [segment for row in rows if len(row) > 1 for segment in row]
        rows = [row for row in rows if len(row) > 1]
    if len(counts := sorted({s.channels for s in segments})) > 1:
        raise DataError(f"{source}: recordings of {counts[0]} and of {counts[1]} channels.", "Name some by --channels.")
    for split, chosen in parts.items():
        grouped = together and split == "train"
        if chosen:
            make = members_paired if pair else members_together if grouped else members
            samples = paired[split] if pair else rows if grouped else chosen
            write_shards(folder, split, samples, make, shard_samples=shard_samples, workers=workers, ids=PARTICIPANT)
    said = {"ids": ids, "share": share, "together": together, "pair": pair, **asdict(making)}
    (folder / "dataset.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    quarantined(folder, left)
    persons = {split: len({s.facts["participant"] for s in chosen}) for split, chosen in parts.items()}
    return (
        f"wrote {len(parts['train'])} segments of {persons['train']} participants for training and "
        f"{len(parts['test'])} of {persons['test']} held out, as tars in {out}; {len(left)} left out (quarantine.jsonl)"
    )


def _pairs(segments: list[Segment], pair: str, left: list[Left]) -> list[dict[str, Segment]]:
    """{device: segment} of one time, with a segment of every device that there is; `left` gets the others."""
    devices = {segment.facts[pair] for segment in segments}
    own = {pair, "file", "start", "label", "class"}
    moments: dict[tuple, dict[str, Segment]] = {}
    for segment in segments:
        at = tuple(sorted((name, str(value)) for name, value in segment.facts.items() if name not in own))
        moments.setdefault(at, {})[segment.facts[pair]] = segment
    for moment in moments.values():
        if len(moment) < len(devices):
            left += [Left(s.facts["file"], f"not there of every {pair}", s.facts["start"]) for s in moment.values()]
    return [moment for moment in moments.values() if len(moment) == len(devices)]


def _by_participant(segments: list[Segment]) -> dict[str, list[Segment]]:
    found: dict[str, list[Segment]] = {}
    for segment in segments:
        found.setdefault(segment.facts["participant"], []).append(segment)
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="the folder of recordings")
    parser.add_argument("--out", required=True, help="folder of the shards")
    parser.add_argument("--rate", type=float, required=True, help="samples a second of the segments")
    parser.add_argument("--seconds", type=float, required=True, help="length of a segment")
    parser.add_argument("--stride", type=float, help="seconds from start to start (default: --seconds)")
    parser.add_argument("--channels", nargs="*", default=[], help="names or numbers (default: all)")
    parser.add_argument("--band", type=float, nargs=2, metavar=("LOW", "HIGH"), help="Hz to keep; 0: open on that side")
    parser.add_argument("--no-zscore", action="store_true", help="leave segments in the recording's units")
    parser.add_argument("--time", help="a table's column of time")
    parser.add_argument("--time-unit", type=float, default=1.0, help="seconds of one tick of it (default 1)")
    parser.add_argument("--source-rate", type=float, help="Hz of tables without a column of time")
    parser.add_argument("--label", help="a table's column of labels; a segment takes its commonest")
    parser.add_argument("--classes", nargs="*", default=[], help="labels, whose places here are a segment's class")
    parser.add_argument("--has", nargs="*", default=[], metavar="NAME=FACT:CODE", help="as in sinus=dx:426783006")
    people.add_arguments(parser)
    parser.add_argument("--together", action="store_true", help="a training sample is all segments of a participant")
    parser.add_argument("--pair", help="a group of --ids: a sample holds a segment of each of its values, of one time")
    parser.add_argument("--shard-samples", type=int, default=1000, help="samples of a shard (default 1000)")
    spread.add_argument(parser)


def run(arguments: argparse.Namespace) -> str:
    a = arguments
    columns = Columns(tuple(a.channels), a.time, a.time_unit, a.source_rate, a.label)
    band = tuple(a.band) if a.band else None
    has = [re.fullmatch(r"(\w+)=([^:]+):(.+)", word) for word in a.has]
    if None in has:
        raise DataError(f"--has {a.has[has.index(None)]!r} will not do.", "Write NAME=FACT:CODE: sinus=dx:426783006.")
    told = {"classes": tuple(a.classes), "has": tuple(found.groups() for found in has)}
    making = Making(columns, a.rate, a.seconds, a.stride or a.seconds, band, not a.no_zscore, **told)
    return write(
        a.source,
        a.out,
        a.ids,
        making,
        share=a.held_out,
        facts=people.facts(a.facts, a.facts_id),
        together=a.together,
        pair=a.pair,
        shard_samples=a.shard_samples,
        workers=a.workers,
    )
