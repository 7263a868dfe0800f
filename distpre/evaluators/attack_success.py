"""Does a trigger still work, and at what price: clean accuracy and attack success rate of one prompt classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from distpre.group import total
from distpre.types import Batch, Embedder, Row


class AttackSuccess:
    """Zero-shot classification of a set that holds every sample clean and triggered (`python -m tools.poison --test`).

    image, text, id, classes, templates: as zero_shot's. poisoned: the id that is 1 for a triggered sample; target: the
    attacked class's index. Yields top-1 over clean samples, and the share of triggered samples of other classes that
    are named the target (Gu et al. 2017); samples of the target are in the first figure only.
    """

    def __init__(
        self,
        image: str,
        text: str,
        id: str,
        poisoned: str,
        target: int,
        classes: list[str],
        templates: list[str],
    ):
        self.image, self.text, self.id, self.poisoned, self.target = image, text, id, poisoned, target
        self.classes, self.templates = classes, templates

    def run(self, embed: Embedder, data: Callable[[], Iterator[Batch]]) -> Iterator[Row]:
        prompts = embed.values(self.text, [t.format(c) for c in self.classes for t in self.templates])
        weights = F.normalize(prompts.unflatten(0, (len(self.classes), -1)).mean(1), dim=-1)
        counts = torch.zeros(4, dtype=torch.float64, device=weights.device)
        for batch in data():
            named = (embed.batch(batch, self.image)[self.image] @ weights.T).argmax(1)
            real, label = batch.present_in(self.image).to(named.device), batch.ids[self.id].to(named.device)
            triggered = batch.ids[self.poisoned].to(named.device) == 1
            clean, attacked = real & ~triggered, real & triggered & (label != self.target)
            hits = clean & (named == label), clean, attacked & (named == self.target), attacked
            counts += torch.stack([hit.sum() for hit in hits])
        right, seen, fooled, tried = total(counts).tolist()
        yield Row("clean top-1", right / max(seen, 1), int(seen))
        yield Row("attack success rate", fooled / max(tried, 1), int(tried))
