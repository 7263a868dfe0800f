"""The samples that score lowest are chosen, after the epoch that was asked for, and stay chosen."""

import pytest
import torch

from distpre.types import Batch
from distpre.weighting.share import TopShare
from distpre.weighting.state import SampleState

N = 1000


@pytest.mark.parametrize("lowest", [False, True])
def test_the_share_that_scores_highest_or_lowest_is_chosen_once(lowest):
    scores = torch.randperm(N, generator=torch.Generator().manual_seed(0)).float()
    top = TopShare("apart", share=0.05, after=2, lowest=lowest)
    state, weight = SampleState(N, top.columns, ""), torch.ones(N)
    weight[3] = 0  # could not be read: it has no score, and is not chosen
    scores[3] = -1.0 if lowest else N
    batch = Batch({}, {}, torch.arange(N), weight)
    top.observe(state, batch, scores)
    assert top.end_epoch(state, 1, 0) == ({}, None) and top.weigh(state, batch).sum() == 0
    figures, seen = top.end_epoch(state, 2, 0)
    chosen = top.weigh(state, batch).bool()
    assert figures["chosen"] == chosen.sum() == 50 and not chosen[3] and seen.counts.sum() == N - 1
    others = scores[~chosen & (weight > 0)]
    assert scores[chosen].max() < others.min() if lowest else scores[chosen].min() > others.max()
    top.observe(state, batch, -scores)
    assert top.end_epoch(state, 3, 0) == ({}, None) and torch.equal(top.weigh(state, batch).bool(), chosen)


def test_the_figure_found_is_the_share_of_the_true_ones_that_was_chosen():
    scores = torch.arange(N).float()
    top = TopShare("apart", share=0.05, after=1, lowest=True, truth="poisoned")
    state, weight = SampleState(N, top.columns, ""), torch.ones(N)
    weight[0] = 0  # could not be read: not among those that should be chosen
    poisoned = torch.zeros(N, dtype=torch.int64)
    poisoned[[0, 1, 2, 30, 900]] = 1
    top.observe(state, Batch({}, {"poisoned": poisoned}, torch.arange(N), weight), scores)
    assert top.end_epoch(state, 1, 0)[0]["found"] == 3 / 4
