"""Prototypes: the centres of clusters, learned with the rest (SwAV, Caron et al. 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distpre.towers.encoders.tubelets import places, rows
from distpre.towers.heads.projection import Mlp


class Prototypes(nn.Module):
    """(b, w) -> (b, d), by an Mlp of these `sizes` where there are any, and its cosines with `count` prototypes.

    taps: scores (b, count); held, the same without gradient to the prototypes. They are of unit length in each
    forward, where SwAV's code shortens the weights after each step.
    """

    def __init__(self, count: int, sizes: list[int] = ()):  # noqa: B006
        super().__init__()
        self.count, self.sizes = count, list(sizes)

    def build(self, width: int) -> None:
        self.project = Mlp(self.sizes) if self.sizes else None
        if self.project is not None:
            self.project.build(width)
        self.width = self.sizes[-1] if self.sizes else width
        self.centres = nn.Parameter(F.normalize(torch.randn(self.count, self.width), dim=1))

    def forward(self, pooled: Tensor, taps: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        x = pooled if self.project is None else self.project(pooled, taps)
        unit, centres = F.normalize(x.float(), dim=1), F.normalize(self.centres.float(), dim=1)
        return x, {"scores": unit @ centres.T, "held": unit @ centres.detach().T}


class SlicePrototypes(nn.Module):
    """Of the encoder `slices`: prototypes of single images and of volumes, and, while training, hidden slices.

    images, volumes: how many prototypes; sizes: of the images' projection, volumes have none (Nguyen et al. 2023).
    taps of what has hidden slices: predicted (b, hidden, width), of each by one matrix from what the transformer says;
    target, likewise, without gradient: what it was not told; hidden (b, hidden), which they are.
    """

    def __init__(self, images: int, volumes: int, sizes: list[int]):
        super().__init__()
        self.images, self.volumes = Prototypes(images, sizes), Prototypes(volumes)

    def build(self, width: int) -> None:
        self.width = width
        self.images.build(width)
        self.volumes.build(width)
        self.decoder = nn.Linear(width, width)

    def forward(self, pooled: Tensor, taps: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        if "tokens" not in taps:
            return self.images(pooled, taps)
        x, more = self.volumes(pooled, taps)
        if self.training and "seen" in taps:
            hidden = places(~taps["seen"])
            more["predicted"] = self.decoder(rows(taps["tokens"], hidden))
            more |= {"target": rows(taps["slices"], hidden).detach(), "hidden": hidden}
        return x, more
