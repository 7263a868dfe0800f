"""Encoder of volumes (b, channels, x, y, z), or of parts of them (b, k, channels, x, y, z)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distpre.errors import RecipeError

GROUPS = 8  # of channels, normalised together


class ResNet3d(nn.Module):
    """Basic residual blocks (He et al. 2016) in three dimensions -> (b, width), or (b, k, width) of k parts.

    blocks: of each stage; widths double from `stem` on, and the stem and every stage but the first halve each axis.
    The pooled output is the mean over space of every stage, one after another, as VoCo pools the maps of Swin-UNETR
    (Wu et al. 2024). GroupNorm: rows do not depend on one another, so parts and ranks may be dealt out at will.
    """

    def __init__(self, blocks: list[int], channels: int = 1, stem: int = 32):
        super().__init__()
        if stem % GROUPS:
            raise RecipeError(f"resnet3d: stem {stem} will not do.", f"It may be a multiple of {GROUPS}.")
        self.stem = nn.Sequential(_conv(channels, stem, stride=2), nn.ReLU())
        stages, before = [], stem
        for stage, repeats in enumerate(blocks):
            layers = []
            for i in range(repeats):
                layers.append(Residual(before, stem << stage, 2 if stage and i == 0 else 1))
                before = stem << stage
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.width = sum(stem << stage for stage in range(len(blocks)))

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        maps, pooled = self.stem(x.flatten(0, -5)), []
        for stage in self.stages:
            maps = stage(maps)
            pooled.append(maps.mean((-3, -2, -1)))
        return torch.cat(pooled, 1).unflatten(0, x.shape[:-4]), {}


class Residual(nn.Module):
    def __init__(self, width: int, out: int, stride: int):
        super().__init__()
        self.inner = nn.Sequential(_conv(width, out, stride=stride), nn.ReLU(), _conv(out, out))
        plain = stride == 1 and width == out
        self.around = nn.Identity() if plain else _conv(width, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.around(x) + self.inner(x))


def _conv(channels: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv3d(channels, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, out))
