"""Reads a recipe: one base, the variant, overrides, environment; then checks everything and starts nothing."""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from distpre.errors import DataError, RecipeError
from distpre.recipe.check import check
from distpre.recipe.document import Document, Key, dotted, value_of
from distpre.recipe.explain import validated
from distpre.recipe.kinds import listed, nearest
from distpre.recipe.resolve import build, named
from distpre.recipe.schema import Component, Recipe
from distpre.recipe.stages import stages

PREPARED = "prepared.json"  # beside shards that data.prepare wrote: what it was asked for


def load(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe at `path` or `path:variant`, with dotted overrides ("train.steps=200") laid over it.

    Raises RecipeError naming file and line (or the override), key, what it may be, and the nearest known key.
    """
    name, _, variant = str(path).partition(":")
    document = _read(Path(name))
    for key, value, origin in _variant(document, name, variant):
        document.set(key, value, origin)
    for key, value, origin in _overrides(overrides):
        document.set(key, value, origin)
    document.data = _environment(document.data, (), document)
    recipe = validated(document)
    check(recipe, document)
    stages(recipe, document)
    return recipe


def resolved(text: str, shown: str = "recipe.yaml") -> Recipe:
    """What Recipe.dump() wrote. Raises RecipeError naming line and key, as load() does; `shown` is the file's name."""
    return validated(Document.parse(text, shown))


def prepare(recipe: Recipe, note: Callable[[str], None]) -> None:
    """Calls data.prepare if a local shard is absent; of several processes one does it, the others wait for it.

    Raises DataError where the shards' folder cannot be written, where shards are absent still, and where those that are
    there were prepared by other keywords.
    """
    shards = _local_shards(recipe)

    def absent() -> list[Path]:
        return [shard for shard in shards if not shard.exists()]

    if recipe.data.prepare is None:
        return
    _prepared_alike(recipe.data.prepare, {shard.parent for shard in shards})
    if not absent():
        return
    folder = absent()[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".prepare.lock", "w")
    except OSError as e:
        what = f"data.prepare: {folder}, where the shards go, cannot be written ({e.strerror})."
        raise DataError(what, "Give its keywords and the sources' `shards` another folder.") from e
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if absent():
            note(build(recipe.data.prepare, "prepare"))
            (folder / PREPARED).write_text(json.dumps(_asked(recipe.data.prepare)))
    if missing := absent():
        raise DataError(
            f"data.prepare: {recipe.data.prepare.name} has run, but {len(missing)} of {len(shards)} shards are not "
            f"there: {missing[0]} ...",
            "Let its keywords and the sources' `shards` name the same folder.",
        )


def _prepared_alike(component: Component, folders: set[Path]) -> None:
    for path in (folder / PREPARED for folder in folders):
        if path.exists() and (before := json.loads(path.read_text())) != (asked := _asked(component)):
            other = [f"{key} {before.get(key)!r}, not {asked[key]!r}" for key in asked if before.get(key) != asked[key]]
            raise DataError(
                f"data.prepare: the shards in {path.parent} were made with other keywords: {listed(other)}.",
                f"Give `out` and the sources' `shards` another folder, or remove {path.parent} to have them made anew.",
            )


def _asked(component: Component) -> dict[str, Any]:
    """The name and every keyword, defaults too, as JSON holds them."""
    bound = inspect.signature(named(component.name, "prepare")).bind(**component.keywords())
    bound.apply_defaults()
    return json.loads(json.dumps({"name": component.name, **bound.arguments}))


def _local_shards(recipe: Recipe) -> list[Path]:
    """Those of brace lists that are none are left for the data room to refuse."""
    from braceexpand import UnbalancedBracesError, braceexpand

    lists = [s.shards if isinstance(s.shards, list) else s.shards.split("::") for s in recipe.data.sources.values()]
    try:
        return [Path(shard) for each in lists for p in each if "://" not in p for shard in braceexpand(p)]
    except UnbalancedBracesError:
        return []


def _read(path: Path) -> Document:
    """The file over its base. `variants` stay the file's own."""
    document = Document.read(path, str(path))
    base, origin = document.data.pop("base", None), document.origin(("base",))
    if base is None:
        return document
    below = path.parent / str(base)
    if not below.is_file():
        raise RecipeError(f"{origin}: base: there is no file {below}.", "Give its path from this recipe's folder.")
    lower = Document.read(below, str(below))
    if "base" in lower.data:
        raise RecipeError(
            f"{origin}: base: {below} has a base of its own, and only one is allowed.",
            f"Lay this recipe over {lower.data['base']!r}, or write what you need of {below.name} here.",
        )
    lower.data.pop("variants", None)
    return document.over(lower)


def _variant(document: Document, name: str, wanted: str) -> Iterator[tuple[str, Any, str]]:
    """(dotted key, value, origin) of the variant; takes `variants` out of the document."""
    variants = document.data.pop("variants", None) or {}
    form = "Write it as {train.steps: 8, train.batch: 32}."
    if not isinstance(variants, dict):
        raise RecipeError(f"{document.origin(('variants',))}: variants: {variants!r} will not do.", f"{form}")
    for variant, keys in variants.items():
        if not isinstance(keys, dict):
            key = ("variants", variant)
            raise RecipeError(f"{document.origin(key)}: {dotted(key)}: {keys!r} will not do.", form)
    if wanted and wanted not in variants:
        raise RecipeError(f"{name}: there is no variant {wanted!r}.", f"It has {listed(variants)}.")
    for key, value in variants.get(wanted, {}).items():
        yield str(key), value, document.origin(("variants", wanted, key))


def _overrides(overrides: Sequence[str]) -> Iterator[tuple[str, Any, str]]:
    for override in overrides:
        key, equals, text = override.partition("=")
        origin = f"override {override}"
        if not equals or not key:
            raise RecipeError(f"{override!r} is not an override.", "Write key=value, as in train.steps=200.")
        if key.split(".")[0] in ("base", "variants"):
            remedy = "Choose a variant as in recipe.yaml:small."
            raise RecipeError(f"{origin}: base and variants belong to the file.", remedy)
        folder = override.rpartition("/")[0] or f"{key}="
        if key.endswith(".shards") and sum(other.startswith(folder) for other in overrides) > 1:
            what = f"{origin}: {key} is given more than once in one folder: the shell has expanded a brace list."
            raise RecipeError(what, f"Quote it: '{key}=train-{{000..127}}.tar'.")
        yield key, value_of(text, origin), origin


def _environment(value: Any, at: Key, document: Document) -> Any:
    """$NAME and ${NAME} in strings, from the environment."""
    if isinstance(value, dict):
        return {k: _environment(v, (*at, k), document) for k, v in value.items()}
    if isinstance(value, list):
        return [_environment(v, (*at, i), document) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def meant(match: re.Match) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise RecipeError(
                f"{document.origin(at)}: {dotted(at)}: {value!r} wants the environment's {name}, which is not set.",
                f"{nearest(name, os.environ)}Set it, as in: {name}=/path/to/data python -m launch ...",
            )
        return os.environ[name]

    return re.sub(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", meant, value)
