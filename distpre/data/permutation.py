"""A keyed permutation of 0..n-1: no state, no memory, any place at once.

A Feistel network over the smallest even number of bits that holds n, walked along its cycle until it lands below n
(Black & Rogaway 2002, "Ciphers with arbitrary finite domains"). Everything works on numpy arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDS = 6
GOLDEN = 0x9E3779B97F4A7C15


def mix(x: ArrayLike) -> NDArray[np.uint64]:
    """splitmix64's finaliser (Steele et al. 2014): 64 bits in, 64 well-stirred bits out."""
    x = np.asarray(x, np.uint64)
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def derived(key: ArrayLike, *parts: ArrayLike) -> NDArray[np.uint64]:
    """A key that depends on `key` and on each of the parts, in their order; arrays broadcast."""
    key = np.asarray(key, np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            key = mix(key + np.uint64(GOLDEN) + mix(np.asarray(part, np.uint64) + np.uint64(1)))
    return key


def permute(i: ArrayLike, n: ArrayLike, key: ArrayLike) -> NDArray[np.int64]:
    """Where i goes in the permutation of 0..n-1 that `key` names; 0 <= i < n <= 2^53. n and key broadcast to i."""
    i, n, key = np.broadcast_arrays(np.asarray(i, np.uint64), np.asarray(n, np.uint64), np.asarray(key, np.uint64))
    half = (np.frexp((n - (n > 0)).astype(np.float64))[1].astype(np.uint64) + np.uint64(1)) // np.uint64(2)
    out = _feistel(i, half, key)
    while (outside := out >= n).any():
        out[outside] = _feistel(out[outside], half[outside], key[outside])
    return out.astype(np.int64)


def _feistel(x: NDArray, half: NDArray, key: NDArray) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & mask
    for r in range(ROUNDS):
        left, right = right, left ^ (derived(key, r, right) & mask)
    return (left << half) | right
