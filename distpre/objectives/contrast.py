"""The contrastive term: two views of the global batch against each other, through distpre.contrast."""

from __future__ import annotations

import torch

from distpre.contrast import Block, contrast
from distpre.contrast.targets import OwnPair, Targets
from distpre.errors import RecipeError
from distpre.runtime.group import total, world_size
from distpre.schedule import Schedule
from distpre.types import Step, TermResult


class Contrast:
    """Softmax contrast of `rows` against every column of the global batch (CLIP, Radford et al. 2021, figure 3).

    rows, columns: names of views. scale: a learned logit scale of the recipe's `scales`; or temperature: a number or
    a schedule. targets: which pairs count. symmetric: mean of both directions, else rows only.
    A sample of weight 0, or without one of the two views, is neither positive nor negative and counts in no mean.
    """

    local = False

    def __init__(
        self,
        rows: str,
        columns: str,
        scale: str | None = None,
        temperature: Schedule | None = None,
        targets: Targets = OwnPair(),  # noqa: B008  (holds no state)
        symmetric: bool = True,
    ):
        if (scale is None) == (temperature is None):
            raise RecipeError("A contrast has `scale` (learned) or `temperature` (set): one of the two.")
        self.rows, self.columns, self.scale, self.temperature = rows, columns, scale, temperature
        self.targets, self.symmetric = targets, symmetric

    def __call__(self, step: Step) -> TermResult:
        rows, columns = self._block(step, self.rows), self._block(step, self.columns)
        scale = self._scale(step)
        out = contrast(rows, columns, scale, targets=self.targets, both_ways=self.symmetric)
        per_sample = (out.row_loss + out.column_loss) / 2 if self.symmetric else out.row_loss
        weight = step.batch.weight * (rows.present & columns.present)
        # The mean over ranks of what follows is the weighted mean over the global batch.
        share = weight * world_size() / total(weight.sum()).clamp(min=1e-12)
        log = {"scale": scale.detach().squeeze(), "row_hit": (share * out.row_hit).sum()}
        if self.symmetric:
            log["column_hit"] = (share * out.column_hit).sum()
        return TermResult((share * per_sample).sum(), per_sample.detach(), log)

    def _block(self, step: Step, view: str) -> Block:
        return Block(step.student[view].vector, ids=step.batch.ids, present=step.batch.present_in(view))

    def _scale(self, step: Step) -> torch.Tensor:
        if self.scale is not None:
            return step.scales[self.scale]
        like = step.student[self.rows].vector
        return torch.full((1,), 1 / self.temperature.at(step.index, step.of), device=like.device)
