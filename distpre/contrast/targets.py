"""Which (row, column) pairs count, and how much. One tile at a time, from O(b) vectors, never B by B.

A rule answers for a tile: the logarithm of each pair's target weight (minus infinity: no positive, so a negative), and
which pairs are removed, from the denominator too. The primitive normalises the weights in each direction. Rules
broadcast over leading dimensions: index (..., n), facts (..., n) or (..., n, k).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Side:
    """One side of a tile. index: (n,) equal for the two halves of a pair; facts {name: (n, ...)}.

    count: how many samples of this side are present in the whole contrast.
    """

    index: Tensor
    facts: dict[str, Tensor]
    count: int

    def __getitem__(self, part: slice) -> Side:
        return Side(self.index[part], {name: values[part] for name, values in self.facts.items()}, self.count)


@dataclass(frozen=True)
class Tile:
    """log_weight: (r, c), -inf for a negative. keep: (r, c) bool, False removes the pair; None keeps all.

    column_log_weight: the columns' own target weights where they differ from the rows'.
    """

    log_weight: Tensor
    keep: Tensor | None = None
    column_log_weight: Tensor | None = None


class Targets(Protocol):
    def tile(self, rows: Side, columns: Side) -> Tile: ...


@dataclass(frozen=True)
class OwnPair:
    """Row i's positive is column i (CLIP; InfoNCE, van den Oord et al. 2018). The primitive needs no tile for it."""

    def tile(self, rows: Side, columns: Side) -> Tile:
        return Tile(_log(_equal(rows.index, columns.index)))


@dataclass(frozen=True)
class NoPair:
    """Every column is a negative (banks)."""

    def tile(self, rows: Side, columns: Side) -> Tile:
        return Tile(_log(_equal(rows.index, columns.index) & False))


@dataclass(frozen=True)
class OtherView:
    """Of joined views of the same samples: another view of the sample is the positive, the entry itself is removed.

    NT-Xent (Chen et al. 2020, eq. 1); with id, every entry with the same id, SupCon's form.
    """

    id: str | None = None

    def tile(self, rows: Side, columns: Side) -> Tile:
        same = _equal(rows.index, columns.index)
        itself = same & _equal(rows.facts["view"], columns.facts["view"])
        positive = same if self.id is None else _equal(rows.facts[self.id], columns.facts[self.id])
        return Tile(_log(positive & ~itself), keep=~itself)


@dataclass(frozen=True)
class SameId:
    """Every column with the row's id is a positive, all with equal weight (SupCon, Khosla et al. 2020).

    own: the row's own column is "positive" like the others, "negative" (COMET's released code), or "removed".
    """

    id: str
    own: str = "positive"

    def tile(self, rows: Side, columns: Side) -> Tile:
        same = _equal(rows.facts[self.id], columns.facts[self.id])
        if self.own == "positive":
            return Tile(_log(same))
        itself = _equal(rows.index, columns.index)
        return Tile(_log(same & ~itself), keep=~itself if self.own == "removed" else None)


@dataclass(frozen=True)
class OtherId:
    """Row i's positive is column i; other columns with the row's id are removed: neither positive nor negative."""

    id: str

    def tile(self, rows: Side, columns: Side) -> Tile:
        own = _equal(rows.index, columns.index)
        return Tile(_log(own), keep=own | ~_equal(rows.facts[self.id], columns.facts[self.id]))


@dataclass(frozen=True)
class TrueNegatives:
    """Row i's positive is column i; columns that frozen towers find about as right are removed (OpenShape, 2023).

    rows, columns: facts, frozen unit vectors u and v of every sample (an image's and a text's). Pair (i, j) is removed
    where <u_i, v_i> - <u_i, v_j> <= margin; with id only among samples that share it, as in the paper, whose groups are
    a seed and its neighbours. Its released code multiplies such logits by 0, which leaves them in the denominator.
    A sample without one of the two, whose vector is 0, is judged by nothing: its pairs stay.
    """

    rows: str
    columns: str
    margin: float = 0.1
    id: str | None = None

    def tile(self, rows: Side, columns: Side) -> Tile:
        own = _equal(rows.index, columns.index)
        right = (rows.facts[self.rows] * rows.facts[self.columns]).sum(-1)[..., :, None]
        other = rows.facts[self.rows] @ columns.facts[self.columns].transpose(-1, -2)
        alike = (right - other <= self.margin) & (right != 0) & (other != 0)
        if self.id is not None:
            alike = alike & _equal(rows.facts[self.id], columns.facts[self.id])
        return Tile(_log(own), keep=own | ~alike)


