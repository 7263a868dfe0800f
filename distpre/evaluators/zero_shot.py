"""Zero-shot classification by prompts (CLIP, Radford et al. 2021, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from distpre.runtime.group import total
from distpre.types import Batch, Embedder, Row


class ZeroShot:
    """Each image is named by the class whose mean prompt embedding is nearest.

    image, text: views; id: the samples' class index into `classes`; templates: prompts with {} for the class, whose
    unit embeddings are averaged (a prompt ensemble). Yields top-1 over the samples that could be read.
    """

    def __init__(self, image: str, text: str, id: str, classes: list[str], templates: list[str]):
        self.image, self.text, self.id = image, text, id
        self.classes, self.templates = classes, templates

    def run(self, embed: Embedder, data: Callable[[], Iterator[Batch]]) -> Iterator[Row]:
        prompts = embed.values(self.text, [t.format(c) for c in self.classes for t in self.templates])
        weights = F.normalize(prompts.unflatten(0, (len(self.classes), -1)).mean(1), dim=-1)
        counts = torch.zeros(2, dtype=torch.float64, device=weights.device)
        for batch in data():
            named = (embed.batch(batch, self.image)[self.image] @ weights.T).argmax(1)
            real = batch.present_in(self.image).to(named.device)
            counts[0] += ((named == batch.ids[self.id].to(named.device)) & real).sum()
            counts[1] += real.sum()
        right, seen = total(counts).tolist()
        yield Row("top-1", right / max(seen, 1), int(seen))
