"""Which sample stands in which slot: pure arithmetic from (shard sizes, seed, window), nothing remembered.

    slot    0, 1, 2, ... counts samples over the whole run; step t of global batch B takes slots t·B .. t·B + B - 1
    epoch   slot // n: the tail of an epoch is carried into the next, so nothing is missed and nothing doubled
    place   slot % n

An epoch permutes the shards, cuts their row into windows of at least `window` samples, and permutes the samples inside
each window. Reads therefore stay inside one window's shards while the shuffle is as wide as the window. Rank and
worker do not appear: they only decide who reads a slot.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distpre.data.permutation import derived, permute

SHARDS, SAMPLES = 1, 2  # what a key is for


class Order:
    """slots -> (epochs, ordinals). counts: (shards,) samples of each shard; ordinal counts samples in shard order."""

    def __init__(self, counts: ArrayLike, seed: int, window: int):
        self.counts = np.asarray(counts, np.int64)
        self.seed, self.window = seed, window
        self.size = int(self.counts.sum())
        self.epoch = lru_cache(maxsize=2)(self._epoch)  # a global batch touches one or two

    def __len__(self) -> int:
        return self.size

    def __str__(self) -> str:
        return f"windows of {self.window}"

    def __reduce__(self) -> tuple:
        return Order, (self.counts, self.seed, self.window)

    def at(self, slots: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """slots (m,) -> epochs (m,), ordinals (m,)."""
        epochs, places = np.divmod(np.asarray(slots, np.int64), self.size)
        ordinals = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            ordinals[here] = self.epoch(int(epoch)).at(places[here])
        return epochs, ordinals

    def _epoch(self, epoch: int) -> Epoch:
        return Epoch(self.counts, derived(self.seed, epoch), self.window)


class Epoch:
    """One epoch's order. shards: the permuted row of shards; ends: where each ends in it; edges: of the windows."""

    def __init__(self, counts: NDArray[np.int64], key: ArrayLike, window: int):
        self.key = key
        self.shards = permute(np.arange(len(counts)), len(counts), derived(key, SHARDS))
        self.lengths = counts[self.shards]
        self.ends = self.lengths.cumsum()
        self.edges = _edges(self.ends, window)
        self.first = (counts.cumsum() - counts)[self.shards]  # ordinal of each shard's first sample

    def at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """places (m,) of the epoch -> ordinals (m,)."""
        window = np.searchsorted(self.edges, places, "right") - 1
        start = self.edges[window]
        place = start + permute(places - start, self.edges[window + 1] - start, derived(self.key, SAMPLES, window))
        shard = np.searchsorted(self.ends, place, "right")
        return self.first[shard] + place - (self.ends[shard] - self.lengths[shard])

    def shards_of_window(self, place: int) -> tuple[NDArray[np.int64], int]:
        """The shards that the window of a place reads, and the place at which the next window starts."""
        window = int(np.searchsorted(self.edges, place, "right")) - 1
        start, end = self.edges[window], int(self.edges[window + 1])
        inside = (self.ends > start) & (self.ends <= end) & (self.lengths > 0)
        return self.shards[inside], end


def _edges(ends: NDArray[np.int64], window: int) -> NDArray[np.int64]:
    """A window ends with the first shard that fills it; the last takes what is left."""
    edges = [0]
    while edges[-1] < ends[-1]:
        full = np.searchsorted(ends, edges[-1] + window)
        edges.append(int(ends[min(full, len(ends) - 1)]))
    return np.asarray(edges, np.int64)
