"""Distance of two embeddings of the same samples: what holds a student to a teacher, or drives it away from one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from distpre.group import total, world_size
from distpre.types import Batch, Step, TermResult

Among = Literal["all", "current", "replayed"]
PART = "part"  # the id of a mixture: 0 for the stage's own samples, 1 for replayed ones


class Distance:
    """Mean over samples of |x - y|², x and y unit vectors: 2 - 2 cos.

    rows, columns: embeddings, as in {rows: image, columns: old.image}. among: all samples, those of the stage
    (current), or replayed ones. most: the term is 0 while the mean is above it (PAR, Schlarmann et al. 2024, pushes
    with a negative weight and stops there). Over current samples it is LwF's idea on embeddings (Li & Hoiem 2016), over
    replayed ones DER's with the last stage's answers in place of the first ones (Buzzega et al. 2020, eq. 5).
    """

    local = False

    def __init__(
        self,
        rows: str,
        columns: str,
        among: Among = "all",
        most: float | None = None,
    ):
        self.rows, self.columns, self.among, self.most = rows, columns, among, most

    def __call__(self, step: Step) -> TermResult:
        batch, x, y = step.batch, step.embedding(self.rows).vector, step.embedding(self.columns).vector
        weight = batch.weight * (batch.present_in(self.rows) & batch.present_in(self.columns))
        weight = weight * chosen(batch, self.among)
        per_sample = (x - y).square().sum(1)
        count = total(weight.sum())
        # The mean over ranks of what follows is the weighted mean over the global batch; 0 where nothing counts.
        loss = (weight * per_sample).sum() * world_size() / count.clamp(min=1e-12)
        mean = total(loss.detach()) / world_size()
        if self.most is not None and mean > self.most:
            loss = loss * 0
        return TermResult(loss, per_sample.detach(), {"distance": mean, "samples": count})


def chosen(batch: Batch, among: Among) -> Tensor:
    """(b,) bool: the sample is one of the stage's own (current), or a replayed one."""
    part = batch.ids.get(PART, torch.zeros_like(batch.ordinal))
    return torch.ones_like(part, dtype=torch.bool) if among == "all" else (part > 0) == (among == "replayed")
