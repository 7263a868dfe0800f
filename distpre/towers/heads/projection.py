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


class Predicted(Mlp):
    """Mlp with a second one behind it, the predictor, in training only (BYOL, Grill et al. 2020, section 3.1).

    predictor: its inner widths; it ends as wide as sizes do. A teacher, which is always in evaluation mode, gives the
    projection that the student's prediction is held to, and evaluators see the projection. No batch statistics, which
    BYOL's two MLPs have.
    """

    def __init__(self, sizes: list[int], predictor: list[int]):
        super().__init__(sizes)
        self.predictor = Mlp([*predictor, sizes[-1]])

    def build(self, width: int) -> None:
        super().build(width)
        self.predictor.build(self.width)

    def forward(self, pooled: Tensor, taps: dict[str, Tensor]) -> Tensor:
        projected = super().forward(pooled, taps)
        return self.predictor(projected, taps) if self.training else projected
