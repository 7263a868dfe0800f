"""Which (row, column) pairs count, and how much. One tile at a time, from O(b) vectors, never B by B."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Side:
    """One side of a tile: index (n,) place in the global batch, ids {name: (n,)}."""

    index: Tensor
    ids: dict[str, Tensor]


class Targets(Protocol):
    def tile(self, rows: Side, columns: Side) -> Tensor:
        """(r, c) weights >= 0; the primitive normalises them in each direction."""


@dataclass(frozen=True)
class OwnPair:
    """Row i's positive is column i (CLIP; InfoNCE, van den Oord et al. 2018)."""

    def tile(self, rows: Side, columns: Side) -> Tensor:
        return rows.index[:, None] == columns.index[None]


@dataclass(frozen=True)
class SameId:
    """Every column with the row's id is a positive, all with equal weight (SupCon L_out, Khosla et al. 2020, eq. 2).

    The mean over positives stands outside the logarithm; positives stay in the denominator.
    """

    id: str

    def tile(self, rows: Side, columns: Side) -> Tensor:
        return rows.ids[self.id][:, None] == columns.ids[self.id][None]
