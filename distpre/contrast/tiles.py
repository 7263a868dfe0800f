"""A contrast cut into tiles: the logits of some rows by some columns, and what the rule says of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from distpre.contrast import fused
from distpre.contrast.block import Block
from distpre.contrast.forms import Form
from distpre.contrast.fused import Fused
from distpre.contrast.layout import Laid, Tensors
from distpre.contrast.similarity import Dot, Similarity
from distpre.contrast.targets import NoPair, OwnPair, Side, Targets

TILE = {"cpu": (1024, 1024), "cuda": (4096, 8192)}  # rows and columns of a tile; its logits are held at once


@dataclass(frozen=True)
class Job:
    """Everything about a contrast but its scale and bias."""

    rows: Block
    columns: Block
    targets: Targets
    similarity: Similarity
    form: Form
    both_ways: bool
    keep_bytes: int
    laid: Laid

    @property
    def linear(self) -> bool:
        """Logits are linear in the rows, so the scale may multiply those and its gradient comes with theirs."""
        return isinstance(self.similarity, Dot)

    @property
    def own_outside(self) -> bool:
        """Own pairs lie on one rank: the caller finishes them in O(b·d) and the sweep leaves them out."""
        return isinstance(self.targets, OwnPair) and self.linear

    @property
    def tileless(self) -> bool:
        """Every pair of the sweep is a negative."""
        return self.own_outside or isinstance(self.targets, NoPair)

    @property
    def keeps(self) -> bool:
        layout = self.laid.layout
        return 4 * layout.rows.total * layout.columns.total <= self.keep_bytes

    def carried(self, block: Block) -> Tensors:
        """What travels with a side's vectors."""
        out = {"vectors": block.vectors.detach(), "present": block.there().to(torch.uint8)}
        if block.log_weight is not None:
            out["log_weight"] = block.log_weight.detach()
        if not self.tileless:
            out["index"] = block.index(self.laid.rank)
            out |= {f"fact {name}": x.detach() for name, x in block.facts.items()}
        return out


class Dense(NamedTuple):
    """Logits (r, c) of one kind, -inf elsewhere, as a form sees them; fused.Fused answers the same."""

    logits: Tensor
    form: Form

    def sums(self, both: bool) -> tuple[Tensor, Tensor | None]:
        return self.form.sums(self.logits, both)

    def tops(self) -> tuple[Tensor, Tensor]:
        """Highest logit of each row and of each column."""
        return self.logits.amax(1), self.logits.amax(0)

    def pull(self, g: Tensor, row: Tensor, h: Tensor | None, column: Tensor | None) -> Tensor:
        return self.form.pull(self.logits, g, row, h, column)


class Tile(NamedTuple):
    """negatives: what the form needs of them. The rest None where the job is tileless.

    logits: -inf where removed. positives: sign * logits, -inf but at positives. row_, column_weight: log of the
    targets' weights; own and rival: the rows' at the own pair and elsewhere, before the rule removed any.
    """

    negatives: Dense | Fused
    logits: Tensor | None = None
    positives: Dense | None = None
    row_weight: Tensor | None = None
    column_weight: Tensor | None = None
    own: Tensor | None = None
    rival: Tensor | None = None


@dataclass(frozen=True)
class Part:
    """Gathered rows, or a panel of columns, or a tile's part of either."""

    vectors: Tensor
    gone: Tensor | None  # (n,) bool; None where all are present
    log_weight: Tensor | None
    side: Side | None

    @classmethod
    def of(cls, held: Tensors, count: int) -> Part:
        gone = held["present"] == 0
        facts = {name.removeprefix("fact "): x for name, x in held.items() if name.startswith("fact ")}
        side = Side(held["index"], facts, count) if "index" in held else None
        return cls(held["vectors"], gone if gone.any() else None, held.get("log_weight"), side)

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, at: slice) -> Part:
        parts = (self.vectors, self.gone, self.log_weight, self.side)
        return Part(*(None if x is None else x[at] for x in parts))


