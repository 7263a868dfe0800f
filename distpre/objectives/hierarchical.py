"""Two views' time steps against each other, at every time scale (TS2Vec, Yue et al. 2022; COMET, Wang et al. 2023)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distpre.contrast import Block, Direction, contrast, joined
from distpre.contrast.targets import OtherView
from distpre.errors import RecipeError
from distpre.objectives.contrast import shared
from distpre.types import Step, TermResult


class Hierarchical:
    """NT-Xent of time steps, logits their plain products; then of pairs of steps (largest values), and so on.

    level "observation": a step and the same step of the other view are a pair, all other steps of the sample negatives.
    "sample": the steps of one time of the whole global batch, the same sample's in the other view is its partner. The
    loss is the mean over steps, views and the scales of more than one step; COMET's eq. of both levels.

    of: two views of one tower; tap: its encoder's, (b, t, w). A sample of weight 0 or without a view is in nothing.
    Level sample holds (steps of a time) · 2b · 2B logits, and needs the batch's steps at once: no accumulation.
    """

    def __init__(self, of: list[str], level: Literal["observation", "sample"], tap: str = "steps"):
        if len(of) != 2:
            raise RecipeError(f"hierarchical.of {of} will not do.", "It may be a list of two views.")
        self.of, self.level, self.tap = of, level, tap
        self.local = level == "observation"

    def __call__(self, step: Step) -> TermResult:
        there = torch.stack([step.batch.present_in(view) for view in self.of]).all(0)
        steps = [self._steps(step, view) for view in self.of]
        losses, hit = [], None
        while steps[0].shape[1] > 1:
            out = (self._observations if self.level == "observation" else self._samples)(steps, there)
            losses.append(out.loss().mean(1).unflatten(0, (-1, len(there))).mean(0))
            hit = out.hit.mean(1).unflatten(0, (-1, len(there))).mean(0) if hit is None else hit
            steps = [F.max_pool1d(x.mT, 2).mT for x in steps]
        share, each = shared(step.batch.weight * there), torch.stack(losses).mean(0)
        return TermResult((share * each).sum(), each.detach(), {"hit": (share * hit).sum()})

    def _observations(self, steps: list[Tensor], there: Tensor) -> Direction:
        t = steps[0].shape[1]
        place = torch.arange(t, device=there.device).repeat(2)[None]
        view = torch.arange(2, device=there.device).repeat_interleave(t)[None]
        every = Block(torch.cat(steps, 1), {"view": view}, there[:, None].expand(-1, 2 * t), place=place)
        return contrast(every, every, self._one(steps), targets=OtherView(), within="sample").rows

    def _samples(self, steps: list[Tensor], there: Tensor) -> Direction:
        every = joined([Block(x, present=there) for x in steps])
        asked = {"targets": OtherView(), "both_ways": False, "within": "place"}
        return contrast(every, every, self._one(steps), **asked).rows

    def _one(self, steps: list[Tensor]) -> Tensor:
        return torch.ones(1, dtype=torch.float32, device=steps[0].device)

    def _steps(self, step: Step, view: str) -> Tensor:
        taps = step.embedding(view).taps
        if self.tap not in taps or taps[self.tap].ndim != 3 or taps[self.tap].shape[1] < 2:
            there = ", ".join(f"{name} {tuple(x.shape)}" for name, x in taps.items()) or "none"
            raise RecipeError(
                f"hierarchical: the view {view!r} has no tap {self.tap!r} of several time steps; there is {there}.",
                "Take an encoder of time steps, such as dilated1d, and with level sample `train.accumulation: 1`.",
            )
        return taps[self.tap]
