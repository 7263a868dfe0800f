"""The label that a term gave a sample at its last visit, instead of the one that it came with (CAPro's gate)."""

from __future__ import annotations

import torch
from torch import Tensor

from distpre.types import Batch
from distpre.weighting.histogram import Histogram
from distpre.weighting.state import SampleState


class Decided:
    """Batch.state[its name]: (b,) the term's label of each sample, its own before the first visit.

    of: the term that says labels (`prototypes`); id: the sample's own, a number below 2^24. {name: same_id, id: NAME}
    then takes those for labels, and {name: dropped, amount: NAME, most: classes - 1} leaves out what has none.
    """

    columns = ("label",)

    def __init__(self, of: str, id: str):
        self.of, self.id = of, id

    def weigh(self, state: SampleState, batch: Batch) -> Tensor:
        said = state.read(batch.ordinal)[:, 0]
        return torch.where(said.isnan(), batch.ids[self.id].to(said), said)

    def observe(self, state: SampleState, batch: Batch, labels: Tensor) -> None:
        """Keeps the labels of the samples that were read."""
        real = batch.weight > 0
        state.write("label", batch.ordinal[real], labels.detach()[real.to(labels.device)])

    def end_epoch(self, state: SampleState, epoch: int, seed: int) -> tuple[dict[str, float], Histogram | None]:
        return {}, None
