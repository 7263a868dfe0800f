"""Classification by the nearest neighbours, which are never samples of the same participant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distpre.evaluators.features import Features, participants, samples
from distpre.evaluators.intervals import bootstrap
from distpre.group import gathered
from distpre.types import Batch, Embedder, Row

TILE = 4096  # candidates compared at once


class Knn:
    """Weighted vote of the k nearest by cosine, weight exp(cosine / temperature) (Wu et al. 2018, section 3.4).

    view; id: the class; by: the participant's id: neighbours are others' samples, and the bootstrap interval draws
    participants. each: "sample", or "participant", the mean of their samples' features. Ranks share the queries; every
    rank holds all candidates, (n, d).
    """

    def __init__(
        self,
        view: str,
        id: str,
        by: str,
        k: int = 20,
        temperature: float = 0.07,
        each: Literal["participant", "sample"] = "sample",
        features: Features = "encoder",
    ):
        self.view, self.id, self.by, self.k, self.temperature = view, id, by, k, temperature
        self.each, self.features = each, features

    def run(self, embed: Embedder, data: Callable[[], Iterator[Batch]]) -> Iterator[Row]:
        alone = self.each == "participant"
        if alone:
            x, ids = participants(embed, data, self.view, self.by, [self.id], self.features)
        else:
            x, ids = samples(embed, data, self.view, [self.by, self.id], self.features)
        x = F.normalize(x, dim=-1)
        every, groups, classes = (t if alone else gathered(t) for t in (x, ids[self.by], ids[self.id]))
        cosines, places = neighbours(x, ids[self.by], every, groups, self.k)
        voted = vote(cosines / self.temperature, classes[places])
        hit, own = (t if alone else gathered(t) for t in ((voted == ids[self.id]).double(), ids[self.by]))
        hit = hit.cpu().numpy()
        yield Row("accuracy", float(hit.mean()), len(hit), *bootstrap(lambda at: hit[at].mean(), own.cpu().numpy()))


def neighbours(x: Tensor, group: Tensor, every: Tensor, groups: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(n, k) cosines and places in `every` of the k nearest of another group, -inf where there are fewer."""
    best = x.new_full((len(x), k), -torch.inf)
    place = torch.zeros(len(x), k, dtype=torch.long, device=x.device)
    for start in range(0, len(every), TILE):
        scores = x @ every[start : start + TILE].T
        scores = scores.masked_fill(group[:, None] == groups[None, start : start + TILE], -torch.inf)
        columns = torch.arange(start, start + scores.shape[1], device=x.device).expand_as(scores)
        best, at = torch.cat([best, scores], 1).topk(k, dim=1)
        place = torch.cat([place, columns], 1).gather(1, at)
    return best, place


def vote(logits: Tensor, classes: Tensor) -> Tensor:
    """(n,) the class with the largest sum of exp(logits) in its row; logits, classes: (n, k)."""
    names, index = classes.unique(return_inverse=True)
    weight = (logits - logits[:, :1]).exp().nan_to_num(0.0)
    return names[weight.new_zeros((len(logits), len(names))).scatter_add_(1, index, weight).argmax(1)]
