"""What a forward pass keeps for the backward one, found with tensors that have shapes and no values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from distpre.data.collate import collate
from distpre.errors import DataError, DistpreError
from distpre.recipe import Recipe
from distpre.runtime import build
from distpre.runtime.plan import bytes_said, samples
from distpre.towers.model import Model
from distpre.types import Padded

PICTURES = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff")
UNKNOWN = "a tower's shapes hang on the values.", "Train a step on the device to see."


def activations(recipe: Recipe) -> str:
    """What autograd saves in the forward pass of one micro-batch of a worker, weights and contrast apart: a line.

    Views are of the first sample of data.train where its shards are indexed, else of a made-up picture or text; where
    neither will do, and where a tower's shapes hang on values, the line says so.
    """
    try:
        rows, kept = _kept(recipe)
    except DataError as e:
        return f"activations not told: {e.what}"
    return f"activations {bytes_said(kept)} a worker, of a micro-batch of {rows:,}"


def _kept(recipe: Recipe) -> tuple[int, int]:
    """(samples, bytes). Raises DataError."""
    with torch.device("meta"):
        model = build.model(recipe, fresh=False)
    train = recipe.train
    b = train.batch // recipe.launch.workers.max // train.accumulation
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        model.to_empty(device="cpu")
    views = {name: _batch(row, b, mode) for name, row in _rows(recipe, model).items()}
    views |= {name: views[view] for name, view in model.taught.items() if view in views}
    weights, kept = {p.untyped_storage()._cdata for p in model.parameters()}, {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # held, so that no other storage takes its address
        return x

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model.train()(views)
    except (DataDependentOutputException, DynamicOutputShapeException) as e:
        raise DataError(*UNKNOWN) from e
    return b, sum(storage.nbytes() for storage in kept.values())


def _rows(recipe: Recipe, model: Model) -> dict[str, Tensor | Padded]:
    """{view that training embeds: (1, ...)}"""
    source = build.training(recipe, lambda text: None) if samples(recipe) else None
    fields = build.first_fields(source) if source else {}
    rows = {}
    for name, view in build.views(recipe).items():
        if name not in model.tower_of or name not in recipe.trained_views():
            continue
        if source and view.field not in fields:
            raise DataError(f"no sample among the first has the field {view.field}.")
        value = fields[view.field] if source else _made_up(recipe.data.sources["train"].fields[view.field])
        try:
            row = view.at(value, seed=recipe.seed, epoch=0, ordinal=0)
        except DistpreError:
            raise
        except Exception as e:
            what = f"views.{name}.ops: {type(e).__name__}: {e} (of {'the first' if source else 'a made-up'} sample)."
            raise DataError(what, "Mend the ops, or shard the data first.") from e
        if row is not None:
            rows[name] = collate([row], name)
    return rows


def _made_up(member: str) -> Any:
    """Raises DataError."""
    kind = member.rpartition(".")[2]
    if kind in PICTURES:
        return np.zeros((512, 512, 3), np.uint8)
    if kind in ("txt", "text"):
        return "a photo of a cat"
    raise DataError(f"what a .{member} is like shows when the shards are there.", "Write them first.")


def _batch(row: Tensor | Padded, b: int, mode: FakeTensorMode) -> Tensor | Padded:
    """b rows like this one, fake; a mask stays real, since towers ask how much it shows."""
    if isinstance(row, Padded):
        return Padded(_batch(row.values, b, mode), row.mask.expand(b, *row.mask.shape[1:]).clone())
    with mode:
        return torch.empty((b, *row.shape[1:]), dtype=row.dtype)
