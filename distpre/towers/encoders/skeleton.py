"""Graph convolution over the joints of a body (ST-GCN, Yan et al. 2018; sizes of UniMTS, Zhang et al. 2024)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from distpre.errors import RecipeError

GROUPS = 8  # of channels, normalised together
# UniMTS's body: each joint's parent; 0 pelvis, 1-4 and 5-8 the legs, 9-13 trunk and head, 14-17 and 18-21 the arms.
BODY = (-1, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 12, 11, 14, 15, 16, 11, 18, 19, 20)
WIDTHS, STRIDES = (64, 64, 64, 64, 128, 128, 128, 256, 256, 512), (1, 1, 1, 1, 2, 1, 1, 2, 1, 1)


class StGcn(nn.Module):
    """(b, joints, channels, t) -> (b, widths[-1]), the mean over joints and time.

    parents: of each joint, -1 for the root. Each block sums over a joint itself, its children and its parent, with
    weights of their own (spatial partitioning, divided by how many they are, each edge times a learned number), then
    convolves over `kernel` time steps. Normalisation is GroupNorm where the paper's is over the batch: rows do not
    depend on one another.
    """

    def __init__(
        self,
        channels: int = 3,
        parents: list[int] = BODY,  # noqa: B006
        widths: list[int] = WIDTHS,  # noqa: B006
        strides: list[int] = STRIDES,  # noqa: B006
        kernel: int = 9,
    ):
        super().__init__()
        if len(widths) != len(strides) or any(width % GROUPS for width in widths) or not kernel % 2:
            raise RecipeError(
                f"st_gcn: widths {list(widths)}, strides {list(strides)}, kernel {kernel} will not do.",
                f"It may be as many widths as strides, multiples of {GROUPS}, and an odd kernel.",
            )
        self.register_buffer("graph", graph(list(parents)), persistent=False)
        before = [channels, *widths]
        self.blocks = nn.ModuleList(
            _Block(a, b, stride, kernel, self.graph.shape, first=i == 0)
            for i, (a, b, stride) in enumerate(zip(before, widths, strides, strict=False))
        )
        self.width = widths[-1]

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if x.shape[1] != self.graph.shape[1]:
            raise RecipeError(f"st_gcn: {x.shape[1]} joints where `parents` names {self.graph.shape[1]}.")
        x = x.permute(0, 2, 3, 1)  # (b, channels, t, joints)
        for block in self.blocks:
            x = block(x, self.graph)
        return x.mean((2, 3)), {}


def graph(parents: list[int]) -> Tensor:
    """(3, joints, joints) what joint v gives joint w: itself, as its child, as its parent; a joint's shares sum to 1.

    Raises RecipeError for what is no tree.
    """
    n = len(parents)
    above = np.zeros((n, n), np.float32)
    for child, parent in enumerate(parents):
        if parent >= 0:
            above[child, min(parent, n - 1)] = 1
    rooted = parents.count(-1) == 1 and all(-1 <= p < n for p in parents)
    if not rooted or np.linalg.matrix_power(above, n).any():
        raise RecipeError(f"st_gcn: parents {parents} are no tree.", "Each joint's parent, -1 for the one root.")
    links = np.stack([np.eye(n, dtype=np.float32), above, above.T])
    return torch.tensor(links / links.sum((0, 1)))


class _Block(nn.Module):
    def __init__(self, width: int, out: int, stride: int, kernel: int, edges: torch.Size, first: bool):
        super().__init__()
        self.spread = nn.Conv2d(width, 3 * out, 1)
        self.importance = nn.Parameter(torch.ones(edges))
        convolve = nn.Conv2d(out, out, (kernel, 1), (stride, 1), (kernel // 2, 0))
        self.inner = nn.Sequential(nn.GroupNorm(GROUPS, out), nn.ReLU(), convolve, nn.GroupNorm(GROUPS, out))
        plain = width == out and stride == 1
        around = nn.Sequential(nn.Conv2d(width, out, 1, (stride, 1)), nn.GroupNorm(GROUPS, out))
        self.around = None if first else nn.Identity() if plain else around

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        each = self.spread(x).unflatten(1, (3, -1))
        y = self.inner(torch.einsum("bkctv,kvw->bctw", each, graph * self.importance))
        return torch.relu(y if self.around is None else y + self.around(x))
