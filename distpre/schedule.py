"""A number that depends on the step. Everything in a recipe that changes with the step is one of these."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    def at(self, step: int, of: int) -> float:
        """The value used in step `step` (from 0) of a run of `of` steps."""


@dataclass(frozen=True)
class Constant:
    value: float

    def at(self, step: int, of: int) -> float:
        return self.value


@dataclass(frozen=True)
class Linear:
    """From `start` to `end` over the steps after `warm_up`, which climb from 0 to `start`."""

    start: float
    end: float
    warm_up: int = 0

    def at(self, step: int, of: int) -> float:
        if step < self.warm_up:
            return self.start * (step + 1) / self.warm_up
        return self.start + (self.end - self.start) * _progress(step, of, self.warm_up)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `start` to `end` over the steps after `warm_up`, which climb linearly from 0 to `start`."""

    start: float
    end: float = 0.0
    warm_up: int = 0

    def at(self, step: int, of: int) -> float:
        if step < self.warm_up:
            return self.start * (step + 1) / self.warm_up
        return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * _progress(step, of, self.warm_up)))


@dataclass(frozen=True)
class Steps:
    """Piecewise constant: `values[i]` from step `at_steps[i]` on; at_steps begins with 0."""

    at_steps: tuple[int, ...]
    values: tuple[float, ...]

    def at(self, step: int, of: int) -> float:
        return self.values[sum(s <= step for s in self.at_steps) - 1]


SCHEDULES = {"cosine": Cosine, "linear": Linear, "steps": Steps}  # by the name that a recipe gives


def drawn(seed: int, step: int) -> float:
    """Evenly from [0, 1), by arithmetic: for what happens in some steps, alike on every rank and after a resume."""
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _progress(step: int, of: int, warm_up: int) -> float:
    return min(1.0, (step - warm_up) / max(1, of - warm_up))
