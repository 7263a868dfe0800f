"""What a teacher costs: update steps of a recipe's last stage and of a variant's in turn, on the same batches.

    python -m tools.bench teacher [RECIPE] [VARIANT]

One process. Between the two lie the teacher's forward pass, which the teacher `cached` saves (where views draw nothing
at random), and the terms that ask it, which it does not. Memory: the most that a step held at once beyond what was held
before it (weights, moments), as torch's allocator counts it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from distpre.errors import RecipeError
from distpre.recipe import Recipe, load, prepare
from distpre.recipe.check import views_of
from distpre.recipe.stages import Stage, stages
from distpre.runtime import build
from distpre.runtime.engine import Engine, join_group
from distpre.runtime.update import update
from distpre.types import Batch


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench teacher", description=__doc__.split("\n")[0])
    parser.add_argument("recipe", nargs="?", default="recipes/continual/digits.yaml")
    parser.add_argument("variant", nargs="?", default="modx")
    parser.add_argument("--steps", type=int, default=20, help="timed, of each")
    arguments = parser.parse_args(argv)
    prepare(load(arguments.recipe, ["launch.workers=1"]), print)
    join_group()
    path = f"{arguments.recipe}:{arguments.variant}"
    plain, taught, cached = (
        contestant(stage) for stage in (last_stage(arguments.recipe), last_stage(path), last_stage(path, held(path)))
    )
    engine = taught[0]
    batches = [saying(engine, batch.to(engine.device)) for batch in first_batches(last_stage(path).recipe)]
    parts = {"plain": stepping(*plain), "with teacher": stepping(*taught), "cached": stepping(*cached)}
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(arguments.steps + 2):
        for name, part in parts.items():  # in turn, so that a busy machine is as unkind to each
            taken = timed(part, batches[number % len(batches)])
            seconds[name] += [taken] if number > 1 else []
    memory = {name: peak(part, batches[0]) for name, part in parts.items()}
    show(seconds, memory, 4 * sum(p.numel() for p in engine.model.teachers.parameters()))
    return 0


def held(path: str) -> list[str]:
    """Overrides: the samples hold what the last stage's teachers say of views. Raises RecipeError without a teacher."""
    recipe, words = last_stage(path).recipe, []
    for name, teacher in recipe.teachers.items():
        facts = {view: f"{name}_{view}" for view in views_of(recipe, teacher)}
        if not facts:
            continue
        words += [f"views.{fact}={{field: {recipe.views[view].field}, ops: []}}" for view, fact in facts.items()]
        words += [f"views.{view}.eval_ops=null" for view in facts]
        words.append(f"teachers.{name}={json.dumps({'name': 'cached', 'facts': facts})}")
    if not words:
        raise RecipeError(f"{path}: its last stage has no teacher that embeds.", "Name a variant that has one.")
    return words


@torch.no_grad()
def saying(engine: Engine, batch: Batch) -> Batch:
    """The batch, with what the teachers say of it among its views."""
    said, _ = engine({name: batch.views[view] for name, view in engine.model.taught.items()})
    return replace(batch, views=batch.views | {name.replace(".", "_"): vector for name, (vector, _) in said.items()})


def last_stage(path: str, more: Sequence[str] = ()) -> Stage:
    return stages(load(path, ["launch.workers=1", "data.workers=0", "train.zero=0", *more]))[-1]


def contestant(stage: Stage) -> tuple[Engine, Callable]:
    return build.engine(stage, build.model(stage.recipe)), build.objective(stage.recipe)


def first_batches(recipe: Recipe, count: int = 4) -> list[Batch]:
    source, views = build.source(recipe, "train", print), build.views(recipe)
    loader = build.loader(recipe, source, views, batch=recipe.train.batch)
    return list(itertools.islice(loader.batches(), count))


def stepping(engine: Engine, objective: Callable) -> Callable[[Batch], None]:
    return lambda batch: update(engine, objective, batch, index=engine.first, seed=0)


def timed(part: Callable[[Batch], None], batch: Batch) -> float:
    began = time.perf_counter()
    part(batch)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def peak(part: Callable[[Batch], None], batch: Batch) -> int:
    """Bytes: the most that was held at once in a step, beyond what was held at its beginning."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        part(batch)
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would tell of its starts and stops
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        part(batch)
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


def show(seconds: dict[str, list[float]], memory: dict[str, int], weights: int) -> None:
    columns = ("a step", "ms, median", "of plain, median", "MiB, peak of a step")
    table = Table(*columns, title=f"{len(seconds['plain'])} steps of each in turn")
    for name, its in seconds.items():
        ratio = median(mine / plain for mine, plain in zip(its, seconds["plain"], strict=True))
        table.add_row(name, f"{1e3 * median(its):.1f}", f"{ratio:.2f}x", f"{memory[name] / 2**20:.1f}")
    Console().print(table)
    saved = 1 - median(a / b for a, b in zip(seconds["cached"], seconds["with teacher"], strict=True))
    print(f"the teacher's weights: {weights / 2**20:.1f} MiB; `cached` saves them, and {saved:.0%} of a step")
