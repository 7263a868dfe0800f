"""Confidence intervals by drawing participants, not samples: a participant's samples resemble each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], groups: NDArray, *, level: float = 0.95, seed: int = 0
) -> tuple[float, float] | tuple[None, None]:
    """Percentile interval (Efron & Tibshirani 1993, ch. 13) of statistic(places), groups drawn with replacement.

    groups: (n,) whom each item belongs to. Draws in which the statistic is not finite are left out; (None, None) where
    there are fewer than two groups or no finite draw.
    """
    names, of = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return None, None
    order = np.argsort(of, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(of))[:-1])
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(DRAWS):
        drawn = rng.integers(len(names), size=len(names))
        values.append(statistic(np.concatenate([members[i] for i in drawn])))
    finite = np.array(values)[np.isfinite(values)]
    if not len(finite):
        return None, None
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
