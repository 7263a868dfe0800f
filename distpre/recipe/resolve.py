"""A component of a recipe -> the class it names. The constructor is the schema."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from distpre.errors import RecipeError
from distpre.recipe.schema import Component
from distpre.schedule import Constant, Cosine, Linear, Schedule, Steps

# The contents table of each seam. A keyword with a seam's name holds a component of that seam.
TABLES = {
    "term": "distpre.objectives:CONTENTS",
    "targets": "distpre.contrast:TARGETS",
    "similarity": "distpre.contrast:SIMILARITIES",
    "bank": "distpre.contrast:BANKS",
    "encoder": "distpre.towers:ENCODERS",
    "head": "distpre.towers:HEADS",
    "op": "distpre.views:CONTENTS",
    "tokenizer": "distpre.views:TOKENIZERS",
    "evaluator": "distpre.evaluators:CONTENTS",
    "prepare": None,
}
SCHEDULES = {"cosine": Cosine, "linear": Linear, "steps": Steps}


def build(component: Component, seam: str) -> Any:
    """The object a component describes, the components among its keywords built first."""
    make = named(component.name, seam)
    return make(**{key: _value(make, key, value) for key, value in component.keywords().items()})


def named(name: str, seam: str) -> Callable[..., Any]:
    """The class or function of a name in the seam's table, or of "module:name". Raises RecipeError with the nearest."""
    table = _imported(TABLES[seam]) if TABLES[seam] else {}
    if name not in table and ":" not in name:
        raise RecipeError(f"there is no {seam} {name!r};", f"{_nearest(name, table)}or module:Name of your own.")
    try:
        return _imported(table.get(name, name))
    except (ImportError, AttributeError) as e:
        raise RecipeError(f"the {seam} {name!r} cannot be imported: {e}.", "Check the name and what it needs.") from e


def schedule(value: Any) -> Schedule:
    """A number, or {cosine | linear | steps: keywords}."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Constant(float(value))
    if not (isinstance(value, dict) and len(value) == 1 and next(iter(value)) in SCHEDULES):
        raise RecipeError(
            f"{value!r} is no schedule;", f"give a number, or one of {', '.join(SCHEDULES)} with its keys."
        )
    [(kind, keywords)] = value.items()
    for at, what, remedy in problems(SCHEDULES[kind], keywords):
        raise RecipeError(f"{'.'.join((kind, *at))}: {what}", remedy)
    return SCHEDULES[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in keywords.items()})


def faults(component: Component, seam: str) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(key path below the component, what is wrong, remedy) for all that its constructor would refuse."""
    try:
        make = named(component.name, seam)
    except RecipeError as e:
        yield ("name",), e.what, e.remedy
        return
    yield from problems(make, component.keywords())


def problems(make: Callable[..., Any], keywords: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    wanted, hints = inspect.signature(make).parameters, _hints(make)
    for key, value in keywords.items():
        if key not in wanted:
            yield (key,), f"{make.__name__} has no key {key!r};", _nearest(key, wanted).rstrip(" ;") + "."
        elif key in TABLES and isinstance(value, dict):
            if "name" not in value:
                yield (key,), f"a {key} needs a `name`;", f"one of {', '.join(_imported(TABLES[key]))}."
                continue
            yield from (((key, *at), what, remedy) for at, what, remedy in faults(Component(**value), key))
        elif "Schedule" in str(wanted[key].annotation):
            try:
                schedule(value) if value is not None else None
            except RecipeError as e:
                yield (key,), e.what, e.remedy
        elif key in hints and (wrong := _wrong(hints[key], value)):
            yield (key,), f"{value!r} does not fit: {wrong}.", f"It is declared as {wanted[key].annotation}."
    for key, parameter in wanted.items():
        if parameter.default is parameter.empty and key not in keywords and parameter.kind != parameter.VAR_KEYWORD:
            yield (), f"{make.__name__} needs the key {key!r}", f"({parameter.annotation})."


def _value(make: Callable[..., Any], key: str, value: Any) -> Any:
    if key in TABLES and isinstance(value, dict):
        return build(Component(**value), key)
    if value is not None and "Schedule" in str(inspect.signature(make).parameters[key].annotation):
        return schedule(value)
    return value


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _hints(make: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(make.__init__ if inspect.isclass(make) else make)
    except (NameError, TypeError, AttributeError):
        return {}


def _wrong(hint: Any, value: Any) -> str | None:
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:
        return None  # not a type that a YAML value could be held against
    try:
        adapter.validate_python(value)
    except ValidationError as e:
        return e.errors()[0]["msg"].lower()
    return None


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"{meant}It may be {', '.join(known)} "
