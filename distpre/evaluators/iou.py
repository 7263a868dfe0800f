"""How well parts (points) are told apart by the texts of classes alone (CLIP2Scene, Chen et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distpre.anchors import Anchors, likest
from distpre.errors import RecipeError
from distpre.evaluators.intervals import bootstrap
from distpre.group import gathered
from distpre.types import Batch, Embedder, Row


class Iou:
    """Intersection over union of each class that the truth has, and their mean: parts are named by the likest anchor.

    view: of a tower's (b, k, d). anchors: a file of `tools.anchors`. facts: {truth: VIEW, (b, k) classes, -1 for parts
    that are not counted; said: VIEW}: with said, parts are named by that view instead (a teacher's labels), and those
    of which it says nothing, -1, are not counted. by: the id of scenes, drawn for the bootstrap interval of the mean.
    Every rank holds c · c numbers a sample. Yields "mIoU" over all parts of the data, "accuracy" and "IoU CLASS".
    """

    def __init__(self, view: str, anchors: str, facts: dict[str, str], by: str):
        if "truth" not in facts:
            raise RecipeError("iou: facts name no truth.", "Write {truth: VIEW}, a view of a class a part.")
        self.view, self.truth, self.said, self.by = view, facts["truth"], facts.get("said"), by
        self.anchors = Anchors.read(anchors)

    def run(self, embed: Embedder, data: Callable[[], Iterator[Batch]]) -> Iterator[Row]:
        tables, scenes = [], []
        for batch in data():
            there = batch.present_in(self.view) & batch.present_in(self.truth)
            if self.said is not None:
                there &= batch.present_in(self.said)
            named, truth = self._named(embed, batch), batch.views[self.truth].long()
            for view, its in ((self.said, named), (self.truth, truth)):
                if (its >= len(self.anchors.classes)).any():
                    what = f"iou: {view} has a part of class {int(its.max())}"
                    raise RecipeError(
                        f"{what}; the anchors have {len(self.anchors.classes)}.", "Make them of one list."
                    )
            tables.append(confusion(truth.to(named.device), named, len(self.anchors.classes))[there.to(named.device)])
            scenes.append(batch.ids[self.by][there].to(named.device))
        each, by = (gathered(torch.cat(x)).cpu().numpy() for x in (tables, scenes))
        if (each.sum(0).max(initial=0)) == 0:
            raise RecipeError(f"iou: no part of {self.truth} has a class.", "Take data that has the truth.")
        whole = each.sum(0)
        shares, n = ious(whole), int(whole.sum())
        yield Row("mIoU", float(np.nanmean(shares)), n, *bootstrap(lambda at: np.nanmean(ious(each[at].sum(0))), by))
        yield Row("accuracy", float(whole.trace() / n), n)
        for name, share, count in zip(self.anchors.classes, shares, whole.sum(1), strict=True):
            if count:
                yield Row(f"IoU {name}", float(share), int(count))

    def _named(self, embed: Embedder, batch: Batch) -> Tensor:
        if self.said is not None:
            return batch.views[self.said].long()
        x = embed.batch(batch, self.view)[self.view]
        return likest(x, self.anchors.of(x))


def confusion(truth: Tensor, named: Tensor, classes: int) -> Tensor:
    """(b, k) classes, -1 for none in either -> (b, c, c) how many parts of a sample are of one and named the other."""
    counted = (truth >= 0) & (named >= 0)
    pair = torch.where(counted, truth * classes + named, classes * classes)
    out = torch.zeros(len(truth), classes * classes + 1, dtype=torch.long, device=truth.device)
    return out.scatter_add_(1, pair, torch.ones_like(pair))[:, :-1].unflatten(1, (classes, classes))


def ious(table: NDArray) -> NDArray:
    """(c, c) -> (c,): NaN for a class that the truth has not."""
    right, truth, named = table.diagonal(), table.sum(1), table.sum(0)
    return np.where(truth > 0, right / np.maximum(truth + named - right, 1), np.nan)
