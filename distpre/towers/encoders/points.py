"""Point-patch transformer for shapes (Yu et al. 2022, Point-BERT; sizes of Liu et al. 2023, OpenShape)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distpre.errors import RecipeError
from distpre.towers.weights import load_encoder


class PointPatches(nn.Module):
    """(b, n, channels) points, places in the first three channels -> (b, width), the class token's.

    `patches` centres far from one another; of each the first `neighbours` points within `radius`, places relative to
    the centre; a small network on every point and the largest value over a patch's points; centre and patch become a
    token. The defaults are OpenShape's largest. Normalisation is over a point's channels where the paper's is over the
    batch: rows do not depend on one another. weights: a run, commit or file whose encoder this one starts as.
    """

    def __init__(
        self,
        channels: int = 6,
        patches: int = 384,
        radius: float = 0.2,
        neighbours: int = 64,
        sizes: list[int] = (64, 64, 256),  # noqa: B006
        width: int = 512,
        layers: int = 12,
        heads: int = 8,
        inner: int = 1536,
        weights: str | None = None,
    ):
        super().__init__()
        if width % heads:
            raise RecipeError(f"point_patches: {heads} heads in a width of {width}.", "Let heads divide width.")
        self.patches, self.radius, self.neighbours, self.width = patches, radius, neighbours, width
        point: list[nn.Module] = []
        before = channels + 3
        for size in sizes:
            point += [nn.Linear(before, size), nn.LayerNorm(size), nn.ReLU()]
            before = size
        self.point = nn.Sequential(*point)
        self.lift = nn.Sequential(nn.Linear(before + 3, width), nn.LayerNorm(width))
        self.first = nn.Parameter(torch.randn(width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, inner, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        if weights is not None:
            load_encoder(self, weights)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        places = x[..., :3]
        centres = _at(places, far_apart(places, self.patches))
        near = within(places, centres, self.radius, self.neighbours)
        members = _at(x, near.flatten(1)).unflatten(1, near.shape[1:])  # (b, patches, neighbours, channels)
        relative = members[..., :3] - centres[:, :, None]
        patch = self.point(torch.cat([relative, members], -1)).amax(2)
        tokens = self.lift(torch.cat([centres, patch], -1))
        out = self.transformer(torch.cat([self.first.expand(len(x), 1, -1).to(tokens.dtype), tokens], 1))
        return out[:, 0], {"patches": out[:, 1:]}


@torch.no_grad()
def far_apart(places: Tensor, count: int) -> Tensor:
    """(b, count) points, each the farthest from those before it (Qi et al. 2017); the first is point 0."""
    chosen = torch.zeros(len(places), count, dtype=torch.long, device=places.device)
    distance = torch.full(places.shape[:2], torch.inf, dtype=places.dtype, device=places.device)
    for i in range(1, count):
        last = _at(places, chosen[:, i - 1 : i])
        distance = torch.minimum(distance, (places - last).square().sum(-1))
        chosen[:, i] = distance.argmax(1)
    return chosen


@torch.no_grad()
def within(places: Tensor, centres: Tensor, radius: float, count: int) -> Tensor:
    """(b, c, count) the first points at most `radius` from each centre; where they are fewer, the first again.

    A centre is one of the points, so no ball is empty.
    """
    n = places.shape[1]
    inside = torch.cdist(centres, places, compute_mode="donot_use_mm_for_euclid_dist") <= radius
    index = torch.where(inside, torch.arange(n, device=places.device), n)
    found = index.topk(min(count, n), dim=-1, largest=False).values
    found = torch.where(found == n, found[..., :1], found)
    short = count - found.shape[-1]
    return torch.cat([found, found[..., :1].expand(-1, -1, short)], -1) if short else found


def _at(x: Tensor, index: Tensor) -> Tensor:
    """(b, n, c), (b, m) -> (b, m, c)"""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
