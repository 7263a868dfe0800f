"""NEVLP's other reading: the weight of a suspect pair's negatives stands inside the logarithm (NLIP, 2212.07086)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distpre.contrast import Block, Direction
from distpre.errors import RecipeError
from distpre.group import total
from distpre.objectives.contrast import PairContrast
from distpre.schedule import Schedule


class NoiseRatio(PairContrast):
    """L_i = -log((1 - w_i) P_i / ((1 - w_i) P_i + w_i / (B - 1) N_i)), of rows and of columns; w = strength · amount.

    P_i: exp of the logit of the own pair, N_i: the sum of exp over the other B - 1. amount: a fact, such as the name of
    a `weighting`. A reconstruction, and no remedy: it adds log((B - 1)(1 - w) / w) to the own pair's logit, so that a
    suspect pair is drawn together the harder, and one with w = 0 not at all: begin with a plain contrast, and let noise
    be told `of` one. The targets `smoothed` are the remedy. Raises RecipeError for a strength outside (0, 1).
    """

    def __init__(
        self,
        rows: str,
        columns: str,
        amount: str,
        strength: float,
        scale: str | None = None,
        temperature: Schedule | None = None,
    ):
        if not 0 < strength < 1:
            raise RecipeError(f"noise_ratio.strength {strength}: with w = 1 a loss is infinite.", "Take 0.95.")
        super().__init__(rows, columns, scale, temperature)
        self.amount, self.strength = amount, strength

    def per_sample(self, direction: Direction, side: Block, other: Block) -> Tensor:
        w = (self.strength * side.facts[self.amount]).to(direction.negatives)
        others = total(other.there().sum().to(w)) - 1
        told = direction.told & direction.negatives.isfinite()
        negatives, positives = (torch.where(told, x, 0.0) for x in (direction.negatives, direction.positives))
        odds = w.log() - torch.log1p(-w) - others.clamp(min=1).log()
        return torch.where(told, F.softplus(odds + negatives - positives), 0.0)
