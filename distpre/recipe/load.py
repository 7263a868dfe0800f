"""Reads a recipe: one base, the variant, overrides, environment; then checks everything and starts nothing."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distpre.errors import RecipeError
from distpre.recipe.document import Document, Key, value_of
from distpre.recipe.explain import explained
from distpre.recipe.resolve import build, faults, schedule
from distpre.recipe.schema import Component, Recipe


def load(path: str, overrides: list[str] = ()) -> Recipe:  # noqa: B006
    """The recipe at `path` or `path:variant`, with dotted overrides ("train.steps=200") laid over it.

    Raises RecipeError naming file, line and key, what it may be, and the nearest known key.
    """
    name, _, variant = str(path).partition(":")
    document = _read(Path(name))
    variants = document.data.pop("variants", None) or {}
    if variant:
        if variant not in variants:
            raise RecipeError(f"{name} has no variant {variant!r}.", f"It has {', '.join(variants) or 'none'}.")
        for key, value in variants[variant].items():
            document.set(key, value, document.origin(("variants", variant, key)))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise RecipeError(f"{override!r} is not an override.", "Write key=value, as in train.steps=200.")
        document.set(key, value_of(value), f"override {override}")
    data = _environment(document.data, (), document)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as e:
        raise explained(e, document) from e
    check(recipe, document)
    return recipe


def prepare(recipe: Recipe, note: Callable[[str], None]) -> None:
    """Calls data.prepare if a local shard is absent; of several processes one does it, the others wait for it."""
    from braceexpand import braceexpand

    if recipe.data.prepare is None:
        return
    lists = [s.shards if isinstance(s.shards, list) else s.shards.split("::") for s in recipe.data.sources.values()]
    shards = [Path(shard) for each in lists for pattern in each for shard in braceexpand(pattern)]
    if all(shard.exists() for shard in shards):
        return
    shards[0].parent.mkdir(parents=True, exist_ok=True)
    with open(shards[0].parent / ".prepare.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all(shard.exists() for shard in shards):
            note(build(recipe.data.prepare, "prepare"))


def check(recipe: Recipe, document: Document) -> None:
    """Components against their constructors, references against what they name. Raises RecipeError for the first."""

    def refuse(key: Key, what: str, remedy: str) -> None:
        raise RecipeError(f"{document.origin(key)}: {'.'.join(map(str, key))}: {what}", remedy)

    for key, component, seam in components(recipe):
        for at, what, remedy in faults(component, seam):
            refuse((*key, *at), what, remedy)
    for key, rate in (
        (("train", "optimiser", "lr"), recipe.train.optimiser.lr),
        *((("objective", name, "weight"), term.weight) for name, term in recipe.objective.items()),
    ):
        try:
            schedule(rate)
        except RecipeError as e:
            refuse(key, e.what, e.remedy)
    for key, name, known, kind in references(recipe):
        if name not in known:
            refuse(key, f"there is no {kind} {name!r}.", f"There is {', '.join(known) or 'none'}.")
    embedded = [view for tower in recipe.towers.values() for view in tower.views]
    for view in embedded:
        if embedded.count(view) > 1:
            refuse(("towers",), f"the view {view!r} is embedded by two towers.", "Give it to one.")
    workers, parts, batch = recipe.launch.workers, recipe.train.accumulation, recipe.train.batch
    share = workers * parts
    if batch % share:
        near = [n for n in (batch // share * share, (batch // share + 1) * share) if n]
        refuse(
            ("train", "batch"),
            f"the global batch {batch} does not divide by {workers} workers x {parts} micro-batches.",
            f"Nearest that do: {' and '.join(map(str, near))}.",
        )


def components(recipe: Recipe) -> list[tuple[Key, Component, str]]:
    """(key, component, seam) of all that the frame holds."""
    found: list[tuple[Key, Component, str]] = []
    if recipe.data.prepare:
        found.append((("data", "prepare"), recipe.data.prepare, "prepare"))
    for name, view in recipe.views.items():
        for kind in ("ops", "eval_ops"):
            found += [(("views", name, kind, i), op, "op") for i, op in enumerate(getattr(view, kind) or ())]
    for name, tower in recipe.towers.items():
        found.append((("towers", name, "encoder"), tower.encoder, "encoder"))
        found += [(("towers", name, "head"), tower.head, "head")] if tower.head else []
    found += [(("objective", name), term.component, "term") for name, term in recipe.objective.items()]
    if recipe.evaluate:
        found += [(("evaluate", "tables", n), table, "evaluator") for n, table in recipe.evaluate.tables.items()]
    return found


def references(recipe: Recipe) -> list[tuple[Key, str, Any, str]]:
    """(key, the name used, the names there are, what kind of thing it names)."""
    found: list[tuple[Key, str, Any, str]] = []
    sources, embedded = recipe.data.sources, [v for tower in recipe.towers.values() for v in tower.views]
    found.append((("data",), "train", sources, "source"))
    used = {"train"} | ({recipe.evaluate.data} if recipe.evaluate else set())
    for name, view in recipe.views.items():
        for source in used & set(sources):
            found.append((("views", name, "field"), view.field, sources[source].fields, f"field of data.{source}"))
    for name, tower in recipe.towers.items():
        found += [(("towers", name, "views", i), view, recipe.views, "view") for i, view in enumerate(tower.views)]
    for name, term in recipe.objective.items():
        at, keywords = ("objective", name), term.component.keywords()
        found += _named_in(keywords, at, embedded, ("rows", "columns", "of"), "view that a tower embeds")
        found += _named_in(keywords, at, recipe.scales, ("scale",), "scale")
        for part, nested in keywords.items():
            if isinstance(nested, dict) and "train" in sources:
                found += _named_in(nested, (*at, part), sources["train"].ids, ("id",), "id of data.train")
    if recipe.evaluate:
        found.append((("evaluate", "data"), recipe.evaluate.data, sources, "source"))
        ids = sources[recipe.evaluate.data].ids if recipe.evaluate.data in sources else {}
        for name, table in recipe.evaluate.tables.items():
            at, keywords = ("evaluate", "tables", name), table.keywords()
            found += _named_in(keywords, at, embedded, ("rows", "columns", "image", "text"), "view that a tower embeds")
            found += _named_in(keywords, at, ids, ("id",), f"id of data.{recipe.evaluate.data}")
    return found


def _named_in(keywords: dict[str, Any], at: Key, known: Any, keys: tuple[str, ...], kind: str) -> list:
    return [((*at, key), keywords[key], known, kind) for key in keys if isinstance(keywords.get(key), str)]


def _read(path: Path) -> Document:
    document = Document.read(path, str(path))
    base = document.data.pop("base", None)
    if base is None:
        return document
    below = Document.read(path.parent / base, str(path.parent / base))
    if "base" in below.data:
        raise RecipeError(f"{path.parent / base}: a base may not have a base.", "Lay this recipe over that one's base.")
    below.data.pop("variants", None)
    return document.over(below)


def _environment(value: Any, at: Key, document: Document) -> Any:
    """$NAME and ${NAME} in strings, from the environment."""
    if isinstance(value, dict):
        return {k: _environment(v, (*at, k), document) for k, v in value.items()}
    if isinstance(value, list):
        return [_environment(v, (*at, i), document) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def found(match: re.Match) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise RecipeError(
                f"{document.origin(at)}: {'.'.join(map(str, at))}: the environment has no {name}.",
                f"Set it, as in: {name}=/path/to/data python -m launch ...",
            )
        return os.environ[name]

    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", found, value)
