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


class LinearPair(nn.Module):
    """(b, w) -> (b, width) by one matrix and, in training, by another the tap `second` (b, width).

    For a term that is to reach the encoder without pulling at what another term asks of the first (CLIP2Scene).
    """

    def __init__(self, width: int, bias: bool = True):
        super().__init__()
        self.width, self.bias = width, bias

    def build(self, width: int) -> None:
        self.project, self.second = (nn.Linear(width, self.width, bias=self.bias) for _ in range(2))

    def forward(self, pooled: Tensor, taps: dict[str, Tensor]) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        said = self.project(pooled)
        return (said, {"second": self.second(pooled)}) if self.training else said


class Mlp(nn.Module):
    """(b, w) -> (b, sizes[-1]) with GELU between layers, as in SimCLR's projection head (Chen et al. 2020)."""

    def __init__(self, sizes: list[int]):
        super().__init__()
        self.sizes = sizes
        self.width = sizes[-1]

    def build(self, width: int) -> None:
        self.layers = _layers(width, self.sizes)

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


class Predicted(nn.Module):
    """A projection and, in training only, a prediction of it by a second MLP (BYOL, Grill et al. 2020, section 3.1).

    sizes: of the projection; predictor: inner widths of the second MLP, which ends as wide. A teacher, always in
    evaluation mode, gives the projection that the student's prediction is held to; evaluators see the projection too.
    LayerNorm stands where BYOL has batch statistics, which would change with the number of ranks.
    """

    def __init__(self, sizes: list[int], predictor: list[int]):
        super().__init__()
        self.sizes, self.predictor = sizes, predictor
        self.width = sizes[-1]

    def build(self, width: int) -> None:
        self.project = _layers(width, self.sizes, norm=True)
        self.predict = _layers(self.width, [*self.predictor, self.width], norm=True)

    def forward(self, pooled: Tensor, taps: dict[str, Tensor]) -> Tensor:
        projected = self.project(pooled)
        return self.predict(projected) if self.training else projected


def _layers(width: int, sizes: list[int], norm: bool = False) -> nn.Sequential:
    """Matrices to each of the sizes; between them GELU, after LayerNorm where asked for."""
    layers: list[nn.Module] = []
    for size in sizes[:-1]:
        layers += [nn.Linear(width, size), *([nn.LayerNorm(size)] if norm else []), nn.GELU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, sizes[-1]))
