"""How alike a row and a column are, one tile at a time. Differentiable torch code; the sweep does the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Similarity(Protocol):
    def tile(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Vectors of r rows and c columns, (r, ...) and (c, ...) -> (r, c)."""


@dataclass(frozen=True)
class Dot:
    """<x, y>; the cosine of unit vectors."""

    def tile(self, rows: Tensor, columns: Tensor) -> Tensor:
        return rows @ columns.transpose(-1, -2)


@dataclass(frozen=True)
class GatedSubspace:
    """Cosine in the row's own subspace: of g*x and g*y, g in (0, 1)^d the row's gate (SimLAP, 2025).

    rows: (r, 2, d) or (r, 2·d): the vector, then its gate; columns: (c, 2, d), whose gates are not used in this
    direction. Two products, no (r, c, d).
    """

    def tile(self, rows: Tensor, columns: Tensor) -> Tensor:
        x, gate = rows[..., 0, :], rows[..., 1, :].square()
        y = columns[..., 0, :]
        inner = (gate * x) @ y.transpose(-1, -2)
        long = (gate * x.square()).sum(-1).clamp(min=1e-12).sqrt()
        wide = (gate @ y.square().transpose(-1, -2)).clamp(min=1e-12).sqrt()
        return inner / (long[..., :, None] * wide)


@dataclass(frozen=True)
class MaxMean:
    """Mean over a row's tokens of their best match among the column's tokens (FILIP, Yao et al. 2022, eq. 4; SECLA).

    rows: (r, t, d + 1), columns: (c, u, d + 1): tokens, then 1 for a real token and 0 for padding. Both directions of
    the set-to-set loss are two contrasts with rows and columns exchanged.
    """

    def tile(self, rows: Tensor, columns: Tensor) -> Tensor:
        (x, real), (y, there) = _tokens(rows), _tokens(columns)
        each = (x.flatten(0, 1) @ y.flatten(0, 1).T).unflatten(1, y.shape[:2]).unflatten(0, x.shape[:2])
        best = each.masked_fill(~there, -1e30).amax(3)  # (r, t, c)
        share = real.to(x) / real.sum(1, keepdim=True).clamp(min=1)
        return (best * share[:, :, None]).sum(1)


def _tokens(values: Tensor) -> tuple[Tensor, Tensor]:
    return values[..., :-1], values[..., -1] > 0


__all__ = ["Dot", "GatedSubspace", "MaxMean", "Similarity"]
