"""The probability that a pair is wrong, from its loss (NEVLP, arXiv 2409.09582; a reconstruction, as its equations are
not at hand: NLIP's recipe, arXiv 2212.07086, of a warm-up, a mixture of two Gaussians and its posterior)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distpre.errors import RecipeError
from distpre.group import device, from_rank_zero, rank, total
from distpre.types import Batch
from distpre.weighting.histogram import BINS, Histogram
from distpre.weighting.state import SampleState

LOSS, NOISE, TRUTH = "loss", "noise", "truth"
FEWEST = 100  # losses that a fit needs
LIGHTEST = 0.01  # a component's weight, below which the fit says nothing


@dataclass(frozen=True)
class Fit:
    """Two Gaussians over losses scaled to [0, 1] from [low, high]; index 1 is the one of the larger mean."""

    low: float
    high: float
    means: tuple[float, float]
    deviations: tuple[float, float]
    weights: tuple[float, float]

    @property
    def degenerate(self) -> bool:
        """A component is empty, or the two are one: means within two pooled deviations (Ashman et al. 1994, D < 2).

        Of a single Gaussian, expectation maximisation makes halves whose means lie 1.4 pooled deviations apart.
        """
        pooled = np.sqrt(np.mean(np.square(self.deviations)))
        return min(self.weights) < LIGHTEST or self.means[1] - self.means[0] < 2 * pooled

    def expected(self, edges: NDArray, count: int) -> tuple[NDArray, NDArray]:
        """Of `count` losses, how many each of the two has between edges (n + 1,): (n,), (n,)."""
        x = (edges - self.low) / (self.high - self.low)
        below = [
            torch.special.ndtr(torch.from_numpy((x - mean) / deviation)).numpy() * weight * count
            for mean, deviation, weight in zip(self.means, self.deviations, self.weights, strict=True)
        ]
        return np.diff(below[0]), np.diff(below[1])

    def posterior(self, losses: Tensor) -> Tensor:
        """Probability of the component of the larger mean, (n,); 0 everywhere where the fit is degenerate.

        Monotone in the loss: below the low component's mean it is 0, though a wider high component may win there.
        """
        if self.degenerate:
            return torch.zeros_like(losses)
        x = ((losses - self.low) / (self.high - self.low)).double()
        log = [
            np.log(w) - np.log(s) - (x - m).square() / (2 * s * s)
            for m, s, w in zip(self.means, self.deviations, self.weights, strict=True)
        ]
        high = torch.sigmoid(log[1] - log[0])
        high = torch.where(x < self.means[0], 0.0, torch.where(x > self.means[1], high.clamp(min=0.5), high))
        return high.to(losses.dtype)


def fit(losses: NDArray, seed: int) -> Fit | None:
    """Expectation maximisation by scikit-learn; None for fewer than FEWEST losses, or equal ones."""
    low, high = (float(losses.min()), float(losses.max())) if len(losses) else (0.0, 0.0)
    if len(losses) < FEWEST or not high > low:
        return None
    from sklearn.mixture import GaussianMixture

    scaled = ((losses - low) / (high - low)).reshape(-1, 1).astype(np.float64)
    found = GaussianMixture(2, reg_covar=1e-4, max_iter=200, random_state=seed).fit(scaled)
    order = found.means_.ravel().argsort()
    means, weights = found.means_.ravel()[order], found.weights_[order]
    deviations = np.sqrt(found.covariances_.ravel()[order])
    return Fit(low, high, *(tuple(map(float, each)) for each in (means, deviations, weights)))


class GmmNoise:
    """Batch.state[its name]: ε (b,) in [0, 1], the probability that the sample's pair is wrong.

    of: the term whose per-sample losses are kept (un-smoothed ones: a term that ε smooths reports its plain loss).
    warm_up: epochs in which ε is 0; after each later one two Gaussians are fitted to the losses (at most `most` of
    them, on rank 0; six numbers travel) and ε <- momentum · ε + (1 - momentum) · posterior. A degenerate fit gives 0.
    truth: an id that is 1 for a wrong pair and 0 for a right one, where that is known: the figure `auroc` then says how
    well ε tells them apart. Training sees nothing of it.
    """

    fewest = FEWEST

    def __init__(self, of: str, warm_up: int = 1, momentum: float = 0.0, most: int = 200_000, truth: str | None = None):
        if most < FEWEST:
            raise RecipeError(f"gmm_noise.most {most}: a fit needs at least {FEWEST} losses.", "Raise it.")
        self.of, self.warm_up, self.momentum, self.most, self.truth = of, warm_up, momentum, most, truth
        self.columns = (LOSS, NOISE) if truth is None else (LOSS, NOISE, TRUTH)

    def weigh(self, state: SampleState, batch: Batch) -> Tensor:
        """ε of this rank's samples, 0 where nothing is known yet."""
        return state.read(batch.ordinal)[:, 1].nan_to_num(0.0)

    def observe(self, state: SampleState, batch: Batch, losses: Tensor) -> None:
        """Keeps the losses of the samples that were read."""
        real = batch.weight > 0
        state.write(LOSS, batch.ordinal[real], losses.detach()[real.to(losses.device)])
        if self.truth is not None:
            state.write(TRUTH, batch.ordinal[real], batch.ids[self.truth][real])

    def end_epoch(self, state: SampleState, epoch: int, seed: int) -> tuple[dict[str, float], Histogram | None]:
        """Fits anew after `epoch` whole epochs; returns figures to log, and losses and fit; every rank calls it."""
        if epoch < self.warm_up:
            return {}, None
        losses, noise = state.column(LOSS), state.column(NOISE)
        known = losses.isfinite()
        sample = state.sampled(LOSS, self.most).numpy()
        found = from_rank_zero(fit(sample, seed) if rank() == 0 else None)
        posterior = found.posterior(losses[known]) if found else torch.zeros(int(known.sum()))
        noise[known] = self.momentum * noise[known].nan_to_num(0.0) + (1 - self.momentum) * posterior
        above, count = total(torch.stack([(noise > 0.5).sum(), known.sum()]).to(device())).tolist()
        figures = {"above_half": above / max(count, 1), "degenerate": float(found is None or found.degenerate)}
        if found:
            for name in ("means", "deviations", "weights"):
                low, high = getattr(found, name)
                figures |= {f"{name}_low": low, f"{name}_high": high}
        if self.truth is not None:
            figures["auroc"] = auroc(*state.sampled((NOISE, TRUTH), self.most).unbind(1))
        return figures, seen(sample, found)


def auroc(amount: Tensor, truth: Tensor) -> float:
    """The chance that a sample of truth 1 has more than one of truth 0, equal ones counting half; NaN of one kind.

    amount, truth: (n,). By the rank sum of Mann & Whitney (1947).
    """
    values, place, count = amount.unique(return_inverse=True, return_counts=True)
    ranks = (count.cumsum(0).double() - (count - 1) / 2)[place]
    wrong = truth > 0
    n, m = int(wrong.sum()), int((~wrong).sum())
    return (ranks[wrong].sum().item() - n * (n + 1) / 2) / (n * m) if n and m else math.nan


def seen(losses: NDArray, found: Fit | None) -> Histogram | None:
    """The losses (n,), finite ones, with the two components as curves; None of none."""
    if not len(losses):
        return None
    counts, edges = np.histogram(losses, BINS)
    if found is None or found.degenerate:
        return Histogram(LOSS, edges, counts)
    right, wrong = found.expected(edges, len(losses))
    return Histogram(LOSS, edges, counts, {"taken for right": right, "taken for wrong": wrong})
