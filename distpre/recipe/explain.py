"""What a person is told: which key is wrong, and what it may be."""

from __future__ import annotations

import difflib
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from distpre.errors import RecipeError
from distpre.recipe.document import Document, Key
from distpre.recipe.schema import Recipe


def explained(error: ValidationError, document: Document) -> RecipeError:
    """The first fault that pydantic found, with file, line, key, the nearest known key and what it may be."""
    fault = error.errors()[0]
    key = tuple(
        k for k in fault["loc"] if k not in ("sources", "component", "float") and not str(k).startswith("dict[")
    )
    where = f"{document.origin(key)}: {'.'.join(map(str, key)) or 'recipe'}"
    if fault["type"] in ("extra_forbidden", "missing"):
        known = list(_keys_at(fault["loc"][:-1]))
        if fault["type"] == "missing":
            return RecipeError(f"{where}: this key is missing.", f"Its neighbours: {', '.join(known)}.")
        near = difflib.get_close_matches(str(key[-1]), known, 1)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        return RecipeError(f"{where}: there is no such key here.", f"{meant}It may be {', '.join(known)}.")
    given = f"{fault['input']!r} is no good: " if not isinstance(fault["input"], dict) else ""
    message = fault["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return RecipeError(f"{where}: {given}it {message}." if given else f"{where}: {message}.", "Mend it there.")


def _keys_at(loc: Key) -> list[str]:
    """The keys that the frame knows at a place."""
    at: Any = Recipe
    for key in loc:
        if isinstance(at, type) and issubclass(at, BaseModel):
            at = at.model_fields[key].annotation if key in at.model_fields else None
        else:
            at = next((a for a in typing.get_args(at) if a is not str), None)
        while not isinstance(at, type) and typing.get_origin(at) is not dict and typing.get_origin(at) is not list:
            models = [a for a in typing.get_args(at) if a is not type(None)]
            if not models:
                break
            at = models[0]
    if not (isinstance(at, type) and issubclass(at, BaseModel)):
        return []
    known = list(at.model_fields)
    return [k for k in known if k != "sources"] + (["a source with `shards`"] if "sources" in known else [])
