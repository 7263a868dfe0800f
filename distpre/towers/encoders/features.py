"""Vectors that are features already: nothing to encode, the tower's head does the work."""

from __future__ import annotations

from torch import Tensor, nn


class Features(nn.Module):
    """(b, width) floats -> themselves."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return x, {}
