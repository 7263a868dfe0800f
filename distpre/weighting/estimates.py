"""The inner estimates of a compositional loss: what its term made of each sample at its last visit (FastCLIP)."""

from __future__ import annotations

from torch import Tensor

from distpre.types import Batch
from distpre.weighting.histogram import Histogram
from distpre.weighting.state import SampleState


class InnerEstimates:
    """Batch.state[its name]: (b, 2) log u of rows and of columns, NaN before the first visit.

    of: the `global_contrastive` term that says them; it holds the moving mean's arithmetic.
    """

    columns = ("log_u_rows", "log_u_columns")

    def __init__(self, of: str):
        self.of = of

    def weigh(self, state: SampleState, batch: Batch) -> Tensor:
        return state.read(batch.ordinal)

    def observe(self, state: SampleState, batch: Batch, said: Tensor) -> None:
        for column, values in zip(self.columns, said.unbind(1), strict=True):
            state.write(column, batch.ordinal, values)

    def end_epoch(self, state: SampleState, epoch: int, seed: int) -> tuple[dict[str, float], Histogram | None]:
        return {}, None
