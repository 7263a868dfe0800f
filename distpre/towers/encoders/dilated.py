"""Dilated convolutions, a vector for each time step (Yue et al. 2022, TS2Vec; sizes of Wang et al. 2023, COMET)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Dilated1d(nn.Module):
    """(b, channels, t) -> (b, width), the largest value over time; tap `steps` (b, t, width).

    A matrix lifts each time step to `hidden`; a step with a value that is no number is masked there: its lifted vector
    is 0. `blocks` residual blocks of two convolutions, of dilation 1, 2, 4 ..., then one to `width`, then dropout.
    The defaults are COMET's. No normalisation: rows do not depend on one another.
    """

    def __init__(self, channels: int, width: int = 320, hidden: int = 64, blocks: int = 10, dropout: float = 0.1):
        super().__init__()
        self.lift = nn.Linear(channels, hidden)
        self.blocks = nn.Sequential(*(_Block(hidden, hidden, 1 << i) for i in range(blocks)))
        self.last = _Block(hidden, width, 1 << blocks)
        self.dropout = nn.Dropout(dropout)
        self.width = width

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        masked = x.isnan().any(1)
        lifted = self.lift(x.masked_fill(masked[:, None], 0).mT).masked_fill(masked[..., None], 0)
        steps = self.dropout(self.last(self.blocks(lifted.mT))).mT
        return steps.amax(1), {"steps": steps}


class _Block(nn.Module):
    """GELU, convolution of 3, twice, beside a plain path."""

    def __init__(self, width: int, out: int, dilation: int):
        super().__init__()
        self.first = nn.Conv1d(width, out, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv1d(out, out, 3, padding=dilation, dilation=dilation)
        self.around = nn.Identity() if width == out else nn.Conv1d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.around(x) + self.second(F.gelu(self.first(F.gelu(x))))
