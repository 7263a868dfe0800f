"""The nouns that pass between rooms (ARCHITECTURE.md, "The way of a sample").

Shapes: b is this rank's share of the global batch, d the embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Padded:
    """Rows of varying length (tokens, bags, point sets), or with parts hidden (tubelets).

    values: (b, n, ...), mask: (b, n) bool, True where a value is real, and seen. An op makes one row: (n, ...), (n,).
    """

    values: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device) -> Padded:
        return Padded(self.values.to(device), self.mask.to(device))


@dataclass(frozen=True)
class Sample:
    """One training example, decoded, before its views are made.

    ordinal is its place in the manifest; weight 0 marks a substitute for a sample that could not be read.
    """

    key: str
    ordinal: int
    fields: dict[str, Any]
    ids: dict[str, int] = field(default_factory=dict)
    weight: float = 1.0


@dataclass(frozen=True)
class Batch:
    """This rank's part of one global batch.

    views: {view: (b, ...)}; ids: {id: (b,) int64}; present: {view: (b,) bool}, a view that is not named is present
    everywhere; ordinal: (b,) int64, place in the data set; weight: (b,) float32, 0 for a substituted bad sample;
    state: {weighting: (b,) or (b, k)}, what is remembered of the samples.
    """

    views: dict[str, Tensor | Padded]
    ids: dict[str, Tensor]
    ordinal: Tensor
    weight: Tensor
    present: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ordinal)

    def to(self, device: torch.device) -> Batch:
        return self._map(lambda x: x.to(device, non_blocking=True))

    def split(self, parts: int) -> list[Batch]:
        """Consecutive micro-batches whose sizes differ by at most one."""
        bounds = [len(self) * i // parts for i in range(parts + 1)]
        return [self._map(lambda x, a=a, z=z: x[a:z]) for a, z in zip(bounds, bounds[1:], strict=False)]

    def present_in(self, view: str) -> Tensor:
        """(b,) bool: the sample has this view and was really read; "teacher.view" is the view."""
        real, view = self.weight > 0, view.rpartition(".")[2]
        return real & self.present[view] if view in self.present else real

    def _map(self, f: Callable[[Tensor], Tensor]) -> Batch:
        def each(x: Tensor | Padded) -> Tensor | Padded:
            return Padded(f(x.values), f(x.mask)) if isinstance(x, Padded) else f(x)

        return replace(
            self,
            views={k: each(v) for k, v in self.views.items()},
            ids={k: f(v) for k, v in self.ids.items()},
            present={k: f(v) for k, v in self.present.items()},
            state={k: f(v) for k, v in self.state.items()},
            ordinal=f(self.ordinal),
            weight=f(self.weight),
        )


@dataclass(frozen=True)
class Embedding:
    """What a tower says of a view: vector (b, d), unit norm, and named taps (tokens, layers, reconstructions).

    Of a view of k parts (crops of a volume) the vector is (b, k, d).
    """

    vector: Tensor
    taps: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """All that a term may look at: the batch, what student and teachers say of it, and where the run stands.

    teachers: {teacher: {view: Embedding}}, without gradient; index, of: the step in hand and the steps, of the stage.
    """

    batch: Batch
    student: dict[str, Embedding]
    scales: dict[str, Tensor]
    biases: dict[str, Tensor]
    index: int
    of: int
    teachers: dict[str, dict[str, Embedding]] = field(default_factory=dict)

    def embedding(self, name: str) -> Embedding:
        """The student's of a view ("image"), or a teacher's ("ema.image")."""
        teacher, _, view = name.rpartition(".")
        return self.teachers[teacher][view] if teacher else self.student[view]


@dataclass(frozen=True)
class TermResult:
    """What a term says.

    loss: (), its mean over ranks is the loss of the global batch; per_sample: (b,) or (b, k) detached, for sample
    states; log: figures of the global batch, equal on every rank, taken from the values used.
    """

    loss: Tensor
    per_sample: Tensor | None = None
    log: dict[str, Tensor | float] = field(default_factory=dict)


class Term(Protocol):
    """A part of the objective. It holds no parameters and never sees a rank.

    local is False for a term over the effective batch's embeddings (run once, its gradients injected into pass two of
    an accumulated step) and True for one that runs in each micro-batch (pixels, tokens). A term that contrasts over the
    global batch has `gathers`: the views whose vectors, one after the other, are its rows; one that has every rank hold
    all vectors of a view has `collects`: {view: rounds}, 1 for a gather and 2 for a sum of their gradients. --check
    counts the bytes of both. In an accumulated step a term that is not local finds of the student's taps those that it
    names in `taps`, where it has that.
    """

    local: bool

    def __call__(self, step: Step) -> TermResult: ...


class Memory(Protocol):
    """What a term remembers between steps; every commit holds it (ARCHITECTURE.md, rule 3)."""

    def parts(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """(tensors, metadata) of this rank, for a safetensors file; the tensors are copied at once."""

    def load(self, files: list[Path]) -> None:
        """The files of all ranks that wrote the commit, in rank order; there may be another number of ranks now."""


@dataclass(frozen=True)
class Row:
    """One line of an evaluation table: value over n items; low and high bound it where the evaluator says how."""

    name: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None


class Embedder(Protocol):
    """Frozen towers, as an evaluator sees them. Every rank calls it the same number of times, in the same order."""

    def batch(self, batch: Batch, *views: str) -> dict[str, Tensor]:
        """{view: (b, d)} unit vectors of this rank's rows; b may be 0."""

    def pooled(self, batch: Batch, *views: str) -> dict[str, Tensor]:
        """{view: (b, width)} what the towers' heads are given, as `batch` gives what they make of it."""

    def values(self, view: str, values: list[Any]) -> Tensor:
        """Field values (captions, images) through the view's evaluation ops and its tower: (n, d), on every rank."""


class Evaluator(Protocol):
    """Frozen towers and a data set -> rows of a table, equal on every rank.

    data() passes once over the set: this rank's Batches, as many on every rank.
    """

    def run(self, embed: Embedder, data: Callable[[], Iterator[Batch]]) -> Iterator[Row]: ...
