"""ViT over the tubelets of a volume, of which it encodes those that are seen (He et al. 2022; OCTCube)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distpre.errors import RecipeError
from distpre.towers.weights import load_encoder
from distpre.types import Padded


class Tubelets(nn.Module):
    """Padded (b, n, pixels) of the op `tubelets` -> (b, width), the mean of the seen tokens.

    size, tubelet: frames, height, width. slice: the side of single frames, another view of the tower, cut into patches
    as large as a tubelet's face; they have a patch embedding of their own and all else in common. A place is the sum of
    two learned tables, over frames and over faces, of the sizes `places` (default: one a tubelet), which start as sines
    and are interpolated to the grid at hand, linearly and bicubically; a single frame has none among frames. Blocks are
    timm's, with its scaled_dot_product_attention. weights: a run, commit or file whose encoder this one starts as.

    taps: tokens (b, 1 + seen, width), the class token first; at (b, seen), which tubelets they are; positions
    (b, n, width); pixels and seen, the view. Raises RecipeError for parts that do not divide, and for other views.
    """

    def __init__(
        self,
        size: list[int] = (60, 256, 256),  # noqa: B006
        tubelet: list[int] = (3, 16, 16),  # noqa: B006
        slice: int | None = None,
        places: list[int] | None = None,
        width: int = 1024,
        layers: int = 24,
        heads: int = 16,
        weights: str | None = None,
    ):
        super().__init__()
        from timm.models.vision_transformer import Block

        divides = not any(whole % part for whole, part in zip(size, tubelet, strict=True)) and not (
            width % heads or width % 4
        )
        if not divides or (slice is not None and (tubelet[0] == 1 or slice % tubelet[1] or slice % tubelet[2])):
            raise RecipeError(
                f"tubelets: {list(tubelet)} in a volume of {list(size)} and frames of {slice}, {heads} heads in a "
                f"width of {width}.",
                "Let a tubelet's sides divide the volume's and the frame's, and heads and 4 divide width.",
            )
        self.width = width
        self.grids = {math.prod(tubelet): [whole // part for whole, part in zip(size, tubelet, strict=True)]}
        frames, high, wide = places or self.grids[math.prod(tubelet)]
        if slice is not None:
            self.grids[tubelet[1] * tubelet[2]] = [1, slice // tubelet[1], slice // tubelet[2]]
        self.embed = nn.ModuleDict({str(pixels): nn.Linear(pixels, width) for pixels in self.grids})
        self.time = nn.Parameter(sines(frames, width)[None])
        down, across = sines(high, width // 2)[:, :, None], sines(wide, width // 2)[:, None]
        self.face = nn.Parameter(torch.cat([down.expand(-1, -1, wide), across.expand(-1, high, -1)])[None])
        self.first = nn.Parameter(torch.randn(width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.apply(start)
        if weights is not None:
            load_encoder(self, weights)

    def forward(self, x: Padded) -> tuple[Tensor, dict[str, Tensor]]:
        pixels, at = x.values, places(x.mask)
        n, kind = pixels.shape[1:]
        if math.prod(self.grids.get(kind, [])) != n:
            known = " or ".join(f"{math.prod(grid):,} of {pixels:,}" for pixels, grid in self.grids.items())
            what = f"tubelets: a view gives {n:,} tubelets of {kind:,} pixels; the encoder's sizes make {known}."
            raise RecipeError(what, "Let `size`, `tubelet` and `slice` be those of the views' ops.")
        positions = self._positions(self.grids[kind]).expand(len(pixels), -1, -1)
        tokens = self.embed[str(kind)](rows(pixels, at))
        tokens = tokens + rows(positions, at).to(tokens.dtype)
        tokens = torch.cat([self.first.to(tokens.dtype).expand(len(tokens), 1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        taps = {"tokens": tokens, "at": at, "positions": positions, "pixels": pixels, "seen": x.mask}
        return tokens[:, 1:].mean(1), taps

    def _positions(self, grid: list[int]) -> Tensor:
        """(1, n, width)"""
        face = resized(self.face, grid[1:], "bicubic").flatten(2).transpose(1, 2)
        if grid[0] == 1:
            return face
        time = resized(self.time, grid[:1], "linear").transpose(1, 2)
        return (time[:, :, None] + face[:, None]).flatten(1, 2)


def start(module: nn.Module) -> None:
    """The matrices of He et al. 2022's code: uniform by Glorot & Bengio 2010; no biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def sines(n: int, width: int) -> Tensor:
    """(width, n): of the places 0 .. n - 1, sines, then cosines, of frequencies that fall from 1 to 1 / n.

    Vaswani et al. 2017 fall to 1 / 10000: of so few places most columns would then say nothing, and decoders would be
    late to find which seen tubelets are near.
    """
    frequency = float(n) ** (-torch.arange(width // 2) / (width // 2))
    angles = frequency[:, None] * torch.arange(n)
    return torch.cat([angles.sin(), angles.cos()])


def places(mask: Tensor) -> Tensor:
    """(b, n) bool, as many True in each row -> (b, k), their columns in order."""
    k = int(mask.sum()) // max(1, len(mask))
    if (mask.sum(1) != k).any():
        raise ValueError("as many tubelets of each sample must be hidden")
    return mask.nonzero()[:, 1].view(len(mask), k)


def rows(x: Tensor, at: Tensor) -> Tensor:
    """(b, n, c), (b, k) -> (b, k, c)"""
    return x.gather(1, at[..., None].expand(-1, -1, x.shape[-1]))


def resized(table: Tensor, size: list[int], mode: str) -> Tensor:
    return table if list(table.shape[2:]) == size else F.interpolate(table, size, mode=mode)
