"""Is a crop's place in its volume known from its embedding? (VoCo, Wu et al. 2024)"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from distpre.errors import RecipeError
from distpre.evaluators.intervals import bootstrap
from distpre.group import gathered
from distpre.types import Batch, Embedder, Row


class Assignment:
    """Share of crops whose likest cell of the same volume, by cosine, is the one that holds most of the crop.

    view, facts: as `of` and facts of the term `position`. by: the participant's id, drawn for the bootstrap interval.
    Chance is one in the number of cells. Evaluation draws the same boxes in every volume: let their count be large.
    """

    def __init__(self, view: str, facts: dict[str, str], by: str):
        if "overlap" not in facts:
            raise RecipeError("assignment: facts name no overlap.", "Write {overlap: VIEW}, a view with box_overlaps.")
        self.view, self.overlap, self.by = view, facts["overlap"], by

    def run(self, embed: Embedder, data: Callable[[], Iterator[Batch]]) -> Iterator[Row]:
        hits, people = [], []
        for batch in data():
            parts = embed.batch(batch, self.view)[self.view]
            overlap = batch.views[self.overlap].to(parts.device)
            many = overlap.shape[2]
            likest = (parts[:, many:] @ parts[:, :many].mT).argmax(2, keepdim=True)
            there = batch.present_in(self.view).to(parts.device)
            hits.append((overlap.gather(2, likest)[..., 0] == overlap.amax(2))[there])
            people.append(batch.ids[self.by].to(parts.device)[there])
        hit = gathered(torch.cat(hits).double()).cpu().numpy()
        groups = gathered(torch.cat(people)).cpu().numpy()
        yield Row("accuracy", float(hit.mean()), hit.size, *bootstrap(lambda at: hit[at].mean(), groups))
