"""A projection of the parts of a sample that looks at them together."""

from __future__ import annotations

from torch import Tensor, nn

SMALL = 1e-5


class PartMlp(nn.Module):
    """(b, k, w) -> (b, k, sizes[-1]): layers, each standardised over the k parts of a sample, with ReLU between.

    VoCo's head (Wu et al. 2024) without its tie between samples: the released code standardises, without scale and
    shift, over all parts on a GPU. What all parts of a sample have alike is gone; with it, vectors begin so alike that
    no gradient tells them apart.
    """

    def __init__(self, sizes: list[int]):
        super().__init__()
        self.sizes = sizes
        self.width = sizes[-1]

    def build(self, width: int) -> None:
        before = [width, *self.sizes[:-1]]
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in zip(before, self.sizes, strict=True))

    def forward(self, pooled: Tensor, taps: dict[str, Tensor]) -> Tensor:
        x = pooled
        for i, layer in enumerate(self.layers):
            x = layer(x.relu() if i else x).float()
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + SMALL).sqrt()
        return x
