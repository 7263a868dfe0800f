"""What a forward pass keeps for the backward one, and the tokens in it, found with tensors without values."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.overrides import TorchFunctionMode

from distpre.data.collate import collate
from distpre.errors import DataError, DistpreError
from distpre.recipe import Recipe
from distpre.recipe.schema import SourceSpec
from distpre.recipe.stages import stages
from distpre.runtime import build
from distpre.runtime.plan import bytes_said, samples
from distpre.towers.model import Model
from distpre.towers.tower import Tower
from distpre.types import Padded

PICTURES = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff")
UNKNOWN = "a tower's shapes hang on the values.", "Train a step on the device to see."


def activations(recipe: Recipe) -> str:
    """Lines: the tokens of a step, where encoders attend by torch's own functions; what autograd saves in the forward
    pass of one micro-batch of a worker, weights and contrast apart. Stages of other figures have lines of their own.

    Views are of the first sample of data.train where its shards are indexed, else of a made-up one, by
    data.train.shapes; where neither will do, and where a tower's shapes hang on values, the line says so.
    """
    alike: dict[str, str] = {}
    said: dict[str, list[str]] = {}
    for stage in stages(recipe):
        its = stage.recipe
        sources = [source.model_copy(update={"where": {}}) for source in its.data.sources.values()]
        key = repr((sources, its.data.mixture, its.views, its.teachers, its.train, its.objective, its.evaluate))
        if key not in alike:
            alike[key] = _said(its)
        said.setdefault(alike[key], []).append(stage.name)
    if len(said) == 1:
        return next(iter(said))
    return "\n".join(f"stage {', '.join(names)}: " + text.replace("\n", "; ") for text, names in said.items())


def _said(recipe: Recipe) -> str:
    try:
        rows, kept, tokens = _kept(recipe)
    except DataError as e:
        return f"activations not told: {e}"
    line = f"activations {bytes_said(kept)} a worker, of a micro-batch of {rows:,}"
    if not tokens:
        return line
    batch, each = recipe.train.batch, " + ".join(f"{view} {n:,}" for view, n in tokens.items())
    return f"tokens {batch * sum(tokens.values()):,} a step: {batch:,} samples of {each}\n{line}"


def _kept(recipe: Recipe) -> tuple[int, int, dict[str, int]]:
    """(samples, bytes, {view: tokens of a sample}). Raises DataError."""
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

    attended = _Attended(model, views)
    quiet = logging.getLogger("torch._subclasses.fake_tensor")
    before = quiet.level
    quiet.setLevel(logging.CRITICAL)  # it tells what is told below
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), attended:
            model.train()(views)
    except (DataDependentOutputException, DynamicOutputShapeException) as e:
        raise DataError(*UNKNOWN) from e
    except DistpreError as e:
        raise DataError(e.what, e.remedy) from e
    except Exception as e:
        sizes = ", ".join(f"{name} {tuple(_values(views[name]).shape[1:])}" for name in views if "." not in name)
        what = f"a tower does not take a sample of {sizes}: {(str(e) or type(e).__name__).splitlines()[0]}"
        raise DataError(what, "Give data.train.shapes, or mend the ops.") from e
    finally:
        quiet.setLevel(before)
    tokens = {name: n // b for name, n in attended.tokens.items() if n and name not in model.taught}
    return b, sum(storage.nbytes() for storage in kept.values()), tokens


class _Attended(TorchFunctionMode):
    """tokens: {view: how many of a batch meet in its encoder's largest attention}, 0 where nothing attends."""

    def __init__(self, model: Model, views: dict[str, Any]):
        self.tokens: dict[str, int] = {}
        self.most, names = 0, iter(views)

        def end(*ignored: Any) -> None:
            self.tokens[next(names)] = self.most

        def begin(*ignored: Any) -> None:
            self.most = 0  # the head before this encoder may have attended

        for tower in filter(lambda its: isinstance(its, Tower), model.modules()):
            tower.encoder.register_forward_pre_hook(begin)
            tower.encoder.register_forward_hook(end)

    def __torch_function__(self, function: Any, types: Any, given: tuple = (), keywords: dict | None = None) -> Any:
        keywords = keywords or {}
        if function in (F.scaled_dot_product_attention, F.multi_head_attention_forward):
            *rows, _ = (given[0] if given else keywords["query"]).shape  # (..., heads, tokens) or (tokens, batch)
            heads = rows[-2] if function is F.scaled_dot_product_attention else 1
            self.most = max(self.most, math.prod(rows) // heads)
        return function(*given, **keywords)


def _rows(recipe: Recipe, model: Model) -> dict[str, Tensor | Padded]:
    """{view that training embeds: (1, ...)}"""
    source = build.training(recipe, lambda text: None) if samples(recipe) else None
    trained = {name: view for name, view in build.views(recipe).items() if name in recipe.trained_views()}
    embedded = {name: view for name, view in trained.items() if name in model.tower_of}
    wanted = dict.fromkeys(view.field for view in embedded.values())
    fields = build.first_fields(source) if source else _made_up(recipe.data.sources["train"], wanted)
    rows = {}
    for name, view in embedded.items():
        if view.field not in fields:
            raise DataError(f"no sample among the first has the field {view.field}.")
        try:
            row = view.at(fields[view.field], seed=recipe.seed, epoch=0, ordinal=0)
        except DistpreError:
            raise
        except Exception as e:
            what = f"views.{name}.ops: {type(e).__name__}: {e} (of {'the first' if source else 'a made-up'} sample)."
            raise DataError(what, "Mend the ops, or shard the data first.") from e
        if row is not None:
            rows[name] = collate([row], name)
        elif not source:
            raise DataError(f"views.{name}.ops leave nothing of a made-up sample.", "See data.train.shapes.")
    return rows


def _made_up(source: SourceSpec, fields: Iterable[str]) -> dict[str, Any]:
    """{field: value}. Raises DataError for a field whose shape is not known."""
    return {field: _value(field, source.fields[field], source.shapes.get(field)) for field in fields}


def _value(field: str, member: str, shape: list[int] | dict[str, list[int]] | None) -> Any:
    kind = member.rpartition(".")[2]
    if kind in ("txt", "text"):
        return "a photo of a cat"
    if shape is None and kind in PICTURES:
        shape = [512, 512, 3]
    if shape is None or isinstance(shape, dict) != (kind == "npz"):
        its = "{points: [5000, 9]}" if kind == "npz" else "[3, 300]"
        what = f"what a .{member} is like shows when the shards are there."
        raise DataError(what, f"Write them first, or give its shape, as in data.train.shapes: {{{field}: {its}}}.")
    if kind in PICTURES:
        return np.zeros(shape, np.uint8)
    rng = np.random.default_rng(0)  # not zeros: ops may divide by a spread
    if isinstance(shape, dict):
        return {key: rng.random(size, np.float32) for key, size in shape.items()}
    return rng.random(shape, np.float32)


def _values(x: Tensor | Padded) -> Tensor:
    return x.values if isinstance(x, Padded) else x


def _batch(row: Tensor | Padded, b: int, mode: FakeTensorMode) -> Tensor | Padded:
    """b rows like this one, fake; a mask stays real, since towers ask how much it shows."""
    if isinstance(row, Padded):
        return Padded(_batch(row.values, b, mode), row.mask.expand(b, *row.mask.shape[1:]).clone())
    with mode:
        return torch.empty((b, *row.shape[1:]), dtype=row.dtype)