@dataclass(frozen=True)
class LabelSimilarity:
    """A pair weighs as much as its label vectors agree: max(<a_i, b_j>, 0) where above floor (SoftCon, 2024).

    labels: a fact of shape (n, k), unit vectors where a cosine is meant.
    """

    labels: str
    floor: float = 0.0

    def tile(self, rows: Side, columns: Side) -> Tile:
        agreement = rows.facts[self.labels] @ columns.facts[self.labels].transpose(-1, -2)
        return Tile(torch.where(agreement > self.floor, agreement, 0.0).log())


@dataclass(frozen=True)
class Mixed:
    """Row i is a mixture of two samples: weight share_i on its own column, 1 - share_i on the partner's (i-Mix, 2021).

    partner, share, name: facts; columns are found by the fact `name`, which the rows' `partner` points at.
    """

    partner: str = "partner"
    share: str = "share"
    name: str = "ordinal"

    def tile(self, rows: Side, columns: Side) -> Tile:
        share = rows.facts[self.share][..., :, None]
        own = _equal(rows.index, columns.index) * share
        return Tile((own + _equal(rows.facts[self.partner], columns.facts[self.name]) * (1 - share)).log())


@dataclass(frozen=True)
class Smoothed:
    """Row i's own column weighs 1 - w_i, all others share w_i; columns likewise with their own w (NEVLP, 2024).

    w = strength * amount; amount: a fact (n,) in [0, 1], one number a sample, such as the name of a `weighting`; or one
    number for all (label smoothing, Szegedy et al. 2016).
    """

    amount: str | float
    strength: float = 1.0

    def tile(self, rows: Side, columns: Side) -> Tile:
        own = _equal(rows.index, columns.index)
        by_row = self.strength * self._of(rows)[..., :, None]
        by_column = self.strength * self._of(columns)[..., None, :]
        return Tile(
            _smoothed(own, by_row, columns.count),
            column_log_weight=_smoothed(own, by_column, rows.count).expand(own.shape),
        )

    def _of(self, side: Side) -> Tensor:
        if isinstance(self.amount, str):
            return side.facts[self.amount]
        return torch.full(side.index.shape, self.amount, dtype=torch.float64, device=side.index.device)


@dataclass(frozen=True)
class Dropped:
    """As `targets` say, but samples whose `amount` is above `most` are removed: no positive, no negative, loss 0.

    amount: a fact (n,), such as the name of a `weighting`. The mean is still over all samples.
    """

    amount: str
    most: float
    targets: Targets = OwnPair()  # noqa: RUF009  (holds no state)

    def tile(self, rows: Side, columns: Side) -> Tile:
        fine = [side.facts[self.amount] <= self.most for side in (rows, columns)]
        kept, said = fine[0][..., :, None] & fine[1][..., None, :], self.targets.tile(rows, columns)
        by_column = said.column_log_weight
        return Tile(
            said.log_weight.masked_fill(~kept, -math.inf),
            kept if said.keep is None else kept & said.keep,
            None if by_column is None else by_column.masked_fill(~kept, -math.inf),
        )


@dataclass(frozen=True)
class Teacher:
    """Targets are a teacher's softmax over the same pairs: scale * <u_i, v_j> (Mod-X, Ni et al. 2023, eq. 5-7).

    vectors: the fact that holds the teacher's u on rows and v on columns, (n, d'). diagonal False takes the own pair
    out of both distributions. Rows the teacher has right are the direction's `trusted`.
    """

    vectors: str = "teacher"
    scale: float = 1.0
    diagonal: bool = True

    def tile(self, rows: Side, columns: Side) -> Tile:
        logits = self.scale * (rows.facts[self.vectors] @ columns.facts[self.vectors].transpose(-1, -2))
        return Tile(logits, keep=None if self.diagonal else ~_equal(rows.index, columns.index))


def _equal(rows: Tensor, columns: Tensor) -> Tensor:
    return rows[..., :, None] == columns[..., None, :]


def _log(positive: Tensor) -> Tensor:
    return torch.where(positive, 0.0, -math.inf)


def _smoothed(own: Tensor, amount: Tensor, count: int) -> Tensor:
    return torch.where(own, (1 - amount).log(), (amount / max(1, count - 1)).log())
