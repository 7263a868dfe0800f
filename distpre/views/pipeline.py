"""A view: one field of a sample through a list of ops. Its rng is arithmetic, so pixels repeat on any resume."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Op = Callable[[Any, np.random.Generator], Any]


@dataclass(frozen=True)
class View:
    """field: the sample's; ops: while training; eval_ops: while evaluating, where every draw is the same."""

    name: str
    field: str
    ops: list[Op]
    eval_ops: list[Op]

    def at(self, value: Any, *, seed: int, epoch: int, ordinal: int) -> Any:
        """The view of the sample `ordinal` in an epoch: the same on every rank and worker, and after a resume."""
        return _through(self.ops, value, view_rng(seed, epoch, ordinal, self.name))

    def evaluation(self, value: Any) -> Any:
        return _through(self.eval_ops, value, view_rng(0, 0, 0, self.name))


def view_rng(seed: int, epoch: int, ordinal: int, view: str) -> np.random.Generator:
    """Philox keyed by a hash of its arguments (Salmon et al. 2011: any key, no state to carry)."""
    key = hashlib.blake2b(f"{seed}/{epoch}/{ordinal}/{view}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def _through(ops: list[Op], value: Any, rng: np.random.Generator) -> Any:
    for op in ops:
        value = op(value, rng)
    return value
