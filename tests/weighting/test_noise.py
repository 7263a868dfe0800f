"""ε against the truth that made the losses, and nothing claimed where losses say nothing."""

import numpy as np
import pytest
import torch

from distpre.errors import RecipeError
from distpre.types import Batch
from distpre.weighting.noise import GmmNoise, auroc, fit
from distpre.weighting.state import SampleState


def losses(share: float, n: int = 4000, gap: float = 3.0):
    rng = np.random.default_rng(0)
    wrong = rng.random(n) < share
    return np.where(wrong, rng.normal(2 + gap, 0.8, n), rng.normal(2, 0.5, n)).astype(np.float32), wrong


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_the_fit_finds_the_two_components(share):
    x, wrong = losses(share)
    found = fit(x, 0)
    scale = found.high - found.low
    assert found.means[1] * scale + found.low == pytest.approx(5, abs=0.1)
    assert found.deviations[0] * scale == pytest.approx(0.5, abs=0.05)
    assert found.weights[1] == pytest.approx(share, abs=0.03) and not found.degenerate
    epsilon = found.posterior(torch.from_numpy(x)).numpy()
    assert ((epsilon > 0.5) == wrong).mean() > 0.98
    order = np.argsort(x)
    assert (np.diff(epsilon[order]) >= -1e-6).all()  # a larger loss is never more trustworthy


@pytest.mark.parametrize("x", [losses(0.0)[0], np.full(500, 2.0), losses(0.4)[0][:50]])
def test_losses_that_say_nothing_make_nobody_suspect(x):
    found = fit(np.asarray(x, np.float32), 0)
    assert found is None or found.posterior(torch.from_numpy(x)).max() == 0


def test_epsilon_is_zero_through_the_warm_up_and_a_mean_over_epochs_after():
    x, wrong = losses(0.4)
    noise = GmmNoise("match", warm_up=2, momentum=0.75, truth="wrong")
    state = SampleState(len(x), noise.columns, "")
    weight = torch.ones(len(x))
    weight[7] = 0
    batch = Batch({}, {"wrong": torch.from_numpy(wrong).long()}, torch.arange(len(x)), weight)
    noise.observe(state, batch, torch.from_numpy(x))
    assert state.column("loss")[7].isnan() and torch.equal(state.column("loss")[8:], torch.from_numpy(x)[8:])
    assert noise.end_epoch(state, 1, 0) == ({}, None) and noise.weigh(state, batch).abs().max() == 0
    figures, seen = noise.end_epoch(state, 2, 0)
    first = noise.weigh(state, batch)
    assert figures["weights_high"] == pytest.approx(0.4, abs=0.03) and figures["degenerate"] == 0
    assert 0.98 < figures["auroc"] < 1
    assert first[wrong].mean() == pytest.approx(0.25, abs=0.01) and first[7] == 0
    assert seen.counts.sum() == len(x) - 1
    right, wrong_ones = seen.curves.values()  # the fit, on the scale of the bars
    assert right.sum() == pytest.approx(0.6 * len(x), rel=0.05)
    assert np.abs(right + wrong_ones - seen.counts).sum() < 0.15 * len(x)
    noise.end_epoch(state, 3, 0)
    torch.testing.assert_close(noise.weigh(state, batch), first * 1.75)


def test_auroc_is_scikit_learns_also_with_ties_and_says_nothing_of_one_kind():
    from sklearn.metrics import roc_auc_score

    g = torch.Generator().manual_seed(0)
    truth = (torch.rand(300, generator=g) < 0.3).float()
    amount = (truth + torch.randn(300, generator=g)).round(decimals=0)
    assert auroc(amount, truth) == pytest.approx(roc_auc_score(truth, amount))
    assert auroc(torch.zeros(300), truth) == 0.5
    assert np.isnan(auroc(amount, torch.zeros(300)))


def test_a_fit_of_too_few_losses_is_refused_before_training():
    from distpre.errors import DataError
    from distpre.recipe import load
    from distpre.runtime.remembered import Remembered

    class Few:
        digest = ""

        def __len__(self) -> int:
            return 99

    class Loader:
        source = Few()

    recipe = load("recipes/robust/nevlp.yaml", ["launch.workers=1"])
    with pytest.raises(DataError, match="weighting.noise: gmm_noise needs at least 100 samples; data.train has 99"):
        Remembered(recipe, Loader(), print)
    with pytest.raises(RecipeError, match="gmm_noise.most 50: a fit needs at least 100"):
        GmmNoise("plain", most=50)
