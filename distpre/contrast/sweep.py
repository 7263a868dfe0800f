"""The two sweeps over tiles, and their autograd. The mathematics is in distpre/contrast/__init__.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distpre.contrast.layout import Line
from distpre.contrast.targets import OwnPair, Side, Targets

TILE = 1024  # columns of a tile: b by TILE logits are held at once


@dataclass(frozen=True)
class Block:
    """One side of the contrast, this rank's part: vectors (b, d), ids {name: (b,)}, present (b,) bool (None: all)."""

    vectors: Tensor
    ids: dict[str, Tensor] = field(default_factory=dict)
    present: Tensor | None = None

    def there(self) -> Tensor:
        if self.present is not None:
            return self.present
        return torch.ones(len(self.vectors), dtype=torch.bool, device=self.vectors.device)


@dataclass(frozen=True)
class Contrast:
    """What the sweeps found for this rank's samples, (b,) each; 0 where a sample is absent or has no positive.

    row_loss and column_loss carry gradient to rows, columns and scale. row_hit: a positive scores highest in its row.
    """

    row_loss: Tensor
    column_loss: Tensor
    row_hit: Tensor
    column_hit: Tensor


def contrast(
    rows: Block,
    columns: Block,
    scale: Tensor,
    *,
    targets: Targets = OwnPair(),  # noqa: B008
    both_ways: bool = True,
) -> Contrast:
    """Softmax contrast over the global batch; every rank calls it, with any b (0 too).

    scale: [1]. Row k and column k of a rank are a pair. Without both_ways column_loss is zero and costs nothing.
    Gradients: if each rank's loss is a share whose mean over ranks is the global loss, and parameter gradients are
    averaged over ranks, the result is the single-process gradient, of the scale too.
    """
    line = Line.of(len(rows.vectors), rows.vectors.device)
    plan = _Plan.of(rows, columns, targets, line, both_ways)
    with torch.autocast(rows.vectors.device.type, enabled=False):
        return Contrast(*_Sweeps.apply(rows.vectors, columns.vectors, scale, plan))


@dataclass(frozen=True)
class _Plan:
    """Everything about a tile but its logits."""

    line: Line
    targets: Targets
    rows: Side
    columns: Side
    row_there: Tensor
    column_there: Tensor
    both_ways: bool

    @classmethod
    def of(cls, rows: Block, columns: Block, targets: Targets, line: Line, both_ways: bool) -> _Plan:
        index = torch.arange(sum(line.counts), device=rows.vectors.device)
        column_ids = {name: line.gather(ids) for name, ids in columns.ids.items()}
        there = line.gather(columns.there().to(torch.uint8)).bool()
        sides = Side(index[line.mine], rows.ids), Side(index, column_ids)
        return cls(line, targets, *sides, rows.there(), there, both_ways)

    def tiles(self, x: Tensor, y: Tensor, scale: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(columns, logits (b, c) with -inf where removed, weights (b, c) with 0 there), over all columns."""
        for start in range(0, len(y), TILE):
            part = slice(start, start + TILE)
            keep = self.row_there[:, None] & self.column_there[None, part]
            side = Side(self.columns.index[part], {name: ids[part] for name, ids in self.columns.ids.items()})
            weight = self.targets.tile(self.rows, side).to(x.dtype) * keep
            logits = (scale * (x @ y[part].T)).masked_fill(~keep, -torch.inf)
            yield part, logits, weight


@dataclass
class _Sums:
    """Running statistics of one direction: log-sum-exp, best logit, best positive, Σ w, Σ w·l; (n,) each."""

    lse: Tensor
    best: Tensor
    best_positive: Tensor
    weight: Tensor
    weighted: Tensor

    @classmethod
    def empty(cls, n: int, like: Tensor) -> _Sums:
        low, zero = like.new_full((n,), -torch.inf), like.new_zeros(n)
        return cls(low, low.clone(), low.clone(), zero, zero.clone())

    def add(self, where: slice, logits: Tensor, weight: Tensor, dim: int) -> None:
        self.lse[where] = torch.logaddexp(self.lse[where], logits.logsumexp(dim))
        if logits.shape[dim] == 0:
            return
        self.best[where] = torch.maximum(self.best[where], logits.amax(dim))
        positive = logits.masked_fill(weight == 0, -torch.inf)
        self.best_positive[where] = torch.maximum(self.best_positive[where], positive.amax(dim))
        self.weight[where] += weight.sum(dim)
        self.weighted[where] += torch.where(weight > 0, weight * logits, 0.0).sum(dim)

    def merge(self, line: Line) -> None:
        """The statistics of all ranks' rows, on every rank."""
        top = line.max(self.lse.clone())
        safe = top.masked_fill(top.isinf(), 0.0)
        self.lse = line.sum((self.lse - safe).exp()).log() + safe
        self.best, self.best_positive = line.max(self.best), line.max(self.best_positive)
        self.weight, self.weighted = line.sum(self.weight), line.sum(self.weighted)

    def loss(self) -> Tensor:
        return torch.where(self.weight > 0, self.lse - self.weighted / self.weight.clamp(min=1e-30), 0.0)

    def hit(self) -> Tensor:
        return ((self.best_positive >= self.best) & (self.weight > 0)).to(self.lse.dtype)


class _Sweeps(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, columns: Tensor, scale: Tensor, plan: _Plan) -> tuple[Tensor, ...]:
        kind = torch.promote_types(rows.dtype, torch.float32)
        x, y, s = rows.to(kind), plan.line.gather(columns).to(kind), scale.to(kind)
        by_row, by_column = _Sums.empty(len(x), x), _Sums.empty(len(y), x)
        for part, logits, weight in plan.tiles(x, y, s):
            by_row.add(slice(None), logits, weight, dim=1)
            if plan.both_ways:
                by_column.add(part, logits, weight, dim=0)
        if plan.both_ways:
            by_column.merge(plan.line)
        ctx.plan, ctx.sums, ctx.kinds = plan, (by_row, by_column), (rows.dtype, columns.dtype, scale.dtype)
        ctx.save_for_backward(x, y, s)
        mine = plan.line.mine
        out = by_row.loss(), by_column.loss()[mine], by_row.hit(), by_column.hit()[mine]
        ctx.mark_non_differentiable(*out[2:])
        return out

    @staticmethod
    def backward(ctx, row_grad: Tensor, column_grad: Tensor, *_: Tensor):
        plan, (by_row, by_column), (x, y, s) = ctx.plan, ctx.sums, ctx.saved_tensors
        g = torch.where(by_row.weight > 0, row_grad, 0.0)[:, None]
        dx, dy = torch.zeros_like(x), torch.zeros_like(y)
        if plan.both_ways:
            h = torch.where(by_column.weight > 0, plan.line.gather(column_grad.contiguous()), 0.0)[None]
        for part, logits, weight in plan.tiles(x, y, s):
            pull = g * (_softmax(logits, by_row.lse[:, None]) - weight / by_row.weight.clamp(min=1e-30)[:, None])
            if plan.both_ways:
                share = weight / by_column.weight[part].clamp(min=1e-30)[None]
                pull += h[:, part] * (_softmax(logits, by_column.lse[None, part]) - share)
            dx += s * (pull @ y[part])
            dy[part] += s * (pull.T @ x)
        ds = ((x * dx).sum() / s).reshape(s.shape)
        kinds = ctx.kinds
        return dx.to(kinds[0]), plan.line.scatter_sum(dy).to(kinds[1]), ds.to(kinds[2]), None


def _softmax(logits: Tensor, lse: Tensor) -> Tensor:
    return (logits - lse.masked_fill(lse.isinf(), 0.0)).exp()
