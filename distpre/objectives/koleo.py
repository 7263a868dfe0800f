"""KoLeo: unit vectors spread out, each pushed from its nearest neighbour (Sablayrolles et al. 2019, eq. 5)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from distpre.group import first_row, gathered, gathered_with_gradient, total, world_size
from distpre.types import Step, TermResult

TILE = 4096  # candidates compared at once
TINY = 1e-8  # two equal vectors have a finite loss


class KoLeo:
    """Mean over views and samples of -log(min_j |h_i - h_j| + 1e-8), j another sample of the same view.

    of: views. within: "batch", the neighbour is that of the global batch, the same at any number of ranks; "rank", that
    of this rank's part, which is nearer the fewer ranks there are. The papers that use it do not say which; DINOv2's
    code takes the rank's. Gradients reach the vector and its neighbour, on whatever rank it is. A sample of weight 0,
    or without the view, is nobody's neighbour and counts in no mean.
    """

    local = False

    def __init__(self, of: list[str], within: Literal["batch", "rank"] = "batch"):
        self.of, self.within = of, within
        self.collects = dict.fromkeys(of, 3) if within == "batch" else {}  # there, and summed, back

    def __call__(self, step: Step) -> TermResult:
        parts = [self._view(step, view) for view in self.of]
        loss, distance = (torch.stack(x).mean(0) for x in zip(*parts, strict=True))
        return TermResult(loss, log={"nearest": distance})

    def _view(self, step: Step, view: str) -> tuple[Tensor, Tensor]:
        x, there = step.student[view].vector, step.batch.present_in(view)
        if self.within == "batch":
            every, first = gathered_with_gradient(x), first_row(x)
            known = gathered(there)
        else:
            every, first, known = x, 0, there
        neighbour, found = nearest(x.detach(), every.detach(), known, first)
        distance = (x - every[neighbour]).square().sum(1)
        distance = torch.where(distance > 0, distance, 1.0).sqrt() * (distance > 0)  # no infinite slope at 0
        weight = step.batch.weight * (there & found)
        share = weight * world_size() / total(weight.sum()).clamp(min=1e-12)
        return -(share * (distance + TINY).log()).sum(), (share * distance.detach()).sum()


def nearest(x: Tensor, every: Tensor, there: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """(n,) place in `every` of each unit vector's nearest other, and whether there is one.

    x: (n, d) are rows first, first + 1 ... of every (m, d); there: (m,) bool, the rest is nobody's neighbour.
    """
    best = x.new_full((len(x),), -torch.inf)
    place = torch.zeros(len(x), dtype=torch.long, device=x.device)
    own = first + torch.arange(len(x), device=x.device)
    for start in range(0, len(every), TILE):
        scores = x @ every[start : start + TILE].T
        columns = start + torch.arange(scores.shape[1], device=x.device)
        scores = scores.masked_fill((columns == own[:, None]) | ~there[columns], -torch.inf)
        score, at = scores.max(1)
        place = torch.where(score > best, start + at, place)
        best = torch.maximum(best, score)
    return place, best > -torch.inf
