"""What enters the contrast (Block) and what comes out of it (Direction, Contrast)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """One side of the contrast, this rank's part.

    vectors: (n, d), or what the similarity takes. facts: {name: (n, ...)}, what target rules look at (ids, label
    vectors, a teacher's vectors), without gradient. present: (n,) bool, None for all. log_weight: (n,), added to every
    logit of the entry (log Q correction, importance weights), None for zero. place: (n,) number of the sample within
    this rank's batch, None for 0 ... n-1.
    """

    vectors: Tensor
    facts: dict[str, Tensor] = field(default_factory=dict)
    present: Tensor | None = None
    log_weight: Tensor | None = None
    place: Tensor | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def there(self) -> Tensor:
        if self.present is not None:
            return self.present
        return torch.ones(len(self), dtype=torch.bool, device=self.vectors.device)

    def index(self, rank: int) -> Tensor:
        """(n,) a number for each sample that no other rank's sample has."""
        place = torch.arange(len(self), device=self.vectors.device) if self.place is None else self.place
        return place + (rank << 32)


def joined(blocks: list[Block]) -> Block:
    """Several views of the same samples as one side; fact "view" tells them apart (NT-Xent)."""
    facts = {name: torch.cat([b.facts[name] for b in blocks]) for name in blocks[0].facts}
    facts["view"] = torch.cat([torch.full_like(b.index(0), v) for v, b in enumerate(blocks)])
    weights = [b.log_weight for b in blocks]
    return Block(
        torch.cat([b.vectors for b in blocks]),
        facts,
        torch.cat([b.there() for b in blocks]),
        None if weights[0] is None else torch.cat(weights),
        torch.cat([b.index(0) for b in blocks]),
    )


@dataclass(frozen=True)
class Direction:
    """What one direction of the contrast found for this rank's samples, (n,) each.

    With gradient: negatives and positives, the log-sum-exp of the logits of either kind (sigmoid: their sums of
    softplus(l) and softplus(-l)); target, the mean of the logits under the target weights.
    Without: hardest negative and best positive logit; entropy of the target weights; own and rival, the log-weight of
    the sample's own pair and the largest of any other.
    """

    negatives: Tensor
    positives: Tensor
    target: Tensor
    hardest: Tensor
    best: Tensor
    entropy: Tensor
    own: Tensor
    rival: Tensor

    def loss(self, *, inside: bool = False, positives_below: bool = True) -> Tensor:
        """(n,) softmax cross-entropy against the target weights; 0 for a sample that is absent or has no positive.

        inside: the sum over positives stands inside the logarithm (MIL-NCE, Miech et al. 2020, eq. 1), else the mean
        of their logarithms (SupCon L_out, Khosla et al. 2020, eq. 2). positives_below: positives are in the
        denominator; without them it is that of DCL (Yeh et al. 2022, eq. 5), and 0 also where there is no negative.
        """
        told = self.told if positives_below else self.told & self.negatives.isfinite()
        negatives, positives, target = (
            torch.where(told, x, 0.0) for x in (self.negatives, self.positives, self.target)
        )
        below = torch.logaddexp(negatives, positives) if positives_below else negatives
        return torch.where(told, below - (positives if inside else target), 0.0)

    @property
    def told(self) -> Tensor:
        """(n,) bool: the sample is there and has a positive."""
        return self.best > -torch.inf

    @property
    def hit(self) -> Tensor:
        """(n,) 1 where a positive scores highest."""
        return ((self.best >= self.hardest) & self.told).to(self.best.dtype)

    @property
    def trusted(self) -> Tensor:
        """(n,) bool: no other pair has more target weight than the sample's own (Mod-X's test of a teacher's row)."""
        return self.told & (self.own >= self.rival)


@dataclass(frozen=True)
class Contrast:
    """rows: each row over all columns. columns: each column over all rows, None when one way was asked for."""

    rows: Direction
    columns: Direction | None
