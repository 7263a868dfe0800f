"""Proof that an epoch consumed every sample once: 128-bit sums that do not depend on the order of what they add.

Each sample's hash is h(key, row in its shard); the shard's number s in the source enters as an odd factor m(s), so that
shards with equal keys differ. An epoch's consumed sum, Σ m(s)·h mod 2^128, must equal Σ_s m(s)·H(s), where H(s) is the
shard's total and stands in its index. Linear, so that neither side ever holds more than the numbers of one batch; and
since the order is arithmetic, every rank adds up the whole global batch by itself: no rank needs to ask another. Wrong,
missing or doubled samples pass with probability 2^-128.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from distpre.errors import DataError

MODULUS = 1 << 128


def hash_of(key: bytes, row: int) -> tuple[int, int]:
    """128 bits of one sample, as two words: high, low."""
    digest = hashlib.blake2b(key, digest_size=16, salt=row.to_bytes(8, "little")).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def factor(shard: int) -> int:
    """m(s): odd, hence invertible modulo 2^128."""
    return int.from_bytes(hashlib.blake2b(shard.to_bytes(8, "little"), digest_size=16).digest(), "little") | 1


def total(hashes: NDArray[np.uint64]) -> int:
    """Sum of (m, 2) words, exact for m < 2^31."""
    halves = hashes.reshape(-1, 2).astype("<u8").view("<u4").reshape(-1, 4).astype(np.uint64).sum(0)
    high_low, high_high, low_low, low_high = (int(x) for x in halves)
    return ((high_high << 96) + (high_low << 64) + (low_high << 32) + low_low) % MODULUS


class Proof:
    """Running sums of the epochs that are under way. expected: the sum of a whole epoch; size: its samples."""

    def __init__(self, expected: int, size: int):
        self.expected, self.size = expected, size
        self.open: dict[int, tuple[int, int]] = {}  # {epoch: (samples, sum)}

    def add(self, epoch: int, samples: int, amount: int) -> None:
        """Raises DataError at an epoch's end if it did not consume every sample once."""
        count, sum_ = self.open.get(epoch, (0, 0))
        count, sum_ = count + samples, (sum_ + amount) % MODULUS
        self.open[epoch] = (count, sum_)
        for under_way in sorted(self.open):
            if self.open[under_way][0] >= self.size or under_way < max(self.open):
                self._close(under_way)

    def _close(self, epoch: int) -> None:
        count, sum_ = self.open.pop(epoch)
        if count != self.size or sum_ != self.expected:
            raise DataError(
                f"data: the proof of epoch {epoch} is broken: {count} samples consumed of {self.size}; the sum of "
                f"their keys is {sum_:032x} and must be {self.expected:032x}, a difference of "
                f"{(sum_ - self.expected) % MODULUS:032x}: some were missed or repeated.",
                "Go back to a commit of an earlier epoch, and keep its data state as it is.",
            )

    def state_dict(self) -> dict[str, list]:
        return {str(epoch): [count, f"{sum_:032x}"] for epoch, (count, sum_) in self.open.items()}

    def load_state_dict(self, state: dict[str, list]) -> None:
        self.open = {int(epoch): (count, int(sum_, 16)) for epoch, (count, sum_) in state.items()}
