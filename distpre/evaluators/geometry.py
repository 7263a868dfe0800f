"""How embeddings lie in their space, without labels: effective rank, alignment, uniformity."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from distpre.evaluators.features import Features, samples
from distpre.group import gathered, total
from distpre.types import Batch, Embedder, Row

TILE = 4096  # vectors compared at once


class Geometry:
    """view; id: samples with equal values are each other's positives (a participant).

    effective rank: exp of the entropy of the normalised singular values of the unit vectors (Roy & Vetterli 2007; not
    centred, as in Garrido et al. 2023). alignment: mean squared distance of positives; uniformity: log of the mean of
    exp(-2 squared distance) of all pairs (Wang & Isola 2020, eq. 4 and 5); both better when lower.
    Ranks share the rows; every rank holds all, (n, d).
    """

    def __init__(self, view: str, id: str, features: Features = "head"):
        self.view, self.id, self.features = view, id, features

    def run(self, embed: Embedder, data: Callable[[], Iterator[Batch]]) -> Iterator[Row]:
        x, ids = samples(embed, data, self.view, [self.id], self.features)
        x = F.normalize(x.double(), dim=-1)
        every, groups = gathered(x), gathered(ids[self.id])
        yield Row("effective rank", effective_rank(total(x.T @ x)), len(every))
        pairs, distance = alignment(every, groups)
        yield Row("alignment", distance, pairs)
        value = float(total(potential(x, every))) - len(every)  # every vector met itself
        n = len(every) * (len(every) - 1)
        yield Row("uniformity", math.log(value / n), n // 2)


def effective_rank(gram: Tensor) -> float:
    """gram: (d, d) sum of x xᵀ, whose eigenvalues are the squared singular values."""
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    p = singular / singular.sum()
    return float(torch.special.entr(p).sum().exp())


def alignment(x: Tensor, groups: Tensor) -> tuple[int, float]:
    """(positive pairs, mean |x_i - x_j|²): c unit vectors with sum s have Σ_{i≠j} |x_i - x_j|² = 2c² - 2|s|²."""
    names, place = groups.unique(return_inverse=True)
    sums = x.new_zeros((len(names), x.shape[1])).index_add_(0, place, x)
    count = torch.bincount(place).double()
    pairs = (count * (count - 1)).sum()
    return int(pairs) // 2, float((2 * count**2 - 2 * sums.square().sum(1)).sum() / pairs)


def potential(x: Tensor, every: Tensor) -> Tensor:
    """Σ exp(-2 |x_i - y_j|²) over all rows of both, unit vectors."""
    tiles = (x @ every[start : start + TILE].T for start in range(0, len(every), TILE))
    return sum((-4 * (1 - cosines)).exp().sum() for cosines in tiles)
