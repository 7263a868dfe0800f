"""From a checked recipe to the objects of a run."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from distpre.data.loader import Loader
from distpre.data.source import Source
from distpre.errors import DataError
from distpre.objectives.objective import Objective
from distpre.recipe import Recipe
from distpre.recipe.resolve import build, schedule
from distpre.runtime import group
from distpre.runtime.engine import Engine
from distpre.towers.model import LogitScale, Model
from distpre.towers.tower import Tower
from distpre.views.pipeline import View


def model(recipe: Recipe) -> Model:
    """Towers and scales, the same weights on every rank and at every world size (seeded here)."""
    torch.manual_seed(recipe.seed)
    towers = {
        name: Tower(build(spec.encoder, "encoder"), build(spec.head, "head") if spec.head else None)
        for name, spec in recipe.towers.items()
    }
    tower_of = {view: name for name, spec in recipe.towers.items() for view in spec.views}
    scales = {name: LogitScale(s.start, s.max, s.bias, s.learn) for name, s in recipe.scales.items()}
    return Model(towers, tower_of, scales, recipe.train.precision)


def engine(recipe: Recipe, model: Model) -> Engine:
    train, optimiser = recipe.train, recipe.train.optimiser
    with compile_at_first_call():
        return Engine(
            model,
            lr=schedule(optimiser.lr),
            steps=train.steps,
            zero=train.zero,
            accumulation=recipe.accumulation(group.world_size()),
            clip=train.clip,
            weight_decay=optimiser.weight_decay,
            betas=tuple(optimiser.betas),
            eps=optimiser.eps,
        )


@contextlib.contextmanager
def compile_at_first_call() -> Iterator[None]:
    """In it, a function that is decorated with torch.compile is compiled when it is first called.

    DeepSpeed decorates one of Muon's as it is imported, which takes 3 s to import inductor, Muon or not.
    """
    compile = torch.compile

    def later(function: Callable, **options: Any) -> Callable:
        compiled: list[Callable] = []

        @functools.wraps(function)
        def call(*args: Any, **keywords: Any) -> Any:
            if not compiled:
                compiled.append(compile(function, **options))
            return compiled[0](*args, **keywords)

        return call

    def instead(model: Any = None, **options: Any) -> Any:
        if model is None:
            return lambda function: instead(function, **options)
        return compile(model, **options) if isinstance(model, torch.nn.Module) else later(model, **options)

    torch.compile = instead
    try:
        yield
    finally:
        torch.compile = compile


def objective(recipe: Recipe) -> Objective:
    return Objective({name: (build(t.component, "term"), schedule(t.weight)) for name, t in recipe.objective.items()})


def views(recipe: Recipe) -> dict[str, View]:
    def ops(components: list) -> list[Callable]:
        return [build(c, "op") for c in components]

    return {
        name: View(name, v.field, ops(v.ops), ops(v.ops if v.eval_ops is None else v.eval_ops))
        for name, v in recipe.views.items()
    }


def source(recipe: Recipe, name: str, note: Callable[[str], None]) -> Source:
    """Raises DataError naming the recipe's key."""
    spec, data = recipe.data.sources[name], recipe.data
    try:
        return Source.open(
            spec.shards, spec.fields, spec.ids, note=note, cache=data.cache, cache_bytes=data.cache_bytes
        )
    except DataError as e:
        raise DataError(f"data.{name}: {e.what.removeprefix('data: ')}", e.remedy) from e


def loader(recipe: Recipe, source: Source, views: dict[str, View], *, batch: int, **callbacks: Callable) -> Loader:
    return Loader(
        source,
        views,
        batch=batch,
        seed=recipe.seed,
        rank=group.rank(),
        world_size=group.world_size(),
        workers=recipe.data.workers,
        window=recipe.data.window,
        max_bad_fraction=recipe.data.max_bad_fraction,
        stall_seconds=recipe.data.stall_seconds,
        **callbacks,
    )
