"""What a person is told: which key is wrong and what it may be; and, for --check, what a run would do."""

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


def plan(recipe: Recipe) -> str:
    """What the run would be: a screen of figures with their units. Starts nothing and writes nothing.

    Memory is what the parameters, gradients and AdamW's two moments take under the ZeRO stage (Rajbhandari et al. 2020,
    section 3.2), 4 bytes each; activations are not in it. Bytes moved are those a rank receives in a step.
    """
    import torch

    from distpre.runtime import build

    with torch.device("meta"):
        model = build.model(recipe)
    workers, train = recipe.launch.workers, recipe.train
    towers = {name: sum(p.numel() for p in tower.parameters()) for name, tower in model.towers.items()}
    widths = {model.towers[name].width for name in towers}
    whole, share = sum(towers.values()) * 4, 1 / workers
    weights = whole * (share if train.zero == 3 else 1)
    gradients = whole * (share if train.zero >= 2 else 1)
    moments = 2 * whole * (share if train.zero >= 1 else 1)
    rows = train.batch // workers
    gathered = (workers - 1) * rows * max(widths) * 4
    exchange = whole * 2 * (workers - 1) / workers * (1.5 if train.zero == 3 else 1)
    lines = [
        ("workers", f"{workers}"),
        ("global batch", f"{train.batch} = {workers} x {rows}, in {train.accumulation} micro-batch(es) a worker"),
        ("steps", f"{train.steps:,}, {train.steps * train.batch:,} samples; commit every {train.commit_every}"),
        *((f"tower {name}", f"{n:,} parameters, width {model.towers[name].width}") for name, n in towers.items()),
        ("precision", f"{train.precision}, ZeRO stage {train.zero}"),
        ("memory a worker", f"{_bytes(weights + gradients + moments)} for weights, gradients and moments"),
        ("moved a step", f"{_bytes(exchange)} of gradients, 2 x {_bytes(gathered)} of embeddings a term"),
        ("run folder", recipe.run.dir),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def _bytes(n: float) -> str:
    power = max((i for i in range(4) if n >= 1024**i), default=0)
    return f"{n / 1024**power:.{min(power, 1)}f} {('B', 'KiB', 'MiB', 'GiB')[power]}"
