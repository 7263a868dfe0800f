"""Projections from an encoder's width to the width of the contrast."""

from __future__ import annotations

from torch import Tensor, nn


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
