"""Class prototypes that follow clean samples, and the gate that says which those are (CAPro, NeurIPS 2023)."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from distpre.errors import DataError
from distpre.group import gathered
from distpre.objectives.contrast import shared
from distpre.schedule import Schedule
from distpre.types import Step, TermResult


class Means:
    """(classes, d) unit vectors, zeros before the first sample of a class; the same on every rank."""

    def __init__(self) -> None:
        self.vectors: Tensor | None = None

    def of(self, classes: int, like: Tensor) -> Tensor:
        held = like.new_zeros(classes, like.shape[1]) if self.vectors is None else self.vectors
        self.vectors = held.to(like.device, like.dtype)
        return self.vectors

    def follow(self, vectors: Tensor, labels: Tensor, momentum: float) -> None:
        """C_y <- normalise(momentum · C_y + (1 - momentum) · q), sample after sample of the global batch; every rank
        calls it with its part. A class's first sample becomes its prototype.
        """
        vectors, labels = gathered(vectors), gathered(labels)
        turn = (labels[:, None] == labels).tril(-1).sum(1)  # how many of its class come before it
        for i in range(int(turn.max()) + 1 if len(turn) else 0):
            mine = turn == i
            moved = momentum * self.vectors[labels[mine]] + (1 - momentum) * vectors[mine]
            self.vectors = self.vectors.index_copy(0, labels[mine], F.normalize(moved, dim=1))

    def parts(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        return {} if self.vectors is None else {"vectors": self.vectors.cpu().clone()}, {}

    def load(self, files: list[Path]) -> None:
        self.vectors = load_file(files[0]).get("vectors")


class Prototypes:
    """Cross-entropy of softmax(q Cᵀ / τ) against the label that the gate gives, mean over the samples that it keeps.

    rows: the view of q. id: the given label y, 0 to classes - 1. From step `start` on a sample keeps y where softmax(q
    Cᵀ / τ)[y] >= 1/classes; else it is relabelled to the largest where that is >= relabel; else it is dropped. Kept and
    relabelled samples then move their prototypes (momentum). Before `start`, and where y has no prototype yet, y is
    kept. per_sample: (b,) the gate's label, `classes` of a dropped sample, for the weighting `decided`.

    The paper's soft label is half a learned classifier's; here it is the prototypes' alone.
    """

    local = False

    def __init__(
        self,
        rows: str,
        id: str,
        classes: int,
        temperature: Schedule,
        momentum: float = 0.999,
        relabel: float = 0.6,
        start: int = 0,
    ):
        self.rows, self.id, self.classes, self.temperature = rows, id, classes, temperature
        self.momentum, self.relabel, self.start = momentum, relabel, start
        self.means = Means()
        self.memories, self.collects = {"prototypes": self.means}, {rows: 1}

    def __call__(self, step: Step) -> TermResult:
        q, given = step.embedding(self.rows).vector, step.batch.ids[self.id]
        there = step.batch.present_in(self.rows)
        outside = there & ((given < 0) | (given >= self.classes))
        if outside.any():
            what = f"prototypes: a sample's {self.id} is {given[outside][0].item()}, no number from 0 to"
            raise DataError(f"{what} {self.classes - 1}.", "Raise `classes`, or number the labels from 0.")
        given = given.clamp(0, self.classes - 1)
        c = self.means.of(self.classes, q.detach())
        empty = ~c.any(1)
        logits = (q @ c.T / self.temperature.at(step.index, step.of)).masked_fill(empty, -torch.inf)
        known = there & ~empty[given]
        soft = torch.where(known[:, None], logits.detach(), 0.0).softmax(1)
        label = self._gated(soft, given) if step.index >= self.start else given
        label = torch.where(known, label, given)
        kept = there & (label < self.classes)
        weight = step.batch.weight * (known & kept)
        target = torch.where(kept, label, given)  # of a dropped sample, which counts nothing, any that has a prototype
        each = F.cross_entropy(torch.where(known[:, None], logits, 0.0), target, reduction="none")
        fine = kept & q.detach().isfinite().all(1)
        self.means.follow(q.detach()[fine], label[fine], self.momentum)
        share = shared(step.batch.weight * there)
        figures = {"kept": label == given, "relabelled": (label != given) & kept, "dropped": ~kept}
        log = {name: (share * what).sum() for name, what in figures.items()}
        return TermResult((shared(weight) * each).sum(), label.to(q.dtype), log)

    def _gated(self, soft: Tensor, given: Tensor) -> Tensor:
        """(b, classes) probabilities, (b,) labels -> (b,) labels, `classes` for none."""
        most, other = soft.max(1)
        instead = torch.where(most >= self.relabel, other, self.classes)
        return torch.where(soft.gather(1, given[:, None]).squeeze(1) >= 1 / self.classes, given, instead)
