"""One batch from its position: read, decode, view, collate. It remembers nothing, so any process may make any batch."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from distpre.data.ahead import ReadAhead
from distpre.data.collate import collate
from distpre.data.mixture import Mixture, MixtureOrder
from distpre.data.order import Order
from distpre.data.pairing import Grouped
from distpre.data.permutation import derived, permute
from distpre.data.quarantine import Bad
from distpre.data.source import Raw, Source, Unreadable
from distpre.errors import DataError
from distpre.types import Batch, Padded

SUBSTITUTE = 3  # what a key is for (order.py has 1 and 2)
SUBSTITUTES = 8  # tried before giving up
FIRST = 80  # samples looked at for what a view is


class View(Protocol):
    """What the loader needs of a view (distpre/views/pipeline.py); it knows its own name."""

    field: str

    def at(self, value: Any, *, seed: int, epoch: int, ordinal: int) -> Any: ...
    def evaluation(self, value: Any) -> Any: ...


@dataclass(frozen=True)
class Task:
    """Training: the global batch that starts at slot `position`. Evaluation: samples from ordinal `position` on."""

    position: int
    evaluation: bool = False


@dataclass
class Made:
    """A rank's part of a batch, and how it came about. consumed: what the GLOBAL batch adds to the proofs."""

    batch: Batch
    consumed: list[tuple[int, int, int, int]] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # {stage: seconds}
    slowest: str = ""  # the shard of the slowest read
    worker: str = ""


