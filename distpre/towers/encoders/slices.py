"""A volume as its slices: one 2-D encoder of all of them, then attention from slice to slice (Nguyen et al. 2023)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distpre.errors import RecipeError
from distpre.towers.encoders.timm import built
from distpre.towers.encoders.tubelets import resized, sines
from distpre.types import Padded


class Slices(nn.Module):
    """(b, n, h, w), n slices of one channel -> (b, width): the mean over slices of what the transformer says of them.

    n may vary. A single image is a volume of one slice and passes the 2-D encoder alone: one encoder for images and
    volumes. In a Padded view slices whose mask is False are hidden: the transformer is given one learned vector in
    their place.

    model: a timm model's name, or the widths of a small net of convolutions that each halve height and width; config:
    more keywords of timm's (out_indices: which maps). The mean over space of each of its maps, of unit length, one
    after another, becomes a slice's vector by one matrix and LayerNorm, so that it is as large as a place. Places are
    a learned table over slices of size `places`, starting as sines and interpolated to n. Blocks are timm's; inner:
    the width between their two matrices.

    taps: slices (b, n, width), what the transformer is to be told; of a volume tokens (b, n, width), what it says; of
    a Padded one seen (b, n). Raises RecipeError for heads that do not divide the width.
    """

    def __init__(
        self,
        model: str | list[int],
        config: dict[str, Any] | None = None,
        width: int = 640,
        layers: int = 4,
        heads: int = 8,
        inner: int = 720,
        dropout: float = 0.0,
        places: int = 64,
    ):
        super().__init__()
        from timm.models.vision_transformer import Block

        if width % heads or width % 2:
            raise RecipeError(f"slices: {heads} heads in a width of {width} will not do.", "Let heads and 2 divide it.")
        if isinstance(model, str):
            self.net = built(model, {"in_chans": 1, "features_only": True, **(config or {})}, None, False)
            many = sum(self.net.feature_info.channels())
        else:
            self.net, many = Convolutions(model), sum(model)
        self.width = width
        self.project = nn.Sequential(nn.Linear(many, width), nn.LayerNorm(width))
        self.blank = nn.Parameter(torch.randn(width) * 0.02)
        self.places = nn.Parameter(sines(places, width)[None])
        block = {"mlp_ratio": inner / width, "qkv_bias": True, "proj_drop": dropout, "attn_drop": dropout}
        self.blocks = nn.ModuleList(Block(width, heads, **block) for _ in range(layers))
        self.norm = nn.LayerNorm(width) if layers else nn.Identity()

    def forward(self, x: Tensor | Padded) -> tuple[Tensor, dict[str, Tensor]]:
        values, seen = (x.values, x.mask) if isinstance(x, Padded) else (x, None)
        b, n = values.shape[:2]
        slices = self._embedded(values.flatten(0, 1)[:, None]).unflatten(0, (b, n))
        taps = {"slices": slices} if seen is None else {"slices": slices, "seen": seen}
        if n == 1:
            return slices[:, 0], taps
        tokens = slices if seen is None else torch.where(seen[..., None], slices, self.blank.to(slices.dtype))
        if len(self.blocks):
            tokens = tokens + resized(self.places, [n], "linear").mT.to(tokens.dtype)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return tokens.mean(1), {**taps, "tokens": tokens}

    def _embedded(self, images: Tensor) -> Tensor:
        pooled = [F.normalize(maps.mean((2, 3)), dim=1) for maps in self.net(images)]
        return self.project(torch.cat(pooled, 1))


class Convolutions(nn.Module):
    """(n, 1, h, w) -> the maps after each: 3 x 3, stride 2, GroupNorm of one group, ReLU.

    Were channels normalised by themselves, their means would tell nothing of an image, and all images would be alike.
    """

    def __init__(self, widths: list[int]):
        super().__init__()
        before = [1, *widths[:-1]]
        self.layers = nn.ModuleList(_layer(a, b) for a, b in zip(before, widths, strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps


def _layer(width: int, out: int) -> nn.Sequential:
    conv = nn.Conv2d(width, out, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(1, out), nn.ReLU())
