"""A view: one field of a sample through a list of ops. Its rng is arithmetic, so pixels repeat on any resume.

Views draw independently of one another. An op whose class says `shared = True` draws from an rng that all views of the
field have alike: so two views can take two different parts of one sample.
"""

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
        return self._through(self.ops, value, seed, epoch, ordinal)

    def draws(self, value: Any) -> bool:
        """Whether an op of training asks for a random number, given this value of the field."""
        try:
            _each(self.ops, value, _NoDraws(), _NoDraws())
        except _Drawn:
            return True
        return False

    def evaluation(self, value: Any) -> Any:
        return self._through(self.eval_ops, value, 0, 0, 0)

    def _through(self, ops: list[Op], value: Any, seed: int, epoch: int, ordinal: int) -> Any:
        """A generator costs as much as a small op: there is one only where there is an op that may ask it."""
        shares = [getattr(op, "shared", False) for op in ops]
        own = view_rng(seed, epoch, ordinal, self.name) if not all(shares) else None
        shared = view_rng(seed, epoch, ordinal, f"field {self.field}") if any(shares) else None
        return _each(ops, value, own, shared)


class _Drawn(Exception):
    """A random number was asked for."""


class _NoDraws:
    def __getattr__(self, name: str) -> Any:
        raise _Drawn


def view_rng(seed: int, epoch: int, ordinal: int, view: str) -> np.random.Generator:
    """Philox keyed by a hash of its arguments (Salmon et al. 2011: any key, no state to carry)."""
    key = hashlib.blake2b(f"{seed}/{epoch}/{ordinal}/{view}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def _each(ops: list[Op], value: Any, own: Any, shared: Any) -> Any:
    for op in ops:
        value = op(value, shared if getattr(op, "shared", False) else own)
        if value is None:
            break
    return value
