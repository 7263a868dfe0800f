"""The two sweeps over tiles, as one autograd function. The mathematics is in distpre/contrast/__init__.py."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from distpre.contrast.block import Direction
from distpre.contrast.layout import Axis, Tensors
from distpre.contrast.sums import Sums, share
from distpre.contrast.tiles import Job, Part, Tile, Tiles

FIGURES = len(fields(Direction))
WITH_GRADIENT = 3  # the first figures of a Direction: negatives, positives, target


def sweep(job: Job, scale: Tensor, bias: Tensor | None) -> tuple[Direction, Direction | None]:
    """Both directions over all pairs, but for own pairs that the job leaves outside. Every rank calls it."""
    with torch.autocast(job.rows.vectors.device.type, enabled=False):
        out = _Sweeps.apply(job.rows.vectors, job.columns.vectors, scale, bias, job)
    return Direction(*out[:FIGURES]), Direction(*out[FIGURES:]) if job.both_ways else None


class _Sweeps(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor | None, job: Job) -> tuple[Tensor, ...]:
        kind = torch.promote_types(rows.dtype, torch.float32)
        layout, form = job.laid.layout, job.form
        held = Part.of(layout.rows.gather_all(job.carried(job.rows)), job.laid.counts[0])
        panels = layout.panels(job.carried(job.columns))
        tiles = Tiles(job, held, scale.to(kind), None if bias is None else bias.to(kind), kind, {})
        by_row = Sums.empty(layout.rows.total, form, tiles.scale)
        by_column = Sums.empty(layout.columns.total if job.both_ways else 0, form, tiles.scale)
        for place, panel in panels:
            for at, to, tile in tiles.of(place, panel):
                _count(job, tile, by_row, at, by_column, _shifted(to, place))
        by_row.merge(layout.rows, form, job.tileless)
        out = by_row.direction(layout.rows.mine)
        if job.both_ways:
            by_column.merge(layout.columns, form, job.tileless)
            out += by_column.direction(layout.columns.mine)
        ctx.tiles, ctx.panels, ctx.sums = tiles, panels, (by_row, by_column)
        ctx.kinds = rows.dtype, columns.dtype, scale.dtype
        ctx.mark_non_differentiable(*(x for i, x in enumerate(out) if i % FIGURES >= WITH_GRADIENT))
        return out

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        tiles, (by_row, by_column), job = ctx.tiles, ctx.sums, ctx.tiles.job
        layout, kind = job.laid.layout, tiles.kind

        def gathered(axis: Axis, some: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return axis.gather(torch.stack(some[:WITH_GRADIENT], 1)).unbind(1)

        g = gathered(layout.rows, gradients[:FIGURES])
        h = gathered(layout.columns, gradients[FIGURES:]) if job.both_ways else None
        dx = tiles.scale.new_zeros(tiles.rows.vectors.shape)
        ds, db = tiles.scale.new_zeros(1), tiles.scale.new_zeros(1)

        def gradient(place: slice, panel: Tensors) -> Tensor:
            y = panel["vectors"]
            dy = y.new_zeros(y.shape, dtype=kind) if ctx.needs_input_grad[1] else None
            for at, to, tile in tiles.of(place, panel):
                pull = _pull(job, tile, by_row, g, at, by_column, h, _shifted(to, place))
                if tiles.bias is not None:
                    db.add_(pull.sum())
                ds.add_(tiles.back(pull, at, y[to], dx, None if dy is None else dy[to]))
            return dy

        if ctx.needs_input_grad[1]:
            dy = ctx.panels.returned(gradient)
        else:
            dy = [gradient(*panel) for panel in ctx.panels][-1]
        dx = layout.rows.scatter_sum(dx)
        if job.linear:
            ds = (dx * job.rows.vectors.detach()).sum().reshape(1)
            dx, dy = (None if x is None else x.mul_(tiles.scale) for x in (dx, dy))
        kinds = ctx.kinds
        return (
            dx.to(kinds[0]),
            None if dy is None else dy.to(kinds[1]),
            ds.to(kinds[2]),
            None if tiles.bias is None else db.to(kinds[2]),
            None,
        )


def _shifted(to: slice, place: slice) -> slice:
    return slice(place.start + to.start, place.start + to.stop)


def _count(job: Job, tile: Tile, by_row: Sums, at: slice, by_column: Sums, to: slice) -> None:
    """Folds a tile into the statistics of its rows and of its columns."""
    sides = [(by_row, at, 1), (by_column, to, 0)][: 1 + job.both_ways]
    for name in ("negatives",) if job.tileless else ("negatives", "positives"):
        for (sums, place, _), new in zip(sides, getattr(tile, name).sums(job.both_ways), strict=False):
            known = getattr(sums, name)
            known[place] = job.form.join(known[place], new)
    for (sums, place, dim), top in zip(sides, tile.negatives.tops(), strict=False):
        sums.highest("hardest", place, top)
        if not job.tileless:
            positive = tile.logits.masked_fill(tile.positives.logits == -torch.inf, -torch.inf)
            sums.highest("best", place, positive.amax(dim))
            sums.highest("own", place, tile.own.amax(dim))
            sums.highest("rival", place, tile.rival.amax(dim))
            sums.weigh(place, tile.row_weight if dim else tile.column_weight, tile.logits, dim)


def _pull(job: Job, tile: Tile, by_row: Sums, g, at: slice, by_column: Sums, h, to: slice) -> Tensor:
    """(r, c) derivative by the logit. g, h: gradients of the lines' three figures; h None: one way."""

    def part(name: str, figure: int) -> Tensor:
        column = (None, None) if h is None else (h[figure][to], getattr(by_column, name)[to])
        return getattr(tile, name).pull(g[figure][at], getattr(by_row, name)[at], *column)

    out = part("negatives", 0)
    if job.tileless:
        return out
    out += job.form.sign * part("positives", 1)
    out += g[2][at, None] * share(tile.row_weight, by_row.mass[at, None])
    if h is not None:
        out += h[2][to] * share(tile.column_weight, by_column.mass[to])
    return out
