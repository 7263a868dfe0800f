"""What a stage leaves behind: every domain evaluated, the matrix so far, weights, embeddings, herded samples.

stages/0-people.safetensors            the whole model at the stage's end, to evaluate or to teach from
       0-people.embeddings.safetensors at most SAMPLES of each domain, to see what later stages turn
       0-people.replay.npy             ordinals of its training samples, in the order of herding
       0-people.fisher.safetensors     Fisher information of its objective and of the stages' before
       0-people.json                   written last: the stage is over
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distpre import group
from distpre.data.source import Source
from distpre.data.subset import Subset, buffer, domain, herded, replayed
from distpre.errors import CheckpointError, DataError, DistpreError
from distpre.evaluators.forgetting import cross_angle, self_angle, summary
from distpre.recipe import Recipe
from distpre.recipe.stages import Stage
from distpre.runtime import build
from distpre.runtime.evaluation import Evaluation, FrozenTowers
from distpre.runtime.folder import replace_text
from distpre.runtime.pictures import heat_map
from distpre.types import Row
from distpre.views.pipeline import View

SAMPLES = 512  # of a domain, whose embeddings are kept
HERDED_FROM = 20_000  # a larger domain is herded from so many of it
UNTRAINED = "untrained"


def path_of(run_dir: str | Path, stage: Stage, what: str = "") -> Path:
    return Path(run_dir, "stages", f"{stage.number}-{stage.name}{what}")


def is_over(run_dir: str | Path, stage: Stage) -> bool:
    return path_of(run_dir, stage, ".json").exists()


def not_over_after(run_dir: str | Path, stages: list[Stage], step: int) -> None:
    """A run that is back at `step` closes again the stages that ended later."""
    for stage in stages:
        if stage.last > step:
            path_of(run_dir, stage, ".json").unlink(missing_ok=True)


def training_source(stages: list[Stage], number: int, run_dir: str | Path, note: Callable[[str], None]):
    """What stage `number` trains on: its source, with buffers of the earlier stages' where the recipe replays.

    Raises DataError for a buffer larger than its domain.
    """
    stage = stages[number]
    current, spec = build.training(stage.recipe, note), stage.recipe.data.replay
    if spec is None or number == 0:
        return current
    earlier = {}
    for its in stages[:number]:
        source = build.source(its.recipe, "train", note)
        size = buffer_size(its, stage, source)
        if spec.how == "herded" and is_over(run_dir, its):
            ordinals = np.load(path_of(run_dir, its, ".replay.npy"))[:size]
        else:
            order = source.order(its.recipe.seed, its.recipe.data.window)
            try:
                ordinals = buffer(source, size, its.recipe.seed, order, _slots(its))
            except DataError as e:
                what = f"data.replay, of the stage {its.name!r}: {e.what.removeprefix('data: ')}"
                raise DataError(what, e.remedy) from e
        earlier[its.name] = source, ordinals
    return replayed(current, earlier, spec.weight)


def check_stages(stages: list[Stage], number: int, run_dir: str | Path, note: Callable[[str], None]) -> None:
    """Raises, before training, what a later stage's data or teachers would raise. number: of the stage that comes."""
    for stage in stages[1:]:
        with told_of(stage):
            training_source(stages, stage.number, run_dir, note)
            if stage.number > number:
                _check_teachers(stage.recipe, run_dir)
    for stage in stages:
        if evaluate := stage.recipe.evaluate:
            source = build.source(stage.recipe, evaluate.data, note)
            for name, where in evaluate.domains.items():
                try:
                    domain(source, where)
                except DataError as e:
                    raise DataError(f"evaluate.domains.{name}: {e.what.removeprefix('data: ')}", e.remedy) from e


def _check_teachers(recipe: Recipe, run_dir: str | Path) -> None:
    """Files of weights, other than those that the run itself will have written by then, must be there and fit."""
    files = {name: getattr(teaching, "weights", None) for name, teaching in build.teachings(recipe).items()}
    own = Path(run_dir).resolve()
    others = {name for name, file in files.items() if file and not Path(file).resolve().is_relative_to(own)}
    if others:
        with torch.random.fork_rng(devices=[]):
            build.begin_teachers(build.model(recipe, fresh=False), others.__contains__)


