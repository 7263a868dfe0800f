"""A keyed permutation of [0, n) in O(1) memory: any place of the shuffled order is computed, none is stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDS = 6


@dataclass(frozen=True)
class Permutation:
    """A Feistel network over the next even number of bits, walked until it falls inside [0, n).

    Black & Rogaway 2002 (cycle walking); the round function is splitmix64's finaliser. The walk is four steps long on
    average at worst.
    """

    n: int
    key: int

    def __call__(self, index: np.ndarray) -> np.ndarray:
        """(k,) places in [0, n) -> (k,) int64, each the image of its place."""
        half = max(1, (int(self.n - 1).bit_length() + 1) // 2)
        at = self._feistel(index.astype(np.uint64), half)
        while (outside := at >= self.n).any():
            at[outside] = self._feistel(at[outside], half)
        return at.astype(np.int64)

    def _feistel(self, x: np.ndarray, half: int) -> np.ndarray:
        shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
        left, right = x >> shift, x & mask
        for i in range(ROUNDS):
            left, right = right, left ^ (mixed(right, self.key + i) & mask)
        return (left << shift) | right


def mixed(x: np.ndarray, key: int) -> np.ndarray:
    """splitmix64 (Steele et al. 2014) of x and a key."""
    with np.errstate(over="ignore"):
        z = x + np.uint64((key * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
