"""A run: everything that the loop needs for a stage, built once, in order, and resumed from the newest commit."""

from __future__ import annotations

import gc
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distpre import group
from distpre.errors import CheckpointError, NumericError
from distpre.objectives.objective import StepResult
from distpre.recipe import Recipe
from distpre.recipe.stages import Stage, stages
from distpre.runtime import build, commit
from distpre.runtime.commit import Commit
from distpre.runtime.committer import Committer
from distpre.runtime.domains import (
    Domains,
    check_stages,
    earlier_records,
    fisher_before,
    is_over,
    not_over_after,
    told_of,
    training_source,
    wants_fisher,
)
from distpre.runtime.evaluation import Evaluation, record
from distpre.runtime.fisher import information
from distpre.runtime.folder import RunFolder
from distpre.runtime.plan import layouts
from distpre.runtime.remembered import Remembered
from distpre.runtime.report import FILES, Reporter
from distpre.runtime.update import NOT_FINITE
from distpre.towers.model import Model
from distpre.towers.teachers import previous_weights
from distpre.towers.weights import fill
from distpre.types import Batch, Memory

SKIPS = 20  # in a row that train.on_nan=skip bears: weights that are not finite never mend
SHOWN = 4  # samples, and ranks, that a message names
Sink = Callable[[dict[str, Any]], None]


def runs(recipe: Recipe, folder: RunFolder, sink: Sink, stop: Callable[[], str | None]) -> Iterator[Run]:
    """A run of each stage in turn, from the one that the newest commit belongs to."""
    all_, checked = stages(recipe), False
    tell = sink if group.rank() == 0 else lambda record: None
    while True:
        found, damaged = commit.newest_whole(recipe.run.dir, lambda text: tell({"kind": "note", "text": text}))
        step = found.step if found else 0
        stage = next((s for s in all_ if step < s.last or (step == s.last and not is_over(folder.path, s))), all_[-1])
        with told_of(stage):
            run = Run(recipe, stage.number, found, damaged, folder, tell, stop)
        if not checked:
            check_stages(all_, stage.number, recipe.run.dir, run.note)
            checked = True
        yield run
        if stage is all_[-1]:
            return
        del run
        gc.collect()  # the engine that it had, before the next one is built


