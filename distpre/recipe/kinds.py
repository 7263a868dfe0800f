"""Types in a person's words: what a key may be, and whether a value is that."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from distpre.recipe.document import Key, found
from distpre.recipe.schema import Component, Rate, TermSpec
from distpre.schedule import SCHEDULES

_PLAIN = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path", Any: "anything"}
_BOUNDS = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}
SCHEDULE = f"a number, or a schedule: {{{' | '.join(SCHEDULES)}: {{its keys}}}}"
COMPONENT = "a mapping of `name` and the keywords of what it names, as in {name: NAME, key: value}"


class Misfit(Exception):
    """A value is not what its key may be; `at` is the path inside the value to the first part that is not."""

    def __init__(self, at: Key, value: Any, hint: Any):
        super().__init__(at, value, hint)
        self.at, self.value, self.hint = at, value, hint


def fitted(hint: Any, value: Any) -> Any:
    """The value as the type: 3 as a float, a list as a tuple. Raises Misfit; a type that YAML cannot hold fits all."""
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:  # whatever a foreign class raises when pydantic looks at it
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError as e:
        at = found(value, e.errors()[0]["loc"])
        inner, below = value, hint
        for part in at:
            inner, below = inner[part], _inside(below)
        raise Misfit(at, inner, below) from e


def may_be(hint: Any, bounds: Iterable[Any] = ()) -> str:
    """int -> "a whole number"; bounds are annotated_types, as pydantic's fields hold them."""
    if hint == Rate:
        return SCHEDULE
    if hint in _PLAIN:
        return " ".join([_PLAIN[hint], _bounded(bounds)]).strip()
    if hint in (Component, TermSpec):
        return COMPONENT
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return f"a mapping with {', '.join(hint.model_fields)}"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return may_be(arguments[0], hint.__metadata__)
    if origin is typing.Literal:
        return listed(arguments, "or")
    if origin in (typing.Union, types.UnionType):
        several = [may_be(a, bounds) for a in arguments if a is not type(None)]
        return ", or ".join(several + ["null"] * (type(None) in arguments))
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)}, each {may_be(arguments[0])}"
    if origin in (list, tuple):
        return f"a list, each {may_be(arguments[0])}"
    if origin is dict:
        return f"a mapping of names to {may_be(arguments[1])}" if arguments[1] is not Any else "a mapping"
    return str(hint).replace("typing.", "")


def remark(value: Any, hint: Any) -> str:
    """Why YAML read something else than was meant, where that is the likely fault; else nothing."""
    if isinstance(value, dict) and len(value) == 1 and list(value.values()) == [None] and ".." in str(list(value)[0]):
        return f' A brace list that begins a value must stand in quotes: "{{{next(iter(value))}}}".'
    if isinstance(value, bool) and "text" in may_be(hint):
        return " YAML reads yes, no, on and off as true and false: put the word in quotes."
    if isinstance(value, int | float) and "text" in may_be(hint):
        return f' Put it in quotes: "{value}".'
    return ""


def nearest(name: Any, known: Iterable[str], kind: Callable[[str], str] | None = None) -> str:
    """ "Did you mean 'steps'? ", with what it may be where `kind` tells; or nothing."""
    near = difflib.get_close_matches(str(name), list(known), 1)
    if not near:
        return ""
    return f"Did you mean {near[0]!r} ({kind(near[0])})? " if kind else f"Did you mean {near[0]!r}? "


def listed(names: Iterable[Any], last: str = "and") -> str:
    """a, b and c; "nothing" for none."""
    *most, end = [str(name) for name in names] or ["nothing"]
    return f"{', '.join(most)} {last} {end}" if most else end


def _bounded(bounds: Iterable[Any]) -> str:
    said = [f"{word} {getattr(b, name)}" for b in bounds for name, word in _BOUNDS.items() if hasattr(b, name)]
    return " and ".join(said)


def _inside(hint: Any) -> Any:
    """The type of a list's or a mapping's parts; of several, the first that has parts."""
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return next((_inside(a) for a in arguments if typing.get_args(a)), Any)
    return arguments[-1 if origin is dict else 0] if arguments else Any