@contextlib.contextmanager
def told_of(stage: Stage) -> Iterator[None]:
    """In it, an error says which stage it is of."""
    try:
        yield
    except DistpreError as e:
        if not stage.name:
            raise
        raise type(e)(f"stages.{stage.number} ({stage.name}): {e.what}", e.remedy) from e


def wants_fisher(stages: list[Stage], number: int) -> bool:
    """Whether a later stage is held by what stage `number` leaves."""
    return any(its.around for stage in stages[number + 1 :] for its in build.teachings(stage.recipe).values())


def fisher_before(run_dir: str | Path, stages: list[Stage], stage: Stage, model: nn.Module) -> dict[str, Tensor]:
    """The stage before's Fisher information, by the names that it has in the model's teachers `fisher`.

    Raises CheckpointError where the stage before left none.
    """
    teachers = [name for name, teacher in model.teachers.items() if teacher.teaching.around]
    if not teachers or stage.number == 0:
        return {}
    path = path_of(run_dir, stages[stage.number - 1], ".fisher.safetensors")
    if not path.exists():
        what = f"{path} is not there: the stage before ended under a recipe without the teacher {teachers[0]!r}."
        raise CheckpointError(what, "Train in a new run.dir.")
    names = [f"teachers.{name}.{weight}" for name in teachers for weight, _ in model.teachers[name].named_parameters()]
    kept = load_file(path)
    known = {name: f"towers.{name.split('.', 2)[2]}" for name in names}
    return {name: kept[weight] for name, weight in known.items() if weight in kept}  # not those that never trained


def buffer_size(of: Stage, for_: Stage, source: Source | Subset) -> int:
    spec = for_.recipe.data.replay
    return spec.samples or max(1, round(spec.share * len(source)))


def _slots(stage: Stage) -> int:
    """Slots of its own data that a stage had: replayed ones are not counted."""
    spec, slots = stage.recipe.data.replay, (stage.last - stage.first) * stage.recipe.train.batch
    return int(slots * (1 - spec.weight)) if spec and stage.number else slots


