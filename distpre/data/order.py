"""The order of training: position -> sample, as arithmetic.

Position p of a run is slot p mod n of epoch p div n: the tail of an epoch goes on into the next one, nothing is missed
and nothing doubled. In each epoch the shards are permuted and cut into windows of about `window` samples; inside a
window the samples are permuted. So the reads stay inside a few shards and the shuffle is as good as the window is long.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from distpre.data.permutation import Permutation, mixed


@dataclass(frozen=True)
class Order:
    """sizes (s,): samples of each shard. `at` knows no rank, no worker and no history."""

    sizes: tuple[int, ...]
    seed: int
    window: int

    @property
    def n(self) -> int:
        return sum(self.sizes)

    def at(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(k,) positions -> (k,) epochs, (k,) ordinals in the manifest."""
        epoch, slot = position // self.n, position % self.n
        ordinal = np.empty_like(slot)
        for e in np.unique(epoch):
            ordinal[epoch == e] = _epoch(self, int(e)).ordinals(slot[epoch == e])
        return epoch, ordinal


@dataclass(frozen=True)
class _Epoch:
    """starts (s,): first slot of each shard in this epoch's order; first (s,): its first ordinal in the manifest;
    bounds (w + 1,): first slot of each window; key: of this epoch's permutations."""

    starts: np.ndarray
    first: np.ndarray
    bounds: np.ndarray
    key: int

    def ordinals(self, slot: np.ndarray) -> np.ndarray:
        window = np.searchsorted(self.bounds, slot, side="right") - 1
        inside = np.empty_like(slot)
        for w in np.unique(window):
            begin, end = int(self.bounds[w]), int(self.bounds[w + 1])
            at = window == w
            inside[at] = begin + Permutation(end - begin, self.key + 1 + int(w))(slot[at] - begin)
        shard = np.searchsorted(self.starts, inside, side="right") - 1
        return self.first[shard] + inside - self.starts[shard]


@functools.lru_cache(maxsize=4)
def _epoch(order: Order, epoch: int) -> _Epoch:
    sizes = np.array(order.sizes, dtype=np.int64)
    key = int(mixed(np.array([epoch], dtype=np.uint64), order.seed)[0])
    shards = Permutation(len(sizes), key)(np.arange(len(sizes)))
    starts = np.concatenate([[0], np.cumsum(sizes[shards])])
    first = np.concatenate([[0], np.cumsum(sizes)])[shards]
    windows = np.unique(starts[:-1] // order.window)
    bounds = starts[np.searchsorted(starts[:-1] // order.window, windows)]
    return _Epoch(starts[:-1], first, np.append(bounds, starts[-1]), key)
