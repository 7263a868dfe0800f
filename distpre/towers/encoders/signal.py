"""Encoders of signals (b, channels, time) -> (b, width): 1-D EfficientNet, ResNet and ViT.

Sizes are those of Abbaspourazad et al. 2024, which gives parameter counts (3.3 M for PPG, 2.5 M for ECG, 16.9 M, 7.2 M)
and no tables of layers: 16 inverted bottlenecks as in EfficientNet-B0 (Tan & Le 2019, table 1), stage widths ours.
Normalisation is GroupNorm, ours too: batch statistics would change with the number of ranks and of micro-batches, and
would let the two halves of a pair know each other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distpre.errors import RecipeError

GROUPS = 8  # of channels, normalised together
# EfficientNet-B0's stages: expansion, blocks, stride, kernel.
STAGES = ((1, 1, 1, 3), (6, 2, 2, 3), (6, 2, 2, 5), (6, 3, 2, 3), (6, 3, 1, 5), (6, 4, 2, 5), (6, 1, 1, 3))


class EfficientNet1d(nn.Module):
    """channels: of the signal; widths: of the seven stages, the last is the embedding's; stem: width of the stem.

    The pooled output is the mean over time of the last stage, normalised and activated: a stem of stride 2 and stages
    of stride 16 make one place of 32 time steps.
    """

    def __init__(self, channels: int, widths: list[int], stem: int = 32):
        super().__init__()
        if len(widths) != len(STAGES) or any(width % GROUPS for width in (stem, *widths)):
            raise RecipeError(
                f"efficientnet1d: widths {widths}, stem {stem} will not do.",
                f"It may be {len(STAGES)} widths, all multiples of {GROUPS}.",
            )
        blocks: list[nn.Module] = [_conv(channels, stem, 3, stride=2), nn.SiLU()]
        before = stem
        for (expand, repeats, stride, kernel), width in zip(STAGES, widths, strict=True):
            for i in range(repeats):
                blocks.append(InvertedBottleneck(before, width, expand, stride if i == 0 else 1, kernel))
                before = width
        self.net = nn.Sequential(*blocks)
        self.width = before

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.net(x).mean(-1), {}


class InvertedBottleneck(nn.Module):
    """Expand, convolve each channel, squeeze and excite (a quarter of the input), project (Sandler et al. 2018)."""

    def __init__(self, width: int, out: int, expand: int, stride: int, kernel: int):
        super().__init__()
        inner = width * expand
        widen = [_conv(width, inner, 1), nn.SiLU()] if expand > 1 else []
        self.convolve = nn.Sequential(*widen, _conv(inner, inner, kernel, stride=stride, groups=inner), nn.SiLU())
        squeezed = max(1, width // 4)
        self.excite = nn.Sequential(
            nn.AdaptiveAvgPool1d(1),
            nn.Conv1d(inner, squeezed, 1),
            nn.SiLU(),
            nn.Conv1d(squeezed, inner, 1),
            nn.Sigmoid(),
        )
        self.project = _conv(inner, out, 1)
        self.skip = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        inner = self.convolve(x)
        out = self.project(inner * self.excite(inner))
        return x + out if self.skip else out


class ResNet1d(nn.Module):
    """Basic residual blocks (He et al. 2016); blocks of each stage, whose widths double from `stem` on."""

    def __init__(self, channels: int, blocks: list[int], stem: int = 64, kernel: int = 7):
        super().__init__()
        if stem % GROUPS or not kernel % 2:
            raise RecipeError(f"resnet1d: stem {stem}, kernel {kernel}.", f"A multiple of {GROUPS}, an odd number.")
        layers: list[nn.Module] = [_conv(channels, stem, kernel, stride=2), nn.ReLU(), nn.MaxPool1d(3, 2, 1)]
        before = stem
        for stage, repeats in enumerate(blocks):
            for i in range(repeats):
                layers.append(Residual(before, stem << stage, 2 if stage and i == 0 else 1, kernel))
                before = stem << stage
        self.net = nn.Sequential(*layers)
        self.width = before

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.net(x).mean(-1), {}


class Residual(nn.Module):
    def __init__(self, width: int, out: int, stride: int, kernel: int):
        super().__init__()
        self.inner = nn.Sequential(_conv(width, out, kernel, stride=stride), nn.ReLU(), _conv(out, out, kernel))
        plain = stride == 1 and width == out
        self.around = nn.Identity() if plain else _conv(width, out, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.around(x) + self.inner(x))


class ViT1d(nn.Module):
    """timm's VisionTransformer on a picture one pixel high: patches of `patch` time steps, mean of the tokens.

    samples: the signal's length, a multiple of patch; config: more keywords of it (drop_path_rate ...).
    """

    def __init__(
        self,
        channels: int,
        samples: int,
        patch: int,
        width: int,
        layers: int,
        heads: int,
        config: dict[str, Any] | None = None,
    ):
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        if samples % patch or width % heads:
            raise RecipeError(
                f"vit1d: patches of {patch} in {samples} time steps, {heads} heads in a width of {width}.",
                "Let patch divide samples, and heads divide width.",
            )
        self.net = VisionTransformer(
            img_size=(1, samples),
            patch_size=(1, patch),
            in_chans=channels,
            num_classes=0,
            global_pool="avg",
            embed_dim=width,
            depth=layers,
            num_heads=heads,
            class_token=False,
            **(config or {}),
        )
        self.width = width

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.net(x.unsqueeze(2)), {}


def _conv(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution of odd kernel that keeps length / stride (rounded up), and normalisation in groups of channels."""
    conv = nn.Conv1d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, out))
