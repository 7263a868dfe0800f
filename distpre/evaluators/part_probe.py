"""A linear probe of the parts of samples: patches of volumes, by what is in the middle of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from distpre.errors import RecipeError
from distpre.evaluators.features import Features, features
from distpre.evaluators.probe import Probe
from distpre.runtime.group import gathered
from distpre.types import Batch, Embedder, Row


class PartProbe:
    """Logistic regression as `probe`'s; an item is a part of a sample: view (b, k, ...), of a tower's (b, k, d).

    facts: {labels: the view that holds the class of each part, (b, k)}. by: the participant's id: each is judged by a
    fold without them. labelled: shares of the fitted participants whose parts have classes, as `probe`'s. features: as
    in features.py. Rank 0 fits; every rank holds all rows.
    """

    def __init__(
        self,
        view: str,
        facts: dict[str, str],
        by: str,
        features: Features = "encoder",
        folds: int = 5,
        strength: float = 1.0,
        labelled: list[float] = (1.0,),  # noqa: B006
    ):
        if "labels" not in facts:
            raise RecipeError("part_probe: facts name no labels.", "Write {labels: VIEW}, a view of a class a part.")
        self.view, self.labels, self.by, self.features = view, facts["labels"], by, features
        self.probe = Probe(view, self.labels, by, folds=folds, strength=strength, labelled=labelled)

    def run(self, embed: Embedder, data: Callable[[], Iterator[Batch]]) -> Iterator[Row]:
        rows: list[tuple[Tensor, ...]] = []
        for batch in data():
            there = batch.present_in(self.view) & batch.present_in(self.labels)
            x, labels = self._features(embed, batch)[there], batch.views[self.labels][there].long()
            ids = torch.stack([batch.ordinal[there], batch.ids[self.by][there]])[..., None].expand(-1, -1, x.shape[1])
            rows.append((x.flatten(0, 1), torch.stack([*ids, labels]).flatten(1).T.to(x.device)))
        x, told = (gathered(torch.cat(part)) for part in zip(*rows, strict=True))
        order = told[:, 0].argsort(stable=True)  # folds must not depend on the number of ranks
        yield from self.probe.rows(x[order], told[order, 2], told[order, 1])

    def _features(self, embed: Embedder, batch: Batch) -> Tensor:
        if self.features == "input":
            return batch.views[self.view].flatten(2).float()
        return features(embed, batch, self.view, self.features)