class Domains:
    """The domains of a stage's `evaluate`, each through all of its tables."""

    def __init__(
        self,
        stages: list[Stage],
        stage: Stage,
        model: nn.Module,
        views: dict[str, View],
        note: Callable[[str], None],
        alive: Callable[[], object],
    ):
        self.stages, self.stage, self.recipe, self.note, self.alive = stages, stage, stage.recipe, note, alive
        self.run_dir, self.views = stage.recipe.run.dir, views
        self.towers = FrozenTowers(model, views, stage.recipe.evaluate.batch if stage.recipe.evaluate else 256)

    def untrained(self) -> dict[str, Any] | None:
        """The record of the model before its first update."""
        return self._record(UNTRAINED, 0, [])

    def close_stage(
        self, step: int, weights: Path, records: list[dict[str, Any]], fisher: dict[str, Tensor]
    ) -> dict[str, Any] | None:
        """Writes what the stage leaves, the mark that it is over last. records: of the stages before; fisher: its own.

        Returns the record of the domains, None where the recipe names none; every rank calls it.
        """
        record = self._record(self.stage.name, step, records)
        if group.rank() == 0:
            Path(self.run_dir, "stages").mkdir(exist_ok=True)
        self._herd()
        if group.rank() == 0:
            kept = path_of(self.run_dir, self.stage, ".safetensors")
            kept.unlink(missing_ok=True)
            kept.hardlink_to(weights)
            if fisher:
                before = path_of(self.run_dir, self.stages[self.stage.number - 1], ".fisher.safetensors")
                earlier = load_file(before) if self.stage.number and before.exists() else {}
                every = earlier | {name: f + earlier.get(name, 0) for name, f in fisher.items()}
                save_file(every, path_of(self.run_dir, self.stage, ".fisher.safetensors"))
            if record is not None:
                self._draw(record)
            replace_text(path_of(self.run_dir, self.stage, ".json"), json.dumps({"step": step}) + "\n")
        group.wait_for_all()
        return record

    def _record(self, name: str, step: int, records: list[dict[str, Any]]) -> dict[str, Any] | None:
        evaluate = self.recipe.evaluate
        if evaluate is None or not evaluate.domains:
            return None
        tables: dict[str, dict[str, list[Row]]] = {}
        vectors: dict[str, Tensor] = {}
        for domain_name, where in evaluate.domains.items():
            evaluation = Evaluation.of(self.recipe, self.towers.model, self.views, self.note, self.alive, where=where)
            try:
                tables[domain_name] = evaluation.run()
                embedded = evaluation.embeddings(SAMPLES)
            finally:
                evaluation.close()
            vectors |= {f"{domain_name}/{view}": x for view, x in embedded.items()}
        rows = {d: {t: [list(astuple(r)) for r in its] for t, its in each.items()} for d, each in tables.items()}
        record = {"kind": "domains", "step": step, "stage": name, "domains": rows}
        before = [*records, record]
        record["matrix"] = matrices(before)
        record["summary"] = {measure: summary(m, UNTRAINED) for measure, m in record["matrix"].items()}
        record["angles"] = self._angles(vectors)
        if group.rank() == 0:
            folder = Path(self.run_dir, "stages")
            folder.mkdir(exist_ok=True)
            save_file(vectors, self._embeddings_of(name))
        group.wait_for_all()
        return record

    def _angles(self, vectors: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        """{domain/view: degrees since the stage before, and since the domain was learned}."""
        before = [UNTRAINED, *(s.name for s in self.stages[: self.stage.number])]
        found: dict[str, dict[str, float]] = {}
        for key, now in vectors.items():
            learned = key.split("/")[0]
            since = {"stage": before[-1]} | ({"learned": learned} if learned in before else {})
            for kind, name in since.items():
                path = self._embeddings_of(name)
                if not path.exists():
                    continue
                then = load_file(path)[key]
                found.setdefault(key, {})[f"self_since_{kind}"] = self_angle(then, now)
                found[key][f"cross_since_{kind}"] = cross_angle(then, now)
        return found

    def _embeddings_of(self, name: str) -> Path:
        if name == UNTRAINED:
            return Path(self.run_dir, "stages", "untrained.embeddings.safetensors")
        stage = next(s for s in self.stages if s.name == name)
        return path_of(self.run_dir, stage, ".embeddings.safetensors")

    def _herd(self) -> None:
        """Ordinals of this stage's samples for the stages after it that replay herded ones."""
        later = [s for s in self.stages[self.stage.number + 1 :] if s.recipe.data.replay]
        later = [s for s in later if s.recipe.data.replay.how == "herded"]
        if not later:
            return
        source = build.source(self.recipe, "train", self.note)
        size = max(buffer_size(self.stage, s, source) for s in later)
        order = source.order(self.recipe.seed, self.recipe.data.window)
        most = min(max(size, HERDED_FROM), len(source), _slots(self.stage))
        ordinals = buffer(source, most, self.recipe.seed, order, _slots(self.stage))
        views = [view for tower in self.recipe.towers.values() for view in tower.views]
        loader = build.loader(self.recipe, Subset(source, ordinals), self.views, batch=self.towers.chunk)
        self.towers.model.eval()
        try:
            parts = [torch.cat([self.towers.batch(b, *views)[v] for v in views], 1) for b in self._once(loader)]
            rows = torch.cat([group.gathered(part).cpu() for part in parts])
        finally:
            self.towers.model.train()
            loader.close()
        if group.rank() == 0:
            np.save(path_of(self.run_dir, self.stage, ".replay.npy"), ordinals[herded(rows.numpy(), size)])

    def _once(self, loader):
        for batch in loader.once():
            self.alive()
            yield batch

    def _draw(self, record: dict[str, Any]) -> None:
        measure, rows = next(iter(record["matrix"].items()))
        try:
            heat_map(Path(self.run_dir, "stages", "matrix.png"), rows, measure)
        except DistpreError as e:
            self.note(str(e))


def matrices(records: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """{"table measure": {model: {domain: value}}} of records in the order of training."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for record in records:
        for name, tables in record["domains"].items():
            for table, rows in tables.items():
                for measure, value, *_ in rows:
                    found.setdefault(f"{table} {measure}", {}).setdefault(record["stage"], {})[name] = value
    return found


def earlier_records(run_dir: str | Path, stages: list[Stage], stage: Stage) -> list[dict[str, Any]]:
    """Those of the untrained model and of the stages before, out of eval.jsonl."""
    path, found = Path(run_dir, "eval.jsonl"), {}
    for line in path.read_text().splitlines() if path.exists() else ():
        record = json.loads(line)
        if "domains" in record:
            found[record["stage"]] = record
    names = [UNTRAINED, *(s.name for s in stages[: stage.number])]
    return [found[name] for name in names if name in found]
