"""From a checked recipe to the objects of a run."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from distpre import group
from distpre.data.assemble import FIRST
from distpre.data.loader import Loader
from distpre.data.mixture import Mixture
from distpre.data.pairing import Pairing
from distpre.data.source import Source, Unreadable
from distpre.data.subset import Subset, domain
from distpre.errors import CheckpointError, DataError, RecipeError
from distpre.objectives.objective import Objective
from distpre.recipe import Recipe
from distpre.recipe.kinds import nearest
from distpre.recipe.resolve import build, schedule
from distpre.recipe.schema import Component
from distpre.recipe.stages import Stage
from distpre.runtime.engine import Engine
from distpre.towers.model import LogitScale, Model
from distpre.towers.teachers import Teacher, Teaching
from distpre.towers.tower import Tower
from distpre.views.pipeline import View


def model(recipe: Recipe, *, fresh: bool = True) -> Model:
    """Towers and scales, the same weights on every rank and at every world size (seeded here).

    fresh False: a commit's weights will follow, so the files that towers start from need not be there any more.
    """
    torch.manual_seed(recipe.seed)
    towers = {
        name: Tower(
            build(spec.encoder if fresh else bare(spec.encoder), "encoder"),
            build(spec.head, "head") if spec.head else None,
        )
        for name, spec in recipe.towers.items()
    }
    tower_of = {view: name for name, spec in recipe.towers.items() for view in spec.views}
    scales = {name: LogitScale(s.start, s.max, s.bias, s.learn) for name, s in recipe.scales.items()}
    made = Model(towers, tower_of, scales, recipe.train.precision, teachers(recipe, towers))
    freeze(made, recipe.train.freeze)
    return made


def bare(encoder: Component) -> Component:
    """Without the keywords that name weights to start from."""
    keywords = {key: value for key, value in encoder.keywords().items() if key not in ("weights", "fetch")}
    return Component(name=encoder.name, **keywords)


def teachers(recipe: Recipe, towers: dict[str, Tower]) -> dict[str, Teacher]:
    """Copies of the towers; Teaching.begin gives them their weights."""
    made = {
        name: Teacher(teaching, {k: v for k, v in towers.items() if teaching.of is None or k in teaching.of})
        for name, teaching in teachings(recipe).items()
    }
    for name, teacher in made.items():
        around = teacher.teaching.around
        if around and (lacking := [tower for tower in teacher if tower not in made[around]]):
            what = f"teachers.{name}: the teacher {around!r} that it holds to has no tower {lacking[0]!r}."
            raise RecipeError(what, f"Give both the same `of`: {', '.join(made[around])}.")
    return made


def begin_teachers(model: Model, only: Callable[[str], bool] = lambda name: True) -> None:
    """At a stage's beginning: copies of the student, or the weights that they name. Raises CheckpointError.

    only: says of a teacher's name whether it begins.
    """
    for name, teacher in model.teachers.items():
        if not only(name):
            continue
        teacher.copy_from(model.towers)
        try:
            teacher.teaching.begin(teacher)
        except CheckpointError as e:
            raise CheckpointError(f"teachers.{name}: {e.what}", e.remedy) from e


def check_cached(recipe: Recipe, source: Source | Subset | Mixture, views: dict[str, View]) -> None:
    """What samples hold of a teacher is of one look at each: raises RecipeError for a view that draws at random."""
    for name, teaching in teachings(recipe).items():
        for view in teaching.facts:
            value = first_fields(source).get(views[view].field)
            if value is not None and views[view].draws(value):
                what = f"teachers.{name}.facts: views.{view}.ops draw at random, and the samples hold one look at each."
                raise RecipeError(what, "Take the ops out, or a teacher that looks each time (`frozen`).")


def first_fields(source: Source | Subset | Mixture) -> dict[str, Any]:
    """{field: its value in the first sample that can be read and has it}, of the first FIRST samples."""
    found: dict[str, Any] = {}
    for ordinal in range(min(len(source), FIRST)):
        with contextlib.suppress(Unreadable):
            found = source.sample(source.raw(ordinal)).fields | found
    return found


def teachings(recipe: Recipe) -> dict[str, Teaching]:
    return {name: build(component, "teacher") for name, component in recipe.teachers.items()}


def freeze(model: Model, names: list[str]) -> None:
    """Raises RecipeError for a name that begins no weight's, and where nothing is left to train."""
    trained = dict(p for p in model.named_parameters() if p[1].requires_grad)
    for name in names:
        mine = [weight for weight in trained if f"{weight}.".startswith(f"{name}.")]
        if not mine:
            parts = {weight[:end] for weight in trained for end in range(len(weight) + 1) if f"{weight}."[end] == "."}
            near = nearest(name, parts)
            raise RecipeError(f"train.freeze: no weight is called {name!r}, or begins so.", near or "See --check.")
        for weight in mine:
            trained[weight].requires_grad_(False)
    if names and not any(p.requires_grad for p in trained.values()):
        raise RecipeError("train.freeze: nothing is left to train.", "Leave a tower or a head out of it.")


def engine(stage: Stage, model: Model) -> Engine:
    recipe, train, optimiser = stage.recipe, stage.recipe.train, stage.recipe.train.optimiser
    with compile_at_first_call():
        return Engine(
            model,
            lr=schedule(optimiser.lr),
            steps=stage.of,
            first=stage.begins,
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


def source(recipe: Recipe, name: str, note: Callable[[str], None]) -> Source | Subset:
    """Raises DataError naming the recipe's key."""
    spec, data = recipe.data.sources[name], recipe.data
    try:
        whole = Source.open(
            spec.shards,
            spec.fields,
            spec.ids,
            optional=spec.optional,
            note=note,
            cache=data.cache,
            cache_bytes=data.cache_bytes,
        )
        return domain(whole, spec.where)
    except DataError as e:
        raise DataError(f"data.{name}: {e.what.removeprefix('data: ')}", e.remedy) from e


def training(recipe: Recipe, note: Callable[[str], None]) -> Source | Subset | Mixture:
    """What the recipe trains on. Raises DataError."""
    weights = recipe.data.mixture
    if not weights:
        return source(recipe, "train", note)
    return Mixture({name: (source(recipe, name, note), weight) for name, weight in weights.items()})


def pairing(recipe: Recipe) -> Pairing | None:
    return build(recipe.data.pairing, "pairing") if recipe.data.pairing else None


def loader(
    recipe: Recipe, source: Source | Subset | Mixture, views: dict[str, View], *, batch: int, **callbacks: Callable
) -> Loader:
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
