"""Mod-X: keep the contrastive matrix of an earlier model where that model was right."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from distpre.contrast import Block, Direction, contrast
from distpre.contrast.targets import Teacher
from distpre.group import world_size
from distpre.objectives.contrast import shared
from distpre.types import Step, TermResult


class OffDiagonal:
    """Rows of the teacher's similarity matrix distilled into the student's (Mod-X, Ni et al. 2023, eq. 5-7).

    Half the sum of both directions' Σ_i r_i KL(softmax_j(<u_i, v_j> / T) || softmax_j(<x_i, y_j> / T)) over the global
    batch, u, v the teacher's; r_i = 1 where the teacher's highest entry of row i is its own pair. The learned logit
    scale is not applied, as in the released code.

    rows, columns: names of views; against: one of the recipe's `teachers`. temperature: T. reduction: "sum" over the
    rows as released, so that the weight grows with the batch (the paper's 20 at 280 pairs is 5,600 of "mean"), or
    "mean" over them. diagonal: keep the own pair in both distributions, as released. trusted: all rows where False.
    """

    local = False

    def __init__(
        self,
        rows: str,
        columns: str,
        against: str,
        temperature: float = 1.0,
        reduction: Literal["sum", "mean"] = "sum",
        diagonal: bool = True,
        trusted: bool = True,
    ):
        self.rows, self.columns, self.against = rows, columns, against
        self.scale, self.reduction, self.trusted = 1 / temperature, reduction, trusted
        self.targets = Teacher("teacher", self.scale, diagonal)
        self.gathers = [rows]

    def __call__(self, step: Step) -> TermResult:
        rows, columns = self._block(step, self.rows), self._block(step, self.columns)
        scale = torch.full((1,), self.scale, device=rows.vectors.device, dtype=rows.vectors.dtype)
        out = contrast(rows, columns, scale, targets=self.targets)
        weight = step.batch.weight * (rows.there() & columns.there())
        kept = [weight * (d.trusted if self.trusted else 1) for d in (out.rows, out.columns)]
        each = sum(k * divergence(d) for k, d in zip(kept, (out.rows, out.columns), strict=True)) / 2
        share = shared(weight)
        mean = (share * each).sum()
        loss = mean if self.reduction == "mean" else world_size() * each.sum()
        log = {"trusted_rows": (share * kept[0]).sum(), "trusted_columns": (share * kept[1]).sum(), "mean": mean}
        return TermResult(loss, each.detach(), log)

    def _block(self, step: Step, view: str) -> Block:
        known = {"teacher": step.teachers[self.against][view].vector}
        return Block(step.student[view].vector, known, step.batch.present_in(view))


def divergence(direction: Direction) -> Tensor:
    """(n,) KL(targets || softmax of the logits): the cross-entropy less the targets' entropy."""
    return direction.loss() - torch.where(direction.told, direction.entropy, 0.0)
