"""Softmax or sigmoid: what is summed over a line of logits, and its derivative. A removed logit is minus infinity.

A form has: sign, by which the logits of positives are multiplied before they are summed; total along one side and sums
along both sides of a tile; join of two sums; merge of a sum over ranks; pull, the tile's derivative under the gradients
of both sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from distpre.contrast.layout import Axis


class Form(Protocol):
    sign: int
    empty: float

    def total(self, logits: Tensor, dim: int) -> Tensor:
        """Along one dimension, differentiable, with gradient 0 where every logit is removed."""

    def sums(self, logits: Tensor, both: bool) -> tuple[Tensor, Tensor | None]:
        """Of rows (r,) and of columns (c,)."""

    def join(self, a: Tensor, b: Tensor) -> Tensor: ...

    def merge(self, axis: Axis, x: Tensor) -> Tensor: ...

    def pull(self, logits: Tensor, g: Tensor, row: Tensor, h: Tensor | None, column: Tensor | None) -> Tensor:
        """(r, c) derivative: g (r,), h (c,) gradients of the row sums and the column sums. May overwrite logits."""


@dataclass(frozen=True)
class Softmax:
    """Log-sum-exp; its derivative is the probability."""

    sign = 1
    empty = -torch.inf

    def total(self, logits, dim):
        removed = (logits == -torch.inf).all(dim, keepdim=True)
        return logits.masked_fill(removed, 0.0).logsumexp(dim).masked_fill(removed.squeeze(dim), -torch.inf)

    def sums(self, logits, both):
        """One exponential serves both directions unless the tile's logits are too far apart for fp32's range."""
        if not both:
            return logits.logsumexp(1), None
        top = logits.amax()
        shared = torch.exp(logits - top)
        row, column = shared.sum(1), shared.sum(0)
        if not (row.min() > TINY and column.min() > TINY):
            return logits.logsumexp(1), logits.logsumexp(0)
        return row.log_().add_(top), column.log_().add_(top)

    def join(self, a, b):
        nothing = (a == -torch.inf) & (b == -torch.inf)  # where logaddexp's gradient is nan
        joined = torch.logaddexp(a.masked_fill(nothing, 0.0), b.masked_fill(nothing, 0.0))
        return joined.masked_fill(nothing, -torch.inf)

    def merge(self, axis, x):
        top = axis.max(x.clone())
        safe = top.masked_fill(top.isinf(), 0.0)
        return axis.sum((x - safe).exp_()).log_().add_(safe)

    def pull(self, logits, g, row, h, column):
        if h is None:
            return _probability(logits, row[:, None]).mul_(g[:, None])
        low, high = _range(row, column)
        if high - low > SPAN:
            by_row = _probability(logits, row[:, None]).mul_(g[:, None])
            return by_row.addcmul_(_probability(logits, column[None]), h[None])
        middle = (low + high) / 2
        shared = logits.sub_(middle).exp_()
        u, v = g * (middle - _finite(row, middle)).exp(), h * (middle - _finite(column, middle)).exp()
        return shared.mul_(u[:, None] + v[None])


TINY = 1e-26  # what a sum of a thousand exponentials above it has lost to fp32 underflow is below 1e-8 of it
SPAN = 100.0  # of log-sum-exps in a tile: a probability of exp(-35) is still a normal fp32 number


def _probability(logits: Tensor, lse: Tensor) -> Tensor:
    return (logits - lse.masked_fill(lse.isinf(), 0.0)).exp_()


def _finite(lse: Tensor, instead: float) -> Tensor:
    return lse.masked_fill(lse.isinf(), instead)


def _range(row: Tensor, column: Tensor) -> tuple[float, float]:
    """Smallest and largest finite log-sum-exp; (0, 0) where there is none."""
    every = torch.cat([row, column])
    every = every[every.isfinite()]
    return (every.min().item(), every.max().item()) if len(every) else (0.0, 0.0)


@dataclass(frozen=True)
class Sigmoid:
    """Sum of softplus (SigLIP, Zhai et al. 2023, eq. 1); its derivative is the logistic function."""

    sign = -1
    empty = 0.0

    def total(self, logits, dim):
        return _softplus(logits.masked_fill(logits == -torch.inf, -1e4)).sum(dim)

    def sums(self, logits, both):
        each = _softplus(logits)
        return each.sum(1), each.sum(0) if both else None

    def join(self, a, b):
        return a + b

    def merge(self, axis, x):
        return axis.sum(x)

    def pull(self, logits, g, row, h, column):
        return logits.sigmoid_().mul_(g[:, None] if h is None else g[:, None] + h[None])


def _softplus(x: Tensor) -> Tensor:
    return -F.logsigmoid(-x)  # F.softplus is the identity above 20, an error of 2e-9


FORMS: dict[str, Form] = {"softmax": Softmax(), "sigmoid": Sigmoid()}