class Run:
    """One process's part of a stage. `step` is the number of updates done in the whole run.

    Building it checks everything and writes nothing; open() takes the run folder and resumes, or begins the stage with
    the weights of the stage before.
    """

    def __init__(
        self,
        recipe: Recipe,
        number: int,
        found: Commit | None,
        damaged: list[Commit],
        folder: RunFolder,
        sink: Sink,
        stop: Callable[[], str | None],
    ):
        self.whole, self.stages, self.folder = recipe, stages(recipe), folder
        self.found, self.damaged = found, damaged
        self.stage = self.stages[number]
        self.recipe, self.stop, self.started = self.stage.recipe, stop, time.monotonic()
        self.sink = sink
        self.reporter: Reporter | None = None
        views = build.views(self.recipe)
        source = training_source(self.stages, number, folder.path, self.note)
        build.check_cached(self.recipe, source, views)
        model = self._model()  # before the loader: its processes are forked, with the libraries imported
        self.loader = build.loader(
            self.recipe,
            source,
            {name: views[name] for name in self.recipe.trained_views()},
            batch=self.recipe.train.batch,
            pairing=build.pairing(self.recipe),
            note=self.note,
            quarantine=self.quarantine,
        )
        self.remembered = Remembered(self.recipe, self.loader, self.note)
        self.engine = build.engine(self.stage, model)
        self.objective = build.objective(self.recipe)
        self.evaluation = None
        if self.recipe.evaluate:
            self.evaluation = Evaluation.of(self.recipe, self.engine.wrapped, views, self.note, alive=stop)
        self.domains = Domains(self.stages, self.stage, self.engine.wrapped, views, self.note, stop)
        self.committer = Committer(recipe.run.dir, self.recipe.train.keep)
        self.step = self.evaluated = self.committed = self.skipped = 0

    @property
    def begins(self) -> bool:
        """Whether the stage is at its beginning."""
        return self.found is None or self.found.step == self.stage.first

    def _model(self) -> Model:
        """At a stage's beginning the towers are the stage's before, and teachers take their weights."""
        model = build.model(self.recipe, fresh=self.found is None)
        if self.begins and self.found is not None:
            weights = {name: w for name, w in self.found.weights().items() if not name.startswith("teachers.")}
            student = nn.ModuleDict({"towers": model.towers, "scales": model.scales})
            fill(student, weights, f"{self.found.path} does not fit the towers of stage {self.stage.name!r}")
        if self.begins:
            build.begin_teachers(model)
            model.load_state_dict(fisher_before(self.folder.path, self.stages, self.stage, model), strict=False)
        return model

    def open(self) -> None:
        """Takes the run folder for this run and goes on from its newest commit. Raises CheckpointError."""
        if group.rank() == 0:
            self.folder.claim()
            if commit.newest(self.folder.path) != next(iter(self.damaged), self.found):
                what = f"run.dir={self.folder.path}: another process committed while this one was being built."
                raise CheckpointError(what, "Start again.")
            commit.set_aside(self.damaged)
            self.folder.write(self.whole.dump(), {"workers": group.world_size()})
            if self.found is None:
                shutil.rmtree(self.folder.path / "stages", ignore_errors=True)
            else:
                not_over_after(self.folder.path, self.stages, self.found.step)
        group.wait_for_all()
        self.step = self.evaluated = self.committed = self._resume()
        if group.rank() == 0:
            self.reporter = Reporter(self.recipe.run.dir, self.step)
        for name, (laid, _, _) in layouts(self.recipe, self.engine.wrapped, group.ranks_a_node()).items():
            self.note(f"contrast {name} of {group.world_size()} ranks as {laid}")
        self.meter = Meter(self.stage, self.stages[-1].last, self.step)
        if self.begins and self.stage.name and self.stage.number == 0 and (record := self.domains.untrained()):
            self.emit(record)
        self.engine.model.register_forward_hook(lambda *_: self.meter.embedded())

    def _resume(self) -> int:
        """Takes up the newest commit, if there is one; returns the step to go on from."""
        if self.found is not None and not self.begins:
            state = commit.load(self.found, self.engine, self._memories())
            try:
                self.loader.load_state_dict(state["data"])
            except KeyError as e:
                raise CheckpointError(
                    f"{self.found.path}: its data state is of another version of distpre (it has no {e}).",
                    "Go on with that version, or train in a new run.dir.",
                ) from e
        elif self.found is not None and not self.stage.restart:
            commit.load(self.found, self.engine)
            fisher = fisher_before(self.folder.path, self.stages, self.stage, self.engine.model)
            self.engine.assign(previous_weights(self.engine.model, self.found.weights()) | fisher)
        step = self.found.step if self.found else 0
        towers = {name: self.engine.parameters_of(name) for name in self.recipe.towers}
        self.record(
            "start",
            resumed_from=step or None,
            of=self.stages[-1].last,
            stage=self.stage.name or None,
            batch=self.recipe.train.batch,
            workers=group.world_size(),
            device=str(self.engine.device),
            parameters=towers,
            seconds=time.monotonic() - self.started,
        )
        return step

    def _memories(self) -> dict[str, Memory]:
        return self.remembered.memories | self.objective.memories

    def batches(self) -> Iterator[Batch]:
        """This rank's parts of the global batches, from the cursor to the stage's last step."""
        stream = self._stream()
        while self.step < self.stage.last:
            self.meter.waits()
            batch = next(stream)
            self.meter.goes_on()
            yield batch

    def _stream(self) -> Iterator[Batch]:
        for batch in self.loader.batches():
            self.remembered.weigh(batch)
            yield batch

    def advance(self, batch: Batch, result: StepResult) -> None:
        """The step counts: moves the data cursor and, every `log_every` steps, reports. Raises NumericError."""
        self.skipped = self.skipped + 1 if result.skipped else 0
        if result.skipped:
            self._not_finite(batch, result)
        self.loader.consumed(batch)
        result.log |= {k: torch.tensor(v) for k, v in self.remembered.observe(batch, result).items()}
        self.step += 1
        if self.committer.is_written():
            self.settle()
        if self.due(self.recipe.train.log_every) or self.step == 1:
            self.record("step", **self.meter.figures(self.step), **averaged(result), **self.engine.figures())

    def _not_finite(self, batch: Batch, result: StepResult) -> None:
        """Tells which term it is, on which ranks and of which samples; every rank calls it."""
        ordinals = result.suspects or batch.ordinal.tolist()
        keys = ", ".join(self.loader.source.where(ordinal)[2] for ordinal in ordinals[:SHOWN])
        more = f" and {len(ordinals) - SHOWN} more" if len(ordinals) > SHOWN else ""
        terms = ", ".join(f"{name} is {value}" for name, value in result.broken.items())
        said = f"{terms} on rank {group.rank()} (samples {keys}{more})" if terms else ""
        every = [its for its in group.from_all((said, bool(result.suspects))) if its[0]]
        every = [its for its in every if its[1]] or every  # the other ranks only contrast with these
        text = f"The loss of step {self.step + 1} is not finite: {'; '.join(said for said, _ in every[:SHOWN])}."
        if self.recipe.train.on_nan == "stop" or self.skipped == SKIPS:
            again = f" {SKIPS} steps in a row were." if self.skipped == SKIPS else ""
            raise NumericError(text + again, f"{NOT_FINITE} train.on_nan=skip passes single steps over.")
        self.note(f"{text} No weight was changed.")

    def due(self, every: int) -> bool:
        return self.step % every == 0

    def evaluate(self) -> None:
        if self.evaluation is not None:
            self.emit(record(self.step, self.evaluation.run()))
            self.evaluated = self.step

    def commit(self, *, final: bool = False) -> None:
        """Commits in the background. One that cannot be written is noted and training goes on to the next: what could
        be lost is work that is not done yet. A final one (of a stage or before a stop) is waited for, and raises
        CheckpointError.
        """
        self.settle()
        state = {"data": self.loader.state_dict()}
        try:
            self.committer.begin(self.engine, self.step, state, self._memories())
        except CheckpointError as e:
            if final:
                raise
            self._go_on_without(e)
        if final:
            self.settle(final=True)

    def settle(self, *, final: bool = False) -> None:
        """Waits for the commit in flight, if there is one, and tells of it."""
        try:
            written = self.committer.settle()
        except CheckpointError as e:
            if final:
                raise
            self._go_on_without(e)
            return
        if written is not None:
            self.committed, path = written.commit.step, str(written.commit.path)
            self.record("commit", step=self.committed, seconds=written.seconds, waited=written.waited, path=path)

    def _go_on_without(self, why: CheckpointError) -> None:
        self.note(f"{why} Training goes on from step {self.step} and commits again when the next one is due.")

    def finish(self) -> None:
        """The last evaluation and commit, where the intervals did not fall on the last step; what the stage leaves."""
        if self.evaluated != self.step or not self.meter.moved(self.step):
            self.evaluate()
        self.settle()
        if self.committed != self.step:
            self.commit(final=True)
        if self.stage.name and not is_over(self.folder.path, self.stage):
            first = group.rank() == 0
            records = earlier_records(self.folder.path, self.stages, self.stage) if first else []
            records = group.from_rank_zero(records)
            weights = commit.newest(self.folder.path).path / commit.WEIGHTS
            if record := self.domains.close_stage(self.step, weights, records, self._fisher()):
                self.emit(record)
        if self.stage is self.stages[-1]:
            self.record("done", step=self.step, run_dir=self.recipe.run.dir)

    def _fisher(self) -> dict[str, Tensor]:
        """What holds later stages, of one pass over the data, or of as many steps as the stage had."""
        if not wants_fisher(self.stages, self.stage.number):
            return {}
        steps = min(len(self.loader.source) // self.recipe.train.batch, self.stage.last - self.stage.first)
        batches = itertools.islice(self._stream(), max(1, steps))
        return information(self.engine, self.objective, batches, index=self.step - 1, seed=self.recipe.seed)

    def note(self, text: str) -> None:
        self.record("note", text=text)

    def quarantine(self, line: dict[str, Any]) -> None:
        """A sample that could not be read: every rank appends its own lines to the ledger."""
        try:
            with open(Path(self.recipe.run.dir, "quarantine.jsonl"), "a") as ledger:
                ledger.write(json.dumps(line) + "\n")
        except OSError as e:  # a full disk ends a run in commit(), not here
            ledger = f"{self.recipe.run.dir}/quarantine.jsonl"
            self.note(f"A line of {ledger} could not be written ({e}): {json.dumps(line)}")

    def record(self, kind: str, **facts: Any) -> None:
        self.emit({"kind": kind, **facts})

    def emit(self, record: dict[str, Any]) -> None:
        """To the run's files, and to whoever watches; rank 0's only."""
        if self.reporter is not None:
            try:
                self.reporter.write(record)
            except OSError as e:  # a full disk ends a run in commit(), not here
                text = f"A line of {self.recipe.run.dir}/{FILES[record['kind']]} could not be written ({e})."
                self.sink({"kind": "note", "text": text})
        self.sink(record)

    def close(self) -> None:
        self.committer.close()
        self.loader.close()
        if self.evaluation is not None:
            self.evaluation.close()
        if self.reporter is not None:
            self.reporter.close()
        del self.engine, self.evaluation, self.domains  # the next stage has its own


class Meter:
    """Speed since the last report: samples a second, share of the time spent waiting for data, time to go."""

    def __init__(self, stage: Stage, of: int, step: int):
        self.stage, self.of, self.first = stage, of, step
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
        speed = (step - self.at) / seconds
        share = self.waited / seconds
        slowest = of_all_ranks(self.own / max(step - self.at, 1))
        self.since, self.at, self.waited, self.own = now, step, 0.0, 0.0
        return {
            "step": step,
            "of": self.of,
            "samples": self.stage.samples(step),
            "samples_per_second": speed * self.stage.recipe.train.batch,
            "data_wait": share,
            "slowest": slowest,
            "eta_seconds": (self.of - step) / max(speed, 1e-9),
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
