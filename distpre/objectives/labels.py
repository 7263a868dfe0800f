"""The class that each part of a sample is held to: what its view says, or in some steps what the student says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distpre.anchors import Anchors, likest
from distpre.errors import RecipeError
from distpre.schedule import Constant, Schedule, drawn
from distpre.types import Step


@dataclass(frozen=True)
class Labels:
    """classes: (b, k) int64 that the parts are held to, told: (b, k) what the view says, -1 for none in both; likest:
    (b, k) the student's; own: 1.0 where this step takes that.
    """

    classes: Tensor
    told: Tensor
    likest: Tensor
    own: float


class PartLabels:
    """CLIP2Scene's switchable self-training (Chen et al. 2023): with the probability own(step) a step takes, of the
    parts that have a label, the student's likest anchors in place of the labels.

    The draw is of (seed, step) alone: equal on every rank and after a resume. facts: {label: the view that holds (b, k)
    whole numbers, -1 for none}. Parts of a sample of weight 0, or without either view, have none.
    """

    def __init__(self, of: str, anchors: Anchors, facts: dict[str, str], own: Schedule = Constant(0.0), seed: int = 0):  # noqa: B008
        if "label" not in facts:
            raise RecipeError(f"{of}: facts name no label.", "Write {label: VIEW}, a view of a class a part.")
        self.of, self.anchors, self.label, self.own, self.seed = of, anchors, facts["label"], own, seed

    def at(self, step: Step, x: Tensor) -> Labels:
        """x: (b, k, d), the student's. Raises RecipeError for labels that are not those of k parts."""
        told = step.batch.views[self.label].long()
        many, most = len(self.anchors.classes), int(told.max()) if told.numel() else -1
        if told.shape != x.shape[:2] or most >= many:
            what = f"labels {tuple(told.shape)} up to {most} for parts {tuple(x.shape[:2])}, {many} anchors."
            raise RecipeError(
                f"{self.label}: {what}",
                "Draw the same points in both views (some_of_scene), and take the anchors of these labels.",
            )
        there = (step.batch.weight > 0) & step.batch.present_in(self.of) & step.batch.present_in(self.label)
        told = told.masked_fill(~there[:, None], -1)
        said = likest(x.detach(), self.anchors.of(x))
        own = drawn(self.seed, step.index) < self.own.at(step.index, step.of)
        return Labels(said.masked_fill(told < 0, -1) if own else told, told, said, float(own))


def parts_of(step: Step, of: str, tap: str | None) -> Tensor:
    """(b, k, d) in fp32 or more: what the student says of a view's parts, or a tap of that. Raises RecipeError."""
    said = step.embedding(of)
    if tap is not None and tap not in said.taps:
        raise RecipeError(f"{of}: the tower has no tap {tap!r}.", f"There is {', '.join(said.taps) or 'none'}.")
    x = said.vector if tap is None else said.taps[tap]
    return x.to(torch.promote_types(x.dtype, torch.float32))