class Assembler:
    """A rank's part of B slots is the consecutive slice [B·rank // world_size, B·(rank + 1) // world_size)."""

    def __init__(
        self,
        source: Source | Mixture,
        views: dict[str, View],
        order: Order | MixtureOrder | Grouped,
        batch: int,
        seed: int,
        rank: int,
        world_size: int,
        window: int,
    ):
        self.source, self.views, self.order = source, views, order
        self.batch, self.seed, self.rank, self.world_size = batch, seed, rank, world_size
        self.ahead = ReadAhead(source, order, window)
        self.fields = {view.field for view in views.values()}
        self.says: Callable[[str], None] = lambda text: None  # a worker's line about what it is doing
        self.seconds: Counter[str] = Counter()
        self.slowest = (0.0, "")
        self.first: dict[bool, dict[str, Any]] = {}  # {evaluation: {view: of the first sample that has it}}

    def __call__(self, task: Task) -> Made:
        self.seconds.clear()
        made = self.for_evaluation(task.position) if task.evaluation else self.for_training(task.position)
        made.slowest, made.worker = self.slowest[1], multiprocessing.current_process().name
        return made

    def for_training(self, position: int) -> Made:
        self.ahead.at(position)
        epochs, ordinals = self.order.at(np.arange(position, position + self.batch))
        made = self._part_made(ordinals, epochs, evaluation=False)
        made.consumed = self.source.amounts(epochs, ordinals)
        return made

    def for_evaluation(self, start: int) -> Made:
        """In manifest order, through the evaluation ops; the last batch may be short."""
        ordinals = np.arange(start, min(start + self.batch, len(self.source)))
        return self._part_made(ordinals, np.zeros_like(ordinals), evaluation=True)

    def _part_made(self, ordinals: NDArray[np.int64], epochs: NDArray[np.int64], evaluation: bool) -> Made:
        """This rank's part of these slots; with fewer slots than ranks it may have no row, but still has the shapes."""
        first, end = (len(ordinals) * r // self.world_size for r in (self.rank, self.rank + 1))
        if first < end:
            return self._made(ordinals[first:end], epochs[first:end], evaluation)
        one = self._made(ordinals[:1], epochs[:1], evaluation)
        return Made(one.batch.split(2)[0], seconds=one.seconds)

    def _made(self, ordinals: NDArray[np.int64], epochs: NDArray[np.int64], evaluation: bool) -> Made:
        bad: list[Bad] = []
        rows, weights = [], []
        raws = self._read_all(ordinals)
        for raw, ordinal, epoch in zip(raws, ordinals.tolist(), epochs.tolist(), strict=True):
            try:
                rows.append(self._viewed(raw, epoch, evaluation))
                weights.append(1.0)
            except Unreadable as e:
                bad.append(self._bad(epoch, ordinal, str(e)))
                rows.append(self._substitute(bad[-1], evaluation))
                weights.append(0.0)
        with self._stage("collate"):
            optional = [name for name, view in self.views.items() if view.field in self.source.optional]
            present = {name: torch.tensor([row[name] is not None for row in rows]) for name in optional}
            batch = Batch(
                views={name: collate(self._filled(name, rows, evaluation), name) for name in self.views},
                ids={name: torch.from_numpy(column) for name, column in self.source.id_columns(ordinals).items()},
                ordinal=torch.from_numpy(ordinals.copy()),
                weight=torch.tensor(weights, dtype=torch.float32),
                present=present,
            )
        return Made(batch, bad=bad, seconds=dict(self.seconds))

    def _filled(self, name: str, rows: list[dict[str, Any]], evaluation: bool) -> list[Any]:
        """The rows of a view; zeros stand where a sample has none."""
        values = [row[name] for row in rows]
        if any(value is None for value in values):
            if name not in self.first[evaluation]:
                what = f"none of the first {FIRST} samples has the field {self.views[name].field!r} of views.{name}."
                raise DataError(f"data: {what}", "Leave the view out, or name another field.")
            like = self.first[evaluation][name]
            values = [_zeros(like) if value is None else value for value in values]
        return values

    def _read_all(self, ordinals: NDArray[np.int64]) -> list[Raw | Unreadable]:
        """In the order in which they lie on the disk; returned in the order asked for."""
        self.slowest = (0.0, "")
        raws: list[Raw | Unreadable] = [Unreadable()] * len(ordinals)
        for i in np.argsort(ordinals):
            raws[i] = self._read(int(ordinals[i]))
        return raws

    def _read(self, ordinal: int) -> Raw | Unreadable:
        shard, before = self.source.where(ordinal)[0], self.seconds["read"]
        with self._stage("read", shard):
            try:
                raw: Raw | Unreadable = self.source.raw(ordinal, self.fields)
            except Unreadable as e:
                raw = e
        self.slowest = max(self.slowest, (self.seconds["read"] - before, shard))
        return raw

    def _viewed(self, raw: Raw | Unreadable, epoch: int, evaluation: bool) -> dict[str, Any]:
        """{view: array}. Raises Unreadable."""
        if isinstance(raw, Unreadable):
            raise raw
        with self._stage("decode", raw.key):
            fields = self.source.sample(raw).fields
        with self._stage("view", raw.key):
            row = {
                name: self._view(name, fields, epoch, raw.ordinal, evaluation) if view.field in fields else None
                for name, view in self.views.items()
            }
        self._check_kinds(row, evaluation)
        return row

    def _view(self, name: str, fields: dict[str, Any], epoch: int, ordinal: int, evaluation: bool) -> Any:
        view = self.views[name]
        try:
            if evaluation:
                value = view.evaluation(fields[view.field])
            else:
                value = view.at(fields[view.field], seed=self.seed, epoch=epoch, ordinal=ordinal)
        except MemoryError:
            raise
        except Exception as e:
            raise Unreadable(f"view {name}: {type(e).__name__}: {e}") from e
        if value is None and view.field not in self.source.optional:
            raise Unreadable(f"view {name}: an op leaves nothing of the field {view.field!r}, which is not optional")
        return value

    def _check_kinds(self, row: dict[str, Any], evaluation: bool) -> None:
        """A view is of one dtype and shape (1-D lengths apart), which the source's first readable sample decides."""
        if evaluation not in self.first:
            self.first[evaluation] = {}  # the first sample is judged against nothing
            self.first[evaluation] = self._first_of_each(evaluation)
        for name, first in self.first[evaluation].items():
            if row[name] is not None and _kind(row[name]) != _kind(first):
                said, asked = map(_told, (row[name], first))
                raise Unreadable(f"view {name} gives {said}, for the source's first sample it gives {asked}")

    def _first_of_each(self, evaluation: bool) -> dict[str, Any]:
        """{view: value}; a view that the first samples lack is not in it."""
        found: dict[str, Any] = {}
        for ordinal in range(min(len(self.source), FIRST)):
            try:
                row = self._viewed(self._read(ordinal), 0, evaluation)
            except Unreadable:
                continue
            found = {name: value for name, value in row.items() if value is not None} | found
            if len(found) == len(self.views):
                break
        return found

    def _substitute(self, bad: Bad, evaluation: bool) -> dict[str, Any]:
        """Another sample of the source, the same one in every run. Raises DataError where none can be read."""
        key = derived(self.seed, bad.epoch, SUBSTITUTE, bad.ordinal)
        tried = range(min(SUBSTITUTES, len(self.source)))
        for candidate in permute(list(tried), len(self.source), key).tolist():
            try:
                return self._viewed(self._read(candidate), bad.epoch, evaluation)
            except Unreadable as e:
                reason = str(e)
        raise DataError(
            f"data: sample {bad.key!r} of {bad.shard} could not be read ({bad.reason}), nor could {len(tried)} others "
            f"in its place; the last: {reason}.",
            "`python -m tools.index SHARDS` tells which tars are damaged; where none is, look at the views' ops.",
        )

    def _bad(self, epoch: int, ordinal: int, reason: str) -> Bad:
        return Bad(epoch, ordinal, *self.source.where(ordinal), reason)

    @contextmanager
    def _stage(self, name: str, of: str = "") -> Iterator[None]:
        self.says(f"{name} {of}")
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began


def _zeros(like: Any) -> Any:
    return Padded(like.values * 0, like.mask) if isinstance(like, Padded) else like * 0


def _kind(value: Any) -> tuple[Any, tuple[int, ...] | None]:
    """(dtype, or the class of what has none; shape, None for 1-D ones, whose length is free)."""
    value = value.values if isinstance(value, Padded) else value
    shape = tuple(getattr(value, "shape", ()))
    return getattr(value, "dtype", type(value)), None if len(shape) == 1 else shape


def _told(value: Any) -> str:
    dtype, shape = _kind(value)
    name = getattr(dtype, "__name__", str(dtype).removeprefix("torch."))
    return f"{name} {'(n,)' if shape is None else shape}"
