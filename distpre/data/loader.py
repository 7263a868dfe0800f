"""Batches of the global order for one rank. The whole state is a position; workers remember nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distpre.data.order import Order
from distpre.data.source import Source
from distpre.errors import CheckpointError, DataError
from distpre.types import Batch, Padded, Sample

SUBSTITUTES = 100  # how far to look for a readable sample before giving up


class View(Protocol):
    field: str

    def at(self, value: Any, *, seed: int, epoch: int, ordinal: int) -> Any: ...
    def evaluation(self, value: Any) -> Any: ...


class Loader:
    """This rank's part of every global batch.

    batch: global; slot q of step t is position t·batch + q, and rank r of N takes slots [r·batch/N, (r+1)·batch/N).
    So neither N nor `workers` (decoding processes) changes what step t is made of. A sample that cannot be read keeps
    its place with weight 0 and a readable one's content; above `max_bad_fraction` of those seen, the run stops.
    """

    def __init__(
        self,
        source: Source,
        views: dict[str, View],
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        window: int = 262144,
        max_bad_fraction: float = 0.01,
        quarantine: Callable[[dict[str, Any]], None] = lambda line: None,
    ):
        self.source, self.batch, self.seed, self.workers = source, batch, seed, workers
        self.order = Order(source.sizes, seed, window)
        self.steps = _Steps(source, views, self.order, batch, rank, world_size)
        self.max_bad_fraction, self.quarantine = max_bad_fraction, quarantine
        self.position = self.seen = 0
        self.bad: list[dict[str, Any]] = []
        self._stream: Iterator | None = None

    @property
    def epoch(self) -> float:
        return self.position / len(self.source)

    def batches(self) -> Iterator[Batch]:
        """From the cursor on, for ever; the tail of an epoch goes on into the next."""
        self.close()
        first = self.position // self.batch
        self._stream = iter(self._workers(self.steps, range(first, 2**62)))
        for batch, bad in self._stream:
            self._judge(len(batch), bad)
            yield batch

    def consumed(self, batch: Batch) -> None:
        """The step counts: the cursor moves on by one global batch."""
        self.position += self.batch

    def once(self) -> Iterator[Batch]:
        """Every sample once over all ranks, in the manifest's order, through the evaluation ops; the last batch may be
        short, or empty on some ranks: all ranks get equally many."""
        passes = -(-len(self.source) // self.batch)
        for batch, bad in self._workers(_Once(self.steps), range(passes)):
            self._judge(len(batch), bad)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "seed": self.seed, "window": self.order.window, "data": self.source.digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises CheckpointError if the data or their order are not those that the position was counted in."""
        mine = self.state_dict()
        for name in ("data", "seed", "window"):
            if state[name] != mine[name]:
                raise CheckpointError(
                    f"the run's data order has changed: {name} was {state[name]}, now {mine[name]}.",
                    "Restore it, or start a new run.dir.",
                )
        if state["position"] % self.batch:
            raise CheckpointError(
                f"the run stands at sample {state['position']}, which is no multiple of train.batch={self.batch}.",
                "Resume with the batch it was trained with.",
            )
        self.position = state["position"]

    def close(self) -> None:
        """Ends the workers of batches()."""
        stop = getattr(self._stream, "_shutdown_workers", None)
        if stop is not None:
            stop()
        self._stream = None

    def _workers(self, steps: Dataset, which: Sequence[int]) -> DataLoader:
        many = min(self.workers, len(which))
        return DataLoader(
            steps,
            batch_size=None,
            sampler=which,
            num_workers=many,
            prefetch_factor=2 if many else None,
            worker_init_fn=_one_thread,
        )

    def _judge(self, seen: int, bad: list[dict[str, Any]]) -> None:
        self.seen += seen
        for line in bad:
            self.quarantine(line)
        self.bad += bad
        if len(self.bad) > max(10, self.max_bad_fraction * self.seen):
            listed = "\n".join(f"  {line['shard']} {line['key']}: {line['reason']}" for line in self.bad[:20])
            raise DataError(
                f"{len(self.bad)} of {self.seen} samples could not be read, more than "
                f"data.max_bad_fraction={self.max_bad_fraction}:\n{listed}\n",
                "Mend the shards, or raise the limit.",
            )


