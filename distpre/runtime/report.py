"""Records become files (Reporter, written by rank 0) and something to look at (Screen, in the process at the terminal).

A record is a dict with a `kind`: start, step, eval, domains, commit, note, done; its keys are what rank 0 reports.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from distpre.runtime.folder import replace_text

Record = Mapping[str, Any]
FILES = {"step": "metrics.jsonl", "eval": "eval.jsonl", "domains": "eval.jsonl"}


class Reporter:
    """Appends step records to metrics.jsonl and evaluations to eval.jsonl, one JSON object a line, each with `time`.

    A figure that is not finite is written as null. On a resume from `resumed_step` (None: from the beginning) the lines
    of later steps are cut first, so that each step stands once.
    """

    def __init__(self, run_dir: str | Path, resumed_step: int | None):
        self.files = {}
        for kind, name in FILES.items():
            path = Path(run_dir, name)
            cut_after(path, resumed_step or 0)
            self.files[kind] = open(path, "a", buffering=1)  # held for the length of the run

    def write(self, record: Record) -> None:
        """Records of other kinds are for the screen only."""
        if record["kind"] in self.files:
            line = {"time": round(time.time(), 3), **{k: v for k, v in record.items() if k != "kind"}}
            self.files[record["kind"]].write(json.dumps(_finite(line), allow_nan=False) + "\n")

    def close(self) -> None:
        for file in self.files.values():
            file.close()


def cut_after(path: Path, step: int) -> None:
    """Removes the lines of steps beyond `step`, and a line that a crash left unfinished."""
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if (at := _step_of(line)) is not None and at <= step]
    if kept != lines:
        replace_text(path, "".join(kept))


class Screen:
    """Shows records: a live line on a terminal, plain lines elsewhere; the full table at the end, and what is where.

    command: what the user typed; the final block says how it goes on from there.
    """

    def __init__(self, command: str | None = None, console: Console | None = None):
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.command = command
        self.tables: Record | None = None
        self.began: tuple[float, int] | None = None  # when, at which step: of the first stage, the first set of workers
        self._live = Live(console=self.console, transient=True, auto_refresh=False)

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, record: Record) -> None:
        match record["kind"]:
            case "start":
                self.began = self.began or (time.monotonic() - record["seconds"], record["resumed_from"] or 0)
                self.say(start_line(record))
            case "step" if self.console.is_terminal:
                self._live.update(Text(step_line(record), no_wrap=True, overflow="ellipsis"), refresh=True)
            case "step":
                self.say(step_line(record))
            case "eval":
                self.tables = record["tables"]
                self.say(f"evaluation at step {record['step']}: {_short(self.tables)}")
            case "domains":
                self._show_matrix(record)
            case "commit":
                seconds, waited = record["seconds"], record["waited"]
                self.say(f"committed step {record['step']} in {seconds:.1f} s, {waited:.2f} s of them training's")
            case "note":
                self.say(record["text"])
            case "done":
                self._finish(record)

    def _show_matrix(self, record: Record) -> None:
        """That of the first measure; the others stand in eval.jsonl."""
        measure, rows = next(iter(record["matrix"].items()))
        self.console.print(matrix_table(measure, rows))
        figures = ", ".join(
            f"{name.replace('_', ' ')} {value:.3f}" for name, value in record["summary"][measure].items()
        )
        self.say(f"after {record['stage']}: {figures}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(Text(text))

    def _finish(self, record: Record) -> None:
        self._live.stop()
        if self.tables:
            self.console.print(results(self.tables))
        (began, first), steps = self.began, record["step"]
        here, taken = f", the last {steps - first} of them" if first else "", duration(time.monotonic() - began)
        self.say(f"\nfinished {steps} steps{here} in {taken}; everything is in {record['run_dir']}")
        if self.command:
            self.say(f"train further:  {self.command} train.steps={2 * steps}")


def start_line(record: Record) -> str:
    """The plan as rank 0 built it, and where training begins."""
    origin = record["resumed_from"]
    stage = f"stage {record['stage']}: " if record.get("stage") else ""
    return (
        f"{stage}{record['workers']} worker{'s' * (record['workers'] != 1)} on {record['device']}, "
        f"global batch {record['batch']:,}, {record['of']:,} steps, parameters: {_figure(record['parameters'])}; "
        f"ready in {record['seconds']:.1f} s, " + (f"resumed from step {origin}" if origin else "from the beginning")
    )


def step_line(record: Record) -> str:
    """step, loss, scale, lr, samples/s, data wait, samples seen, memory, time left: whatever of them the record has."""
    parts = [f"step {record['step']}/{record['of']}"]
    shown = {
        "loss": lambda v: f"loss {_figure(v)}",
        "scale": lambda v: f"scale {_figure(v)}",
        "lr": lambda v: f"lr {v:.2e}",
        "samples_per_second": lambda v: f"{v:,.0f} samples/s",
        "data_wait": lambda v: f"data wait {v:.0%}",
        "samples": lambda v: f"{v:,} seen",
        "memory_bytes": lambda v: f"{v / 2**20:,.0f} MiB",
        "eta_seconds": lambda v: f"{duration(v)} left",
    }
    return "  ".join(parts + [form(record[key]) for key, form in shown.items() if record.get(key) is not None])


def results(tables: Record) -> Table:
    """All tables of an evaluation as one. A row of `tables` is (name, value, n, low, high)."""
    table = Table("table", "measure", "value", "n")
    for name, rows in tables.items():
        for measure, value, n, low, high in rows:
            bounds = "" if low is None else f"  [{low:.4f}, {high:.4f}]"
            table.add_row(name, measure, f"{value:.4f}{bounds}", f"{n:,}")
        table.add_section()
    return table


def matrix_table(measure: str, rows: Mapping[str, Mapping[str, float]]) -> Table:
    """{model: {domain: value}}: a row a model, a column a domain."""
    domains = list(next(iter(rows.values())))
    table = Table("after", *domains, title=measure)
    for model, values in rows.items():
        table.add_row(model, *(f"{values[domain]:.3f}" for domain in domains))
    return table


def duration(seconds: float) -> str:
    """1:02:03, 2:03 or 4.5 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _short(tables: Record) -> str:
    return "; ".join(
        f"{name} " + ", ".join(f"{measure} {value:.3f}" for measure, value, *_ in rows) for name, rows in tables.items()
    )


def _figure(value: Any) -> str:
    """A number in four digits; several by name."""
    if isinstance(value, Mapping):
        return " ".join(f"{k} {_figure(v)}" for k, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _step_of(line: str) -> int | None:
    try:
        return json.loads(line)["step"] if line.endswith("\n") else None
    except (ValueError, KeyError, TypeError):
        return None
