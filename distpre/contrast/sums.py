"""Running statistics of one direction of the contrast, folded tile by tile and merged over ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distpre.contrast.forms import Form
from distpre.contrast.layout import Axis


@dataclass
class Sums:
    """(n,) each; all but negatives and hardest only where targets need tiles.

    hardest, best, own, rival: maxima. mass: log-sum-exp of the targets' log-weights a; pull and spread: means of the
    logits and of a under softmax(a).
    """

    negatives: Tensor
    positives: Tensor
    mass: Tensor
    pull: Tensor
    spread: Tensor
    hardest: Tensor
    best: Tensor
    own: Tensor
    rival: Tensor

    @classmethod
    def empty(cls, n: int, form: Form, like: Tensor) -> Sums:
        def full(value: float) -> Tensor:
            return like.new_full((n,), value)

        low = -torch.inf
        sums = full(form.empty), full(form.empty), full(low), full(0.0), full(0.0)
        return cls(*sums, full(low), full(low), full(low), full(low))

    def weigh(self, at: slice, log_weight: Tensor, logits: Tensor, dim: int) -> None:
        """Fold in a tile's targets."""
        mass = log_weight.logsumexp(dim)
        part = share(log_weight, mass.unsqueeze(dim))
        pull = (part * logits.masked_fill(part == 0, 0.0)).sum(dim)
        spread = (part * log_weight.masked_fill(part == 0, 0.0)).sum(dim)
        total = torch.logaddexp(self.mass[at], mass)
        old, new = share(self.mass[at], total), share(mass, total)
        self.mass[at] = total
        self.pull[at] = old * self.pull[at] + new * pull
        self.spread[at] = old * self.spread[at] + new * spread

    def highest(self, name: str, at: slice, top: Tensor) -> None:
        known = getattr(self, name)
        known[at] = torch.maximum(known[at], top)

    def merge(self, axis: Axis, form: Form, tileless: bool) -> None:
        """The statistics of the whole line, on every rank of the axis."""
        if len(axis.counts) == 1:
            return
        self.negatives = form.merge(axis, self.negatives)
        if tileless:
            self.hardest = axis.max(self.hardest)
            return
        self.positives = form.merge(axis, self.positives)
        tops = axis.max(torch.stack([self.hardest, self.best, self.own, self.rival, self.mass]))
        self.hardest, self.best, self.own, self.rival, top = tops
        part = share(self.mass, top)
        total, pull, spread = axis.sum(torch.stack([part, part * self.pull, part * self.spread]))
        self.mass = total.log() + top.masked_fill(top.isinf(), 0.0)
        some = total.clamp(min=1e-30)  # one rank holds the top: total is 0 or at least 1
        self.pull, self.spread = pull / some, spread / some

    def direction(self, mine: slice) -> tuple[Tensor, ...]:
        """In Direction's order."""
        entropy = torch.where(self.mass.isfinite(), self.mass - self.spread, 0.0)
        out = self.negatives, self.positives, self.pull, self.hardest, self.best, entropy, self.own, self.rival
        return tuple(x[mine] for x in out)


def share(log_weight: Tensor, mass: Tensor) -> Tensor:
    """exp(log_weight - mass), 0 where there is no mass."""
    return (log_weight - mass.masked_fill(mass.isinf(), 0.0)).exp()
