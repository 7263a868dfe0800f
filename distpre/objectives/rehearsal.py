"""COCONUT: earlier samples drawn to their class as one model saw it, away from the batch as another model sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from distpre.contrast import Direction, contrast
from distpre.contrast.targets import SameId
from distpre.group import total, world_size
from distpre.objectives.contrast import Scaling, block, shared
from distpre.objectives.distance import Among
from distpre.schedule import Schedule
from distpre.types import Step, TermResult


class Rehearsal:
    """A supervised contrast whose numerator and denominator have keys of their own (Cappellazzo et al. 2023, eq. 5).

    Sum over anchors k of -1/|P(k)| Σ_{p in P(k)} log[exp(s<a_k, u_p>) / Σ_i exp(s<a_k, w_i>)]: a of `rows`, u of
    `positives`, w of `denominator`, P(k) the batch's samples with k's value of `id`, i over the whole global batch.

    rows, positives, denominator: embeddings. {rows: audio, positives: old.audio, denominator: audio} is NSPT (negatives
    of the student, positives of the teacher), with {denominator: old.audio} NTPT. among: which samples are anchors; all
    are keys. own: an anchor's own sample is among its keys. positives_below: the denominator runs over the whole batch,
    else over the other classes. reduction: "sum" over anchors as in the paper, or "mean". scale or temperature,
    layout: as in contrast. 0 without anchors.
    """

    local = False

    def __init__(
        self,
        rows: str,
        positives: str,
        denominator: str,
        id: str,
        scale: str | None = None,
        temperature: Schedule | None = None,
        among: Among = "replayed",
        own: bool = True,
        positives_below: bool = True,
        reduction: Literal["sum", "mean"] = "sum",
        layout: str = "auto",
    ):
        self.rows, self.keys, self.scaling = rows, (positives, denominator), Scaling(scale, temperature)
        self.among, self.positives_below, self.reduction, self.layout = among, positives_below, reduction, layout
        self.targets = SameId(id, "positive" if own else "removed")
        self.gathers = [rows]

    def __call__(self, step: Step) -> TermResult:
        scale, _ = self.scaling.at(step)
        anchors = block(step, self.rows, {}, self.among)
        found: dict[str, Direction] = {}
        for keys in dict.fromkeys(self.keys):
            asked = {"targets": self.targets, "both_ways": False, "layout": self.layout}
            found[keys] = contrast(anchors, block(step, keys, {}), scale, **asked).rows
        above, below = (found[keys] for keys in self.keys)
        # An anchor counts where there is something in its numerator and in its denominator.
        best = torch.minimum(above.best, torch.maximum(below.best, below.hardest))
        split = replace(below, target=above.target, best=best)
        weight = step.batch.weight * split.told
        share, each = shared(weight), split.loss(positives_below=self.positives_below)
        mean = (share * each).sum()
        loss = mean if self.reduction == "mean" else world_size() * (step.batch.weight * each).sum()
        return TermResult(loss, each.detach(), {"anchors": total(weight.sum()), "mean": mean})
