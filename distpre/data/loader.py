"""Batches, exactly once, from any position, at any number of ranks and workers.

The whole state is a position in the order (order.py), with the digest of what it is a position in and the proof's open
sums: under 1 KB, equal on every rank. Only steps that the trainer reports as consumed count.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from distpre.data.assemble import Assembler, Made, Task, View
from distpre.data.collate import collate
from distpre.data.mixture import Mixture
from distpre.data.pairing import Pairing
from distpre.data.quarantine import Quarantine
from distpre.data.source import Source
from distpre.data.workers import Workers
from distpre.errors import CheckpointError, DataError
from distpre.types import Batch

LONG_WAIT, LONG_WAIT_EVERY = 1.0, 30.0  # seconds

__all__ = ["Loader", "Wait", "collate"]


@dataclass(frozen=True)
class Wait:
    """How long the trainer waited for its latest batch, and what its maker spent its time on.

    seconds: waited; stage: of read, decode, view, collate and transfer (from the worker) the longest; shard: of the
    slowest read.
    """

    seconds: float
    stage: str = ""
    stage_seconds: float = 0.0
    shard: str = ""
    worker: str = ""

    @classmethod
    def of(cls, seconds: float, made: Made) -> Wait:
        stage, longest = max(made.seconds.items(), key=lambda item: item[1])
        return cls(seconds, stage, longest, made.slowest, made.worker)

    def __str__(self) -> str:
        took = f"{self.stage} took {self.stage_seconds:.1f} s in {self.worker}"
        return f"waited {self.seconds:.1f} s for a batch: {took}; slowest read: {self.shard}"


class Loader:
    """A rank's loader. views: {name: View}; batch: the GLOBAL batch; pairing: an order by ids (pairing.py), or None.

    window: samples of the shuffle window; workers: processes of this rank, 0 for none; note(text): news for the log;
    quarantine(line): a bad sample's line for the ledger; max_bad_fraction: quarantine.py; stall_seconds: workers.py.
    Raises DataError for a view whose field the source does not have.
    """

    def __init__(
        self,
        source: Source | Mixture,
        views: dict[str, View],
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        window: int = 262144,
        pairing: Pairing | None = None,
        note: Callable[[str], None] = lambda text: None,
        quarantine: Callable[[dict[str, Any]], None] = lambda line: None,
        max_bad_fraction: float = 0.01,
        stall_seconds: float = 60.0,
    ):
        _check_views(views, source)
        self.source, self.batch, self.seed = source, batch, seed
        self.position = 0  # slots consumed
        self.proofs = source.proofs()
        self.quarantine = Quarantine(quarantine, max_bad_fraction)
        self.last_wait = Wait(0.0)
        self.order = pairing.order(source, seed, batch) if pairing else source.order(seed, window)
        assembler = Assembler(source, views, self.order, batch, seed, rank, world_size, window)
        self.workers = Workers(assembler, workers, stall_seconds, note)
        self.handed: deque[Made] = deque()  # given to the trainer, not yet consumed
        self.note, self.started, self.told = note, False, -LONG_WAIT_EVERY

    @property
    def epoch(self) -> float:
        """Passes over the data so far."""
        return self.position / len(self.source)

    def batches(self) -> Iterator[Batch]:
        """This rank's parts of the global batches from the position on, without end."""
        self.handed.clear()
        stream = self.workers.run(Task(p) for p in itertools.count(self.position, self.batch))
        while True:
            began = time.monotonic()
            made = next(stream)
            made.seconds["transfer"] = self.workers.transfer_seconds
            self._waited(Wait.of(time.monotonic() - began, made))
            self.handed.append(made)
            yield made.batch

    def _waited(self, wait: Wait) -> None:
        """Long waits are told, but not the start's and not each."""
        self.last_wait, now = wait, time.monotonic()
        if self.started and wait.seconds > LONG_WAIT and now - self.told > LONG_WAIT_EVERY:
            self.note(f"data: {wait}")
            self.told = now
        self.started = True

    def consumed(self, batch: Batch) -> None:
        """The batch was trained on: the position moves by one step.

        Raises DataError where batches are consumed out of turn, at the end of an epoch that did not consume each sample
        once, and above the bad fraction.
        """
        if not self.handed or self.handed[0].batch is not batch:
            raise DataError("data: a batch was consumed out of turn, or twice.", "Report each batch once, in order.")
        made = self.handed.popleft()
        for part, epoch, samples, amount in made.consumed:
            self.proofs[part].add(epoch, samples, amount)
        self.position += self.batch
        self.quarantine.saw(len(batch), made.bad)

    def once(self) -> Iterator[Batch]:
        """Evaluation: every sample once over all ranks, in manifest order, through the views' evaluation ops.

        Every rank yields ceil(samples / batch) batches; the last may be short, or without rows on some ranks.
        """
        for made in self.workers.run(Task(start, True) for start in range(0, len(self.source), self.batch)):
            self.quarantine.saw(len(made.batch), made.bad)
            yield made.batch

    def state_dict(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "seed": self.seed,
            "order": str(self.order),
            "digest": self.source.digest,
            "proof": [proof.state_dict() for proof in self.proofs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises CheckpointError where the position is one in another order: other data, seed or window."""
        now = self.state_dict()
        for name, key in (("digest", "the shards"), ("seed", "seed"), ("order", "data.window (or the pairing)")):
            if state[name] != now[name]:
                raise CheckpointError(
                    f"data: the commit was made with {name} {state[name]}, this run has {now[name]}; its position "
                    "means nothing here.",
                    f"Restore {key}, or train in a new run folder.",
                )
        self.position = state["position"]
        for proof, its in zip(self.proofs, state["proof"], strict=True):
            proof.load_state_dict(its)
        self.handed.clear()

    def close(self) -> None:
        """Ends the worker processes."""
        self.workers.close()


def _check_views(views: dict[str, View], source: Source | Mixture) -> None:
    for name, view in views.items():
        if view.field not in source.fields:
            raise DataError(
                f"views: {name} reads the field {view.field!r}, which the source does not have.",
                f"Its fields are {', '.join(source.fields)}: mend views.{name}.field or add it to the source's fields.",
            )