class _Steps(Dataset):
    """Step -> (this rank's Batch, what could not be read): a pure function."""

    def __init__(self, source: Source, views: dict[str, View], order: Order, batch: int, rank: int, world_size: int):
        self.source, self.views, self.order, self.batch = source, views, order, batch
        self.rank, self.world_size = rank, world_size

    def __getitem__(self, step: int) -> tuple[Batch, list[dict[str, Any]]]:
        epochs, ordinals = self.order.at(step * self.batch + self._mine(self.batch))
        return self.made(ordinals.tolist(), epochs.tolist(), training=True)

    def _mine(self, n: int) -> np.ndarray:
        return np.arange(n * self.rank // self.world_size, n * (self.rank + 1) // self.world_size)

    def made(self, ordinals: list[int], epochs: list[int], training: bool) -> tuple[Batch, list[dict[str, Any]]]:
        rows, samples, bad = [], [], []
        for ordinal, epoch in zip(ordinals, epochs, strict=True):
            sample, views = self._readable(ordinal, epoch, training, bad)
            samples.append(sample)
            rows.append(views)
        if not rows:  # the shapes of a row, without one
            batch, bad = self.made([0], [0], training=False)
            return batch.split(len(batch) + 1)[0], []
        made = Batch(
            {name: collate([row[name] for row in rows]) for name in self.views},
            {name: torch.tensor([s.ids[name] for s in samples], dtype=torch.int64) for name in self.source.ids},
            torch.tensor(ordinals, dtype=torch.int64),
            torch.tensor([s.weight for s in samples], dtype=torch.float32),
        )
        return made, bad

    def _readable(self, ordinal: int, epoch: int, training: bool, bad: list) -> tuple[Sample, dict[str, Any]]:
        """The sample, or the next one that can be read, with weight 0."""
        for ahead in range(SUBSTITUTES):
            at = (ordinal + ahead) % len(self.source)
            try:
                sample = self.source.read(at)
                views = {name: self._view(view, sample, epoch, training) for name, view in self.views.items()}
            except Exception as e:  # whatever a decoder or an op may raise for damaged input
                shard, key, offset = self.source.where(at)
                reason = f"{type(e).__name__}: {e}"
                bad.append({"shard": str(shard), "offset": offset, "key": key, "ordinal": at, "reason": reason})
                continue
            if ahead:
                sample = Sample(sample.key, ordinal, sample.fields, sample.ids, weight=0.0)
            return sample, views
        raise DataError(
            f"{SUBSTITUTES} samples in a row from {bad[-SUBSTITUTES]['shard']} on cannot be read: {bad[-1]['reason']}.",
            "Check the recipe's fields and views against the shards.",
        )

    def _view(self, view: View, sample: Sample, epoch: int, training: bool) -> Any:
        value = sample.fields[view.field]
        if not training:
            return view.evaluation(value)
        return view.at(value, seed=self.order.seed, epoch=epoch, ordinal=sample.ordinal)


class _Once(Dataset):
    """The same, over the manifest's own order, once."""

    def __init__(self, steps: _Steps):
        self.steps = steps

    def __getitem__(self, index: int) -> tuple[Batch, list[dict[str, Any]]]:
        start = index * self.steps.batch
        n = min(self.steps.batch, len(self.steps.source) - start)
        ordinals = (start + self.steps._mine(n)).tolist()
        return self.steps.made(ordinals, [0] * len(ordinals), training=False)


def collate(values: list[Any]) -> Tensor | Padded:
    """Arrays or tensors of one shape -> (b, ...); of unequal first dimension -> Padded with zeros."""
    tensors = [torch.as_tensor(value) for value in values]
    if all(t.shape == tensors[0].shape for t in tensors):
        return torch.stack(tensors)
    longest = max(len(t) for t in tensors)
    out = tensors[0].new_zeros((len(tensors), longest, *tensors[0].shape[1:]))
    for row, t in zip(out, tensors, strict=True):
        row[: len(t)] = t
    lengths = torch.tensor([len(t) for t in tensors])
    return Padded(out, torch.arange(longest)[None] < lengths[:, None])


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
