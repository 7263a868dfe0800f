"""Remote shards on their way before they are needed."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distpre.data.mixture import Mixture
from distpre.data.source import Source

THREADS = 4
LOOKS = 2048  # slots that are looked at, spread over what is ahead


class _Order(Protocol):
    def at(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...


class ReadAhead:
    """Fetches the shards of the next `far` slots into the node's cache, nearest first; idle for local sources."""

    def __init__(self, source: Source | Mixture, order: _Order, far: int):
        self.source, self.order, self.far = source, order, far
        self.looked = -far
        self.under_way: list[Future[None]] = []
        self.pool: ThreadPoolExecutor | None = None

    def at(self, position: int) -> None:
        """The reader stands at this slot. Looks again each eighth of the way."""
        moved = abs(position - self.looked) >= max(1, self.far // 8)
        if not self.source.remote or not moved or not all(fetch.done() for fetch in self.under_way):
            return
        self.looked = position
        slots = position + np.unique(np.linspace(0, self.far, LOOKS, dtype=np.int64))
        self.pool = self.pool or ThreadPoolExecutor(THREADS, "read-ahead")
        self.under_way = [self.pool.submit(fetch) for fetch in self.source.fetches(self.order.at(slots)[1])]

    def __reduce__(self) -> tuple:
        return ReadAhead, (self.source, self.order, self.far)
