"""A component of a recipe -> the class it names. The constructor is the schema."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

from distpre.errors import RecipeError
from distpre.recipe.document import Key, dotted
from distpre.recipe.kinds import COMPONENT, SCHEDULE, Misfit, fitted, listed, may_be, nearest, remark
from distpre.recipe.schema import Component
from distpre.schedule import SCHEDULES, Constant, Schedule, Steps

# The contents table of each seam. A keyword with a seam's name holds a component of that seam.
TABLES = {
    "term": "distpre.objectives:CONTENTS",
    "targets": "distpre.contrast:TARGETS",
    "similarity": "distpre.contrast:SIMILARITIES",
    "bank": "distpre.contrast:BANKS",
    "pairing": "distpre.data:PAIRINGS",
    "encoder": "distpre.towers:ENCODERS",
    "head": "distpre.towers:HEADS",
    "teacher": "distpre.towers:TEACHERS",
    "weighting": "distpre.weighting:CONTENTS",
    "op": "distpre.views:CONTENTS",
    "tokenizer": "distpre.views:TOKENIZERS",
    "evaluator": "distpre.evaluators:CONTENTS",
    "prepare": None,
}
Fault = tuple[Key, str, str]  # key path below the component, what is wrong, remedy


def build(component: Component, seam: str) -> Any:
    """The object a component describes, the components among its keywords built first."""
    make = named(component.name, seam)
    hints, wanted = _hints(make), inspect.signature(make).parameters
    return make(**{key: _value(key, value, wanted, hints) for key, value in component.keywords().items()})


def named(name: str, seam: str) -> Callable[..., Any]:
    """The class or function of a name in the seam's table, or of "module:name". Raises RecipeError with the nearest."""
    table = _imported(TABLES[seam]) if TABLES[seam] else {}
    if name not in table and ":" not in name:
        raise RecipeError(f"there is no {seam} {name!r}.", f"{nearest(name, table)}It may be {choices(seam)}.")
    module, _, member = table.get(name, name).partition(":")
    try:
        imported = importlib.import_module(module)
    except ImportError as e:
        remedy = f"Check the spelling, and that Python finds it: python -c 'import {module}'."
        raise RecipeError(f"the {seam} {name!r} cannot be imported: {e}.", remedy) from e
    if not callable(getattr(imported, member, None)):
        there = [n for n, member in vars(imported).items() if callable(member) and not n.startswith("_")]
        remedy = nearest(member, there) + "Name a class or a function of that module."
        raise RecipeError(f"{module} has no class or function {member!r}.", remedy)
    return getattr(imported, member)


def choices(seam: str) -> str:
    """The names of a seam's table, in words."""
    table = _imported(TABLES[seam]) if TABLES[seam] else {}
    return listed([*table, '"module:Name" of your own'], "or")


def schedule(value: Any) -> Schedule:
    """A number, or {cosine | linear | steps: keywords}. Raises RecipeError."""
    for at, what, remedy in schedule_faults(value):
        raise RecipeError(f"{dotted(at)}: {what}" if at else what, remedy)
    if not isinstance(value, dict):
        return Constant(float(value))
    [(kind, keywords)] = value.items()
    hints = _hints(SCHEDULES[kind])
    return SCHEDULES[kind](**{key: fitted(hints[key], given) for key, given in keywords.items()})


def schedule_faults(value: Any) -> Iterator[Fault]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return
    if not (isinstance(value, dict) and len(value) == 1):
        yield (), f"{value!r} will not do.", f"It may be {SCHEDULE}."
        return
    [(kind, keywords)] = value.items()
    if kind not in SCHEDULES:
        yield (kind,), f"there is no schedule {kind!r}.", f"{nearest(kind, SCHEDULES)}There is {listed(SCHEDULES)}."
    elif not isinstance(keywords, dict):
        yield (kind,), f"{keywords!r} will not do.", f"It may be a mapping with {listed(_keywords(SCHEDULES[kind]))}."
    else:
        wrong = [((kind, *at), what, remedy) for at, what, remedy in problems(SCHEDULES[kind], keywords, kind)]
        yield from wrong
        if SCHEDULES[kind] is Steps and not wrong:
            steps, values = keywords["at_steps"], keywords["values"]
            if len(steps) != len(values) or steps[:1] != [0] or steps != sorted(set(steps)):
                what = f"at_steps {steps} and values {values} will not do."
                yield (kind,), what, "at_steps begins with 0 and climbs; values has as many numbers."


def faults(component: Component, seam: str) -> Iterator[Fault]:
    """All that the component's constructor would refuse."""
    try:
        make = named(component.name, seam)
    except RecipeError as e:
        yield ("name",), e.what, e.remedy
        return
    yield from problems(make, component.keywords(), component.name)


def problems(make: Callable[..., Any], keywords: dict[str, Any], name: str) -> Iterator[Fault]:
    """Of keywords against a constructor's signature: the unknown, then the missing, then the wrong."""
    wanted, hints = _keywords(make), _hints(make)
    if wanted is None:
        return
    open_ended = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(make).parameters.values())
    for key in keywords:
        if key not in wanted and not open_ended:
            meant = nearest(key, wanted, lambda near: _of(near, wanted[near], hints))
            yield (key,), f"{name} has no key {key!r}.", f"{meant}It may have {listed(wanted)}."
    for key, parameter in wanted.items():
        if parameter.default is parameter.empty and key not in keywords:
            yield (), f"{name} needs the key {key!r}.", f"It is {_of(key, parameter, hints)}."
    for key, value in keywords.items():
        if key in wanted:
            yield from (((key, *at), what, remedy) for at, what, remedy in _misfits(key, value, wanted[key], hints))


def _misfits(key: str, value: Any, parameter: inspect.Parameter, hints: dict[str, Any]) -> Iterator[Fault]:
    if value is None and parameter.default is None:
        return
    if key in TABLES:
        if not (isinstance(value, dict) and isinstance(value.get("name"), str)):
            yield (), f"{value!r} will not do.", f"It may be {COMPONENT}; the name is {choices(key)}."
        else:
            yield from faults(Component(**value), key)
    elif _takes_schedule(parameter):
        yield from schedule_faults(value)
    elif key in hints:
        try:
            fitted(hints[key], value)
        except Misfit as e:
            yield e.at, f"{e.value!r} will not do.", f"It may be {may_be(e.hint)}.{remark(e.value, e.hint)}"


def _value(key: str, value: Any, wanted: Any, hints: dict[str, Any]) -> Any:
    if value is None:
        return None
    if key in TABLES:
        return build(Component(**value), key)
    if key in wanted and _takes_schedule(wanted[key]):
        return schedule(value)
    return fitted(hints[key], value) if key in hints else value


def _keywords(make: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """The parameters that a recipe may name; None for what has no signature."""
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):
        return None
    return {k: p for k, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _of(key: str, parameter: inspect.Parameter, hints: dict[str, Any]) -> str:
    if key in TABLES:
        return f"a component: {choices(key)}"
    if _takes_schedule(parameter):
        return SCHEDULE
    return may_be(hints[key]) if key in hints else "anything"


def _takes_schedule(parameter: inspect.Parameter) -> bool:
    return "Schedule" in str(parameter.annotation)


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _hints(make: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(make.__init__ if inspect.isclass(make) else make)
    except (NameError, TypeError, AttributeError):
        return {}
