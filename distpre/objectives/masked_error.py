"""What a decoder makes of hidden parts, against what they are (He et al. 2022; OCTCube)."""

from __future__ import annotations

import torch
from torch import Tensor

from distpre.group import total
from distpre.objectives.contrast import shared
from distpre.types import Step, TermResult


class MaskedError:
    """Mean over samples of the mean squared error of the hidden parts' pixels.

    of: a view whose tower has a decoder (taps predicted and target, (b, hidden, pixels), and hidden, (b, hidden)).
    parts: per-sample errors are of so many equal stretches of the sample's tubelets (NaN where none is hidden), as for
    `hardest`. paced: such a weighting; a sample counts as far as that says of the stretch which the fact `part` holds,
    as in {paced: hard, facts: {part: VIEW}}. log: the error's ratio to that of predicting the mean of the hidden pixels
    of the batch, and how many samples count. In an accumulated step a micro-batch counts by its samples, paced or not.
    """

    local = True

    def __init__(self, of: str, parts: int = 1, paced: str | None = None, facts: dict[str, str] | None = None):
        self.of, self.parts, self.paced, self.facts = of, parts, paced, facts or {}

    def __call__(self, step: Step) -> TermResult:
        taps, batch = step.student[self.of].taps, step.batch
        target = taps["target"]
        error = (taps["predicted"].to(target.dtype) - target).square().mean(2)
        weight = batch.weight * batch.present_in(self.of)
        if self.paced is not None:
            part = batch.views[self.facts["part"]] if self.facts else torch.zeros_like(batch.ordinal)
            weight = weight * batch.state[self.paced].gather(1, part[:, None])[:, 0]
        share = shared(weight)
        loss = (share * error.mean(1)).sum()
        means = (torch.ones_like(weight), target.mean((1, 2)), target.square().mean((1, 2)))
        count, first, second = total(torch.stack([(weight * x).sum() for x in means]))
        spread = second / count.clamp(min=1e-12) - (first / count.clamp(min=1e-12)).square()
        log = {"of_mean": loss.detach() / spread.clamp(min=1e-12), "samples": count}
        return TermResult(loss, self._per_sample(error.detach(), taps), log)

    def _per_sample(self, error: Tensor, taps: dict[str, Tensor]) -> Tensor:
        """(b, parts)"""
        part = taps["hidden"] * self.parts // taps["seen"].shape[1]
        sums, counts = (error.new_zeros(len(error), self.parts) for _ in range(2))
        return sums.scatter_add_(1, part, error) / counts.scatter_add_(1, part, torch.ones_like(error))
