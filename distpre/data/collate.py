"""Rows of a view -> one tensor of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from distpre.errors import DataError
from distpre.types import Padded


def collate(values: list[Any], view: str = "?") -> Tensor | Padded:
    """b arrays, tensors or numbers of one shape -> (b, ...); 1-D ones of unequal length -> Padded (b, longest).

    Of b Padded with equal shapes it makes one. Raises DataError for anything else.
    """
    if all(isinstance(value, Padded) for value in values):
        return Padded(collate([v.values for v in values], view), collate([v.mask for v in values], view))
    rows = [value if isinstance(value, Tensor) else _tensor(value, view) for value in values]
    shapes = {tuple(row.shape) for row in rows}
    if len(shapes) == 1:
        return torch.stack(rows)
    if all(len(shape) == 1 for shape in shapes):
        lengths = torch.tensor([len(row) for row in rows])
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return Padded(padded, torch.arange(padded.shape[1]) < lengths[:, None])
    a, b = sorted(shapes)[:2]
    raise DataError(
        f"views: {view} gives arrays of different shapes, {a} and {b}, which make no batch.",
        f"Add an op to views.{view}.ops that gives them one shape (resize, crop, pad).",
    )


def _tensor(value: Any, view: str) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.from_numpy(np.require(value, requirements=["C", "W"]))
    if isinstance(value, (bool, int, float, np.generic)):
        return torch.as_tensor(value)
    raise DataError(
        f"views: {view} gives a {type(value).__name__}, which is no array.",
        f"End views.{view}.ops with an op that makes one (to_tensor, tokenize).",
    )
