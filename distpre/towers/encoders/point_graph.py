"""A vector for each point of a scene, from its neighbours (Wang et al. 2019, DGCNN; Qi et al. 2017, PointNet++)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distpre.errors import RecipeError


class PointGraph(nn.Module):
    """(b, n, channels) points, places in the first three channels, z up -> (b, n, width).

    A point begins as its height and its further channels: where on the floor it is says nothing of what it is. A layer
    adds to its vector h_i a small network of A h_i + max_j [B h_j + C (x_j - x_i) / radius] over its neighbours j,
    itself among them. dilations: one for each layer; with s a layer sees each s-th of the s · neighbours nearest, so
    that later layers see farther (Li et al. 2019, DeepGCNs). Neighbours are those of place in every layer. radius:
    about how far they are, in metres. Normalisation is over a point's channels: rows do not depend on one another. All
    n² distances of a scene are held at once: for some thousand points.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 64,
        neighbours: int = 16,
        dilations: list[int] = (1, 1, 2, 4),  # noqa: B006
        radius: float = 0.3,
    ):
        super().__init__()
        if neighbours < 1 or min(dilations, default=0) < 1 or radius <= 0:
            what = f"point_graph: {neighbours} neighbours at dilations {list(dilations)}, radius {radius:g}."
            raise RecipeError(what, "Counts are at least 1, a dilation for each layer, and the radius above 0.")
        self.width, self.neighbours, self.dilations, self.radius = width, neighbours, dilations, radius
        self.lift = nn.Linear(channels - 2, width)
        self.layers = nn.ModuleList(_Layer(width) for _ in dilations)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        places, h = x[..., :3] / self.radius, self.lift(x[..., 2:])
        near = nearest(places, self.neighbours * max(self.dilations))
        for layer, apart in zip(self.layers, self.dilations, strict=True):
            h = layer(h, places, near[..., : self.neighbours * apart : apart])
        return self.norm(h), {}


class _Layer(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.own, self.other = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.place = nn.Linear(3, width, bias=False)
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))

    def forward(self, h: Tensor, places: Tensor, near: Tensor) -> Tensor:
        with torch.autocast(places.device.type, enabled=False):  # bfloat16 would lose what tells neighbours apart
            where = self.place(places.float())
        said = self.before(h)
        return h + self.mix(self.own(said) + (largest(self.other(said) + where, near) - where).to(h.dtype))


def largest(x: Tensor, near: Tensor) -> Tensor:
    """(b, n, w), (b, n, k) -> (b, n, w): in each channel the largest of a point's neighbours."""
    b, n, k = near.shape
    first = torch.arange(b, device=x.device)[:, None, None] * n
    return x.flatten(0, 1).index_select(0, (near + first).flatten()).view(b, n, k, -1).amax(2)


@torch.no_grad()
def nearest(places: Tensor, count: int) -> Tensor:
    """(b, n, count) the nearest points of each, itself first; where there are no more, those there are again."""
    n = places.shape[1]
    apart = sum((x[:, :, None] - x[:, None]).square() for x in places.float().unbind(-1))
    found = apart.topk(min(count, n), dim=-1, largest=False).indices
    return found if count <= n else found[..., torch.arange(count, device=places.device) % n]
