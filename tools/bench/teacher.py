"""What a teacher costs: update steps of a recipe's last stage and of a variant's in turn, on the same batches.

    python -m tools.bench teacher [RECIPE] [VARIANT]

One process. Between the two lies the teacher's forward pass, which a cache of its embeddings would save (where views
draw nothing at random), and the terms that ask it, which it would not.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from distpre.recipe import load, prepare
from distpre.recipe.stages import stages
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
    plain, batches = contestant(arguments.recipe)
    taught, _ = contestant(f"{arguments.recipe}:{arguments.variant}")
    engine = taught[0]

    @torch.no_grad()
    def asked(batch: Batch) -> None:
        engine({name: batch.views[view] for name, view in engine.model.taught.items()})

    parts = {"plain": stepping(*plain), "with teacher": stepping(*taught), "teacher's forward": asked}
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(arguments.steps + 2):
        batch = batches[number % len(batches)].to(engine.device)
        for name, part in parts.items():  # in turn, so that a busy machine is as unkind to each
            taken = timed(part, batch)
            seconds[name] += [taken] if number > 1 else []
    show(seconds, 4 * sum(p.numel() for p in engine.model.teachers.parameters()))
    return 0


def contestant(path: str) -> tuple[tuple, list[Batch]]:
    """(engine, objective) of a recipe's last stage, and its first batches."""
    recipe = load(path, ["launch.workers=1", "data.workers=0", "train.zero=0"])
    stage = stages(recipe)[-1]
    source, views = build.source(stage.recipe, "train", print), build.views(stage.recipe)
    loader = build.loader(stage.recipe, source, views, batch=recipe.train.batch)
    batches = list(itertools.islice(loader.batches(), 4))
    return (build.engine(stage, build.model(stage.recipe)), build.objective(stage.recipe)), batches


def stepping(engine: Engine, objective: Callable) -> Callable[[Batch], None]:
    return lambda batch: update(engine, objective, batch, index=engine.first, seed=0)


def timed(part: Callable[[Batch], None], batch: Batch) -> float:
    began = time.perf_counter()
    part(batch)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def show(seconds: dict[str, list[float]], weights: int) -> None:
    table = Table("a step", "ms, median", "of plain, median", title=f"{len(seconds['plain'])} steps of each in turn")
    for name, its in seconds.items():
        ratio = median(mine / plain for mine, plain in zip(its, seconds["plain"], strict=True))
        table.add_row(name, f"{1e3 * median(its):.1f}", f"{ratio:.2f}x")
    Console().print(table)
    share = median(a / b for a, b in zip(seconds["teacher's forward"], seconds["with teacher"], strict=True))
    print(
        f"the teacher's weights: {weights / 2**20:.1f} MiB; a cache of what it says would save {share:.0%} of a step"
    )
