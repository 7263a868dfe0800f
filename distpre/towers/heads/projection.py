"""Projections from an encoder's width to the width of the contrast."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from distpre.errors import RecipeError


class Linear(nn.Module):
    """(b, w) -> (b, width) by one matrix."""

    def __init__(self, width: int, bias: bool = False):
        super().__init__()
        self.width, self.bias = width, bias

    def build(self, width: int) -> None:
        self.project = nn.Linear(width, self.width, bias=self.bias)

    def forward(self, pooled: Tensor, taps: dict[str, Tensor]) -> Tensor:
        return self.project(pooled)


class Mlp(nn.Module):
    """(b, w) -> (b, sizes[-1]) with GELU between layers, as in SimCLR's projection head (Chen et al. 2020)."""

    def __init__(self, sizes: list[int]):
        super().__init__()
        self.sizes = sizes
        self.width = sizes[-1]

    def build(self, width: int) -> None:
        layers: list[nn.Module] = []
        for size in self.sizes:
            layers += [nn.Linear(width, size), nn.GELU()]
            width = size
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, pooled: Tensor, taps: dict[str, Tensor]) -> Tensor:
        return self.layers(pooled)


class SideBySide(nn.Module):
    """taps[tap] (b, steps, w) -> (b, steps · w), so that two signals are alike where they are at each time (COMET).

    over_time: each of the w channels is first divided by its norm over time, as in COMET's released code.
    """

    def __init__(self, steps: int, tap: str = "steps", over_time: bool = False):
        super().__init__()
        self.steps, self.tap, self.over_time = steps, tap, over_time

    def build(self, width: int) -> None:
        self.width = self.steps * width

    def forward(self, pooled: Tensor, taps: dict[str, Tensor]) -> Tensor:
        if self.tap not in taps or taps[self.tap].shape[1] != self.steps:
            there = ", ".join(f"{name} {tuple(x.shape[1:])}" for name, x in taps.items()) or "none"
            raise RecipeError(f"side_by_side: no tap {self.tap!r} of {self.steps} steps; the encoder's: {there}.")
        x = taps[self.tap]
        return (F.normalize(x, dim=1) if self.over_time else x).flatten(1)