@dataclass(frozen=True)
class Tiles:
    """Made again for each sweep, or kept from the first where the job has the memory for all."""

    job: Job
    rows: Part
    scale: Tensor
    bias: Tensor | None
    kind: torch.dtype
    kept: dict[tuple[int, int], Tensor]

    def of(self, place: slice, panel: Tensors) -> Iterator[tuple[slice, slice, Tile]]:
        """(rows of the rows axis, columns within the panel, tile); the tile's tensors may be overwritten."""
        columns = Part.of(panel, self.job.laid.counts[1])
        high, wide = TILE[columns.vectors.device.type]
        for at in _cuts(len(self.rows), high):
            rows = self.rows[at]
            x = rows.vectors.to(self.kind)
            if self.job.linear:
                x = x * self.scale
            for to in _cuts(len(columns), wide):
                part = columns[to]
                if self.job.tileless and self.job.linear and fused.usable(x):
                    yield at, to, Tile(self._fused(rows, part, at, to, place.start))
                else:
                    logits = self._kept(at.start, place.start + to.start, x, part)
                    yield at, to, self._tile(logits, rows, part, self._own_pairs(logits, at, to, place.start))

    def back(self, pull: Tensor, at: slice, y: Tensor, dx: Tensor, dy: Tensor | None) -> Tensor | float:
        """Adds the tile's part to dx[at] and dy (both before the scale where linear); returns the scale's, else 0."""
        x, y = self.rows.vectors[at].to(self.kind), y.to(self.kind)
        if self.job.linear:
            dx[at].addmm_(pull, y)
            if dy is not None:
                dy.addmm_(pull.T, x)
            return 0.0
        with torch.enable_grad():
            x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
            alike = self.job.similarity.tile(x, y)
            more_x, more_y = torch.autograd.grad(alike, (x, y), self.scale * pull)
        dx[at] += more_x
        if dy is not None:
            dy += more_y
        return (pull * alike.detach()).sum()

    def _kept(self, row: int, column: int, x: Tensor, columns: Part) -> Tensor:
        """Logits of a tile, from the first sweep where they were kept."""
        if (row, column) in self.kept:
            return self.kept[row, column].clone()
        logits = self.job.similarity.tile(x, columns.vectors.to(self.kind))
        if not self.job.linear:
            logits = self.scale * logits
        if self.bias is not None:
            logits.add_(self.bias)
        if self.job.keeps:
            self.kept[row, column] = logits.clone()
        return logits

    def _own(self, at: slice, to: slice, shift: int) -> tuple[slice, slice, int]:
        """Rows and columns of the tile among this rank's own, and column - row of an own pair."""
        row, column = self.job.laid.layout.rows.mine, self.job.laid.layout.columns.mine
        top, bottom = max(at.start, row.start), min(at.stop, row.stop)
        left, right = max(to.start + shift, column.start), min(to.stop + shift, column.stop)
        across = slice(left - shift - to.start, max(left, right) - shift - to.start)
        offset = (column.start - shift - to.start) - (row.start - at.start)
        return slice(top - at.start, max(top, bottom) - at.start), across, offset

    def _own_pairs(self, logits: Tensor, at: slice, to: slice, shift: int) -> Tensor:
        """The part on the diagonal of this rank's rows by this rank's columns: a view."""
        rows, columns, offset = self._own(at, to, shift)
        if rows.start == rows.stop or columns.start == columns.stop:
            return logits.new_empty(0)
        return logits[rows, columns].diagonal(rows.start + offset - columns.start)

    def _fused(self, rows: Part, columns: Part, at: slice, to: slice, shift: int) -> Fused:
        mine, across, offset = self._own(at, to, shift)
        if not self.job.own_outside or across.start == across.stop:
            mine = slice(0, 0)
        sides = []
        for part in (rows, columns):
            more = self.scale.new_zeros(len(part)) if part.log_weight is None else part.log_weight.to(self.kind)
            sides.append(more if part.gone is None else more.masked_fill(part.gone, -torch.inf))
        if self.bias is not None:
            sides[0] = sides[0] + self.bias
        return Fused(
            rows.vectors,
            columns.vectors.to(rows.vectors.dtype),
            self.scale,
            *sides,
            (mine.start, mine.stop, offset),
            self.job.form,
        )

    def _tile(self, logits: Tensor, rows: Part, columns: Part, own_pairs: Tensor) -> Tile:
        if rows.log_weight is not None:
            logits += rows.log_weight[:, None]
        if columns.log_weight is not None:
            logits += columns.log_weight
        gone = _either(rows.gone, columns.gone)
        if self.job.tileless:
            if self.job.own_outside:
                own_pairs.fill_(-torch.inf)
            return Tile(Dense(logits if gone is None else logits.masked_fill_(gone, -torch.inf), self.job.form))
        return self._ruled(logits, rows.side, columns.side, gone)

    def _ruled(self, logits: Tensor, rows: Side, columns: Side, gone: Tensor | None) -> Tile:
        low = -torch.inf
        said = self.job.targets.tile(rows, columns)
        by_row = said.log_weight.to(logits.dtype)
        by_column = by_row if said.column_log_weight is None else said.column_log_weight.to(logits.dtype)
        own = rows.index[:, None] == columns.index
        weight = by_row if gone is None else by_row.masked_fill(gone, low)
        tops = weight.masked_fill(~own, low), weight.masked_fill(own, low)
        if said.keep is not None:
            gone = ~said.keep if gone is None else gone | ~said.keep
        if gone is not None:
            logits, by_row, by_column = (x.masked_fill(gone, low) for x in (logits, by_row, by_column))
        positive = (by_row > low) | (by_column > low)
        negatives = Dense(logits.masked_fill(positive, low), self.job.form)
        positives = Dense((self.job.form.sign * logits).masked_fill(~positive, low), self.job.form)
        return Tile(negatives, logits, positives, by_row, by_column, *tops)


def _cuts(n: int, size: int) -> Iterator[slice]:
    for at in range(0, n, size):
        yield slice(at, min(at + size, n))


def _either(rows: Tensor | None, columns: Tensor | None) -> Tensor | None:
    if rows is None:
        return None if columns is None else columns[None]
    return rows[:, None] if columns is None else rows[:, None] | columns
