"""A term over parts of samples (points, crops) as if each were a sample."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from distpre.types import Batch, Embedding, Padded, Step, Term, TermResult


class OfParts:
    """`term`, given the parts of a batch as its samples: embeddings (b, k, d) as (b·k, d), part i of one view with part
    i of another; what is known of a sample is known of its parts, and views (b, k, ...) are theirs.

    of: the views of parts. facts: {label: VIEW}: parts whose number there is below 0 are absent, and the term may name
    the id `label`. With {name: contrast} it is the contrast of points with pixels (PPKT, Liu et al. 2021).
    """

    def __init__(self, of: list[str], term: Term, facts: dict[str, str] | None = None):
        self.of, self.term, self.label, self.local = of, term, (facts or {}).get("label"), term.local
        self.memories = getattr(term, "memories", {})

    def __call__(self, step: Step) -> TermResult:
        k = step.embedding(self.of[0]).vector.shape[1]
        said = self.term(
            replace(
                step,
                batch=self._batch(step.batch, k),
                student=self._parts(step.student),
                teachers={name: self._parts(its) for name, its in step.teachers.items()},
            )
        )
        return TermResult(said.loss, log=said.log)

    def _parts(self, embeddings: dict[str, Embedding]) -> dict[str, Embedding]:
        return {v: Embedding(e.vector.flatten(0, 1)) for v, e in embeddings.items() if v in self.of}

    def _batch(self, batch: Batch, k: int) -> Batch:
        def each(x: Tensor) -> Tensor:
            return x.repeat_interleave(k, 0)

        views = {v: x for v, x in batch.views.items() if not isinstance(x, Padded) and x.shape[1:2] == (k,)}
        views = {v: x.flatten(0, 1) for v, x in views.items()}
        ids, weight = {name: each(x) for name, x in batch.ids.items()}, each(batch.weight)
        if self.label is not None:
            ids["label"] = views[self.label].long()
            weight = weight * (each(batch.present_in(self.label)) & (ids["label"] >= 0))
        ordinal = each(batch.ordinal) * k + torch.arange(k, device=batch.ordinal.device).repeat(len(batch))
        present, state = ({name: each(x) for name, x in its.items()} for its in (batch.present, batch.state))
        return Batch(views, ids, ordinal, weight, present, state)
