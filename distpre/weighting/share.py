"""The samples that score highest or lowest: CleanCLIP's code (arXiv 2303.03323) can score all pairs with the poisoned
model, remove the most similar ones and go on without them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from distpre.group import device, total
from distpre.types import Batch
from distpre.weighting.histogram import BINS, Histogram
from distpre.weighting.state import SampleState

SCORE, CHOSEN, TRUTH = "score", "chosen", "truth"


class TopShare:
    """Batch.state[its name]: 1 for the chosen `share` of the samples (b,), 0 for the others; before `after` for all.

    of: the term whose per-sample figure is the score. After `after` whole epochs those that scored highest (lowest:
    lowest) in the last of them are chosen, once and for good. The threshold is taken from at most `most` samples.
    truth: an id that is 1 for samples that should be chosen, where that is known: the figure `found` then says which
    share of them was. Training sees nothing of it.
    """

    def __init__(
        self,
        of: str,
        share: float,
        after: int = 1,
        lowest: bool = False,
        most: int = 1_000_000,
        truth: str | None = None,
    ):
        self.of, self.share, self.after, self.lowest, self.most, self.truth = of, share, after, lowest, most, truth
        self.columns = (SCORE, CHOSEN) if truth is None else (SCORE, CHOSEN, TRUTH)

    def weigh(self, state: SampleState, batch: Batch) -> Tensor:
        return state.read(batch.ordinal)[:, 1].nan_to_num(0.0)

    def observe(self, state: SampleState, batch: Batch, scores: Tensor) -> None:
        """Keeps the scores of the samples that were read."""
        real = batch.weight > 0
        state.write(SCORE, batch.ordinal[real], scores.detach()[real.to(scores.device)])
        if self.truth is not None:
            state.write(TRUTH, batch.ordinal[real], batch.ids[self.truth][real])

    def end_epoch(self, state: SampleState, epoch: int, seed: int) -> tuple[dict[str, float], Histogram | None]:
        """Chooses after epoch `after`; returns figures to log and the scores; every rank calls it."""
        if epoch != self.after:
            return {}, None
        scores = state.sampled(SCORE, self.most)
        if not len(scores):
            return {"chosen": 0.0}, None
        sign = -1.0 if self.lowest else 1.0
        least = (sign * scores).double().quantile(1 - self.share)
        mine = sign * state.column(SCORE).double() > least  # False where nothing is known
        state.column(CHOSEN)[:] = mine.float()
        counts, edges = np.histogram(scores.numpy(), BINS)
        figures = {"chosen": total(mine.sum().to(device())).item(), "threshold": sign * least.item()}
        if self.truth is not None:
            should = state.column(TRUTH) == 1
            found, of = total(torch.stack([(mine & should).sum(), should.sum()]).to(device())).tolist()
            figures["found"] = found / max(of, 1)
        return figures, Histogram(SCORE, edges, counts)
