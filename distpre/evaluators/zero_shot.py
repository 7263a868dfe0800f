"""Zero-shot classification by prompts (CLIP, Radford et al. 2021, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from distpre.evaluators.intervals import bootstrap
from distpre.group import gathered
from distpre.types import Batch, Embedder, Row


class ZeroShot:
    """Each image is named by the class whose mean prompt embedding is nearest.

    image, text: views; id: the samples' class index into `classes`, samples of another number are not asked; templates:
    prompts with {} for the class, whose unit embeddings are averaged (a prompt ensemble). by: an id; its values are
    drawn for the bootstrap interval. Yields top-1 and the macro F1 over the samples that could be read.
    """

    def __init__(self, image: str, text: str, id: str, classes: list[str], templates: list[str], by: str | None = None):
        self.image, self.text, self.id, self.by = image, text, id, by
        self.classes, self.templates = classes, templates

    def run(self, embed: Embedder, data: Callable[[], Iterator[Batch]]) -> Iterator[Row]:
        prompts = embed.values(self.text, [t.format(c) for c in self.classes for t in self.templates])
        weights = F.normalize(prompts.unflatten(0, (len(self.classes), -1)).mean(1), dim=-1)
        told = []
        for batch in data():
            named = (embed.batch(batch, self.image)[self.image] @ weights.T).argmax(1)
            asked = batch.present_in(self.image) & (batch.ids[self.id] >= 0) & (batch.ids[self.id] < len(self.classes))
            group = batch.ids[self.by] if self.by else batch.ordinal
            told.append(torch.stack([named.to(asked.device), batch.ids[self.id], group], 1)[asked].to(named.device))
        named, true, groups = gathered(torch.cat(told)).cpu().numpy().T
        every = np.arange(len(true))
        for name, statistic in (("top-1", top_1), ("macro F1", macro_f1)):
            value = statistic(named, true) if len(true) else 0.0
            drawn = bootstrap(lambda at, f=statistic: f(named[at], true[at]), groups) if self.by else (None, None)
            yield Row(name, value, len(every), *drawn)


def top_1(named: NDArray, true: NDArray) -> float:
    return float((named == true).mean())


def macro_f1(named: NDArray, true: NDArray) -> float:
    """Mean over the classes that are there, or are named, of 2 · hits / (there + named)."""
    size = int(max(named.max(), true.max())) + 1
    hits = np.bincount(true[named == true], minlength=size)
    both = np.bincount(true, minlength=size) + np.bincount(named, minlength=size)
    return float((2 * hits[both > 0] / both[both > 0]).mean())
