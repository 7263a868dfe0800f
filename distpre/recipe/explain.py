"""What a person is told: which key is wrong, and what it may be."""

from __future__ import annotations

import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from distpre.errors import RecipeError
from distpre.recipe.document import Document, Key, dotted, found, value_at
from distpre.recipe.kinds import listed, may_be, nearest, remark
from distpre.recipe.resolve import choices
from distpre.recipe.schema import DataSpec, Recipe, SourceSpec

_A_SOURCE = "sources by name, each with shards, fields and ids"
_SEAMS = {"prepare": "prepare", "ops": "op", "eval_ops": "op", "encoder": "encoder", "head": "head"}
_SEAMS |= {
    "objective": "term",
    "tables": "evaluator",
    "teachers": "teacher",
    "weighting": "weighting",
}  # key of the frame -> seam of the components in it


def validated(document: Document) -> Recipe:
    """Raises RecipeError for the first fault: file, line, key, the nearest known key and what it may be."""
    try:
        return Recipe.model_validate(document.data)
    except ValidationError as e:
        errors = e.errors()
    # A misspelt key is also missing under its right name: it is the one to tell.
    fault = next((f for f in errors if f["type"] == "extra_forbidden"), errors[0])
    loc = fault["loc"]
    key = found(document.data, loc)
    if fault["type"] == "extra_forbidden":
        raise _unknown(document, key)
    if fault["type"] == "missing" and isinstance(loc[-1], str):  # a number: a list is too short
        raise _missing(document, (*found(document.data, loc[:-1]), loc[-1]))
    hint, bounds = _declared(key)
    value = value_at(document.data, key)
    shown = "nothing stands here." if value is None else f"{value!r} will not do."
    it_may = may_be(hint, bounds) + (", with at least one in it" if fault["type"] == "too_short" else "")
    raise RecipeError(f"{document.origin(key)}: {dotted(key)}: {shown}", f"It may be {it_may}.{remark(value, hint)}")


def _unknown(document: Document, key: Key) -> RecipeError:
    *above, name = key
    known = _known(tuple(above))
    whole = dotted(tuple(above)) if above else "A recipe"
    return RecipeError(
        f"{document.origin(key)}: {dotted(key)}: there is no such key.",
        f"{nearest(name, known, lambda near: may_be(*_declared((*above, near))))}{whole} may have {listed(known)}.",
    )


def _missing(document: Document, key: Key) -> RecipeError:
    *above, name = key
    what = f"{document.origin(tuple(above))}: {dotted(tuple(above))}: the key {name!r} is missing."
    seams = [_SEAMS[k] for k in above if k in _SEAMS]
    if name == "name" and seams:
        remedy = f"It is {choices(seams[-1])}."
    else:
        remedy = f"It is {may_be(*_declared(key))}."
    if len(above) == 2 and isinstance(
        document.data.get(above[0]), dict
    ):  # an override that misspells towers.image makes another tower
        others = [other for other in document.data[above[0]] if other != above[1]]
        remedy += f" {nearest(above[1], others)}".rstrip()
    return RecipeError(what, remedy)


def _known(key: Key) -> list[str]:
    """The keys that the frame knows at a place."""
    model, _ = _declared(key)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    extra = {Recipe: ["base", "variants"], DataSpec: [_A_SOURCE]}.get(model, [])
    return [k for k in model.model_fields if k != "sources"] + extra


def _declared(key: Key) -> tuple[Any, list[Any]]:
    """The type of a place in the frame, and the bounds on it; Any inside components."""
    hint: Any = Recipe
    bounds: list[Any] = []
    for part in key:
        hint, bounds = _mapping_type(hint), []
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            fields = hint.model_fields
            if part not in fields and hint is not DataSpec:
                return Any, []
            hint, bounds = (fields[part].annotation, fields[part].metadata) if part in fields else (SourceSpec, [])
        else:
            parts = typing.get_args(hint) or (Any,)
            hint = parts[-1 if typing.get_origin(hint) is dict else 0]
    return hint, bounds


def _mapping_type(hint: Any) -> Any:
    """X of X | None and of str | X."""
    several = [a for a in typing.get_args(hint) if a not in (type(None), str, float)]
    return several[0] if typing.get_origin(hint) not in (dict, list, tuple) and several else hint
