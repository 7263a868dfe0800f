"""A run: everything the loop needs, built once, in order, and resumed from the newest commit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from distpre.errors import CheckpointError
from distpre.objectives.objective import StepResult
from distpre.recipe import Recipe
from distpre.runtime import build, commit, group
from distpre.runtime.evaluation import Evaluation, record
from distpre.runtime.folder import RunFolder
from distpre.runtime.report import Reporter
from distpre.types import Batch

Sink = Callable[[dict[str, Any]], None]


class Run:
    """One process's part of a run. `step` is the number of updates done; the loader's cursor stands at step · batch.

    Building it checks everything and writes nothing; open() takes the run folder and resumes.
    """

    def __init__(self, recipe: Recipe, sink: Sink, stop: Callable[[], str | None]):
        self.recipe, self.stop, self.started = recipe, stop, time.monotonic()
        self.folder = RunFolder(recipe.run.dir)
        self.sink: Sink = sink if group.rank() == 0 else lambda record: None
        self.reporter: Reporter | None = None
        views = build.views(recipe)
        source = build.source(recipe, "train", self.note)
        model = build.model(recipe)  # before the loader: its processes are forked, with the libraries imported
        self.loader = build.loader(
            recipe, source, views, batch=recipe.train.batch, note=self.note, quarantine=self.quarantine
        )
        self.engine = build.engine(recipe, model)
        self.objective = build.objective(recipe)
        self.evaluation = None
        if recipe.evaluate:
            self.evaluation = Evaluation.of(recipe, self.engine.wrapped, views, self.note, alive=stop)
        self.step = self.evaluated = self.committed = 0

    def open(self) -> None:
        """Takes the run folder for this run and goes on from its newest commit. Raises CheckpointError."""
        if group.rank() == 0:
            self.folder.claim()
            self.folder.write(self.recipe.dump(), {"workers": group.world_size()})
        group.wait_for_all()
        self.step = self.evaluated = self.committed = self._resume()
        if group.rank() == 0:
            self.reporter = Reporter(self.recipe.run.dir, self.step)
        self.meter = Meter(self.recipe.train.batch, self.recipe.train.steps, self.step)
        self.engine.model.register_forward_hook(lambda *_: self.meter.embedded())

    def _resume(self) -> int:
        """Takes up the newest commit, if there is one; returns the step to go on from."""
        found = commit.newest(self.recipe.run.dir)
        if found is not None:
            state = commit.load(found, self.engine)
            try:
                self.loader.load_state_dict(state["data"])
            except KeyError as e:
                raise CheckpointError(
                    f"{found.path}: its data state is of another version of distpre (it has no {e}).",
                    "Go on with that version, or train in a new run.dir.",
                ) from e
        step = found.step if found else 0
        towers = {name: self.engine.parameters_of(name) for name in self.recipe.towers}
        self.record(
            "start",
            resumed_from=step or None,
            of=self.recipe.train.steps,
            batch=self.recipe.train.batch,
            workers=group.world_size(),
            device=str(self.engine.device),
            parameters=towers,
            seconds=time.monotonic() - self.started,
        )
        return step

    def batches(self) -> Iterator[Batch]:
        """This rank's parts of the global batches, from the cursor to the recipe's last step."""
        stream = self.loader.batches()
        while self.step < self.recipe.train.steps:
            self.meter.waits()
            batch = next(stream)
            self.meter.goes_on()
            yield batch

    def advance(self, batch: Batch, result: StepResult) -> None:
        """The step counts: moves the data cursor and, every `log_every` steps, reports."""
        self.loader.consumed(batch)
        self.step += 1
        if self.due(self.recipe.train.log_every) or self.step == 1:
            self.record("step", **self.meter.figures(self.step), **averaged(result), **self.engine.figures())

    def due(self, every: int) -> bool:
        return self.step % every == 0

    def evaluate(self) -> None:
        if self.evaluation is not None:
            self.emit(record(self.step, self.evaluation.run()))
            self.evaluated = self.step

    def commit(self) -> None:
        began = time.monotonic()
        kept = commit.save(
            self.recipe.run.dir,
            self.engine,
            step=self.step,
            state={"data": self.loader.state_dict()},
            keep=self.recipe.train.keep,
        )
        self.committed = self.step
        self.record("commit", step=self.step, seconds=time.monotonic() - began, path=str(kept.path))

    def finish(self) -> None:
        """The last evaluation and commit, where the intervals did not fall on the last step."""
        if self.evaluated != self.step or not self.meter.moved(self.step):
            self.evaluate()
        if self.committed != self.step:
            self.commit()
        self.record("done", step=self.step, run_dir=self.recipe.run.dir, seconds=time.monotonic() - self.started)

    def note(self, text: str) -> None:
        self.record("note", text=text)

    def quarantine(self, line: dict[str, Any]) -> None:
        """A sample that could not be read: every rank appends its own lines to the ledger."""
        with open(Path(self.recipe.run.dir, "quarantine.jsonl"), "a") as ledger:
            ledger.write(json.dumps(line) + "\n")

    def record(self, kind: str, **facts: Any) -> None:
        self.emit({"kind": kind, **facts})

    def emit(self, record: dict[str, Any]) -> None:
        """To the run's files, and to whoever watches; rank 0's only."""
        if self.reporter is not None:
            self.reporter.write(record)
        self.sink(record)

    def close(self) -> None:
        self.loader.close()
        if self.evaluation is not None:
            self.evaluation.close()
        self.folder.release()
        if self.reporter is not None:
            self.reporter.close()


class Meter:
    """Speed since the last report: samples a second, share of the time spent waiting for data, time to go."""

    def __init__(self, batch: int, of: int, step: int):
        self.batch, self.of, self.first = batch, of, step
        self.since, self.at, self.waited = time.monotonic(), step, 0.0
        self._began_waiting = 0.0
        self.own, self._alone = 0.0, False

    def waits(self) -> None:
        self._began_waiting = time.monotonic()
        self._alone = True

    def goes_on(self) -> None:
        self.waited += time.monotonic() - self._began_waiting

    def embedded(self) -> None:
        """The first forward pass of a step is done: until here no rank waits for another (but for ZeRO-3)."""
        if self._alone:
            self._alone = False
            self.own += time.monotonic() - self._began_waiting

    def moved(self, step: int) -> bool:
        return step > self.first

    def figures(self, step: int) -> dict[str, Any]:
        now = time.monotonic()
        seconds = max(now - self.since, 1e-9)
        speed = (step - self.at) * self.batch / seconds
        share = self.waited / seconds
        slowest = of_all_ranks(self.own / max(step - self.at, 1))
        self.since, self.at, self.waited, self.own = now, step, 0.0, 0.0
        return {
            "step": step,
            "of": self.of,
            "samples": step * self.batch,
            "samples_per_second": speed,
            "data_wait": share,
            "slowest": slowest,
            "eta_seconds": (self.of - step) * self.batch / max(speed, 1e-9),
        }


def of_all_ranks(seconds: float) -> dict[str, float]:
    """The rank that takes longest alone in a step, its seconds and the median rank's; every rank calls it."""
    every = group.gathered(torch.tensor([seconds], dtype=torch.float64, device=group.device()))
    return {"rank": int(every.argmax()), "seconds": float(every.max()), "median": float(every.median())}


def averaged(result: StepResult) -> dict[str, Any]:
    """The loss and every term's figures, averaged over ranks; every rank calls it."""
    names = ["loss", *result.log]
    device = result.loss.device
    values = [result.loss.detach(), *result.log.values()]
    local = torch.stack([value.to(device).double().squeeze() for value in values])
    mean = dict(zip(names, (group.total(local) / group.world_size()).tolist(), strict=True))
    scale = next((v for k, v in mean.items() if k.endswith("/scale")), None)
    return {"loss": mean.pop("loss"), "scale": scale, "terms": mean}
