"""The objective: the weighted sum of its terms at a step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from distpre.schedule import Schedule
from distpre.types import Memory, Step, Term


@dataclass
class StepResult:
    """loss: (), its mean over ranks is the global batch's; log: {"term/figure": ()}, to be averaged over ranks.

    broken: {term: its loss on this rank, where that is not finite}; suspects: then the ordinals of this rank's samples
    whose embeddings are not finite. skipped: some rank's loss was not finite, so that no weight was changed on any.
    """

    loss: Tensor
    log: dict[str, Tensor] = field(default_factory=dict)
    per_sample: dict[str, Tensor] = field(default_factory=dict)
    broken: dict[str, float] = field(default_factory=dict)
    suspects: list[int] = field(default_factory=list)
    skipped: bool = False


@dataclass(frozen=True)
class Objective:
    """terms: {name: (term, weight schedule)}. Terms whose `local` differs from the call's are left out of it."""

    terms: dict[str, tuple[Term, Schedule]]

    def __call__(self, step: Step, *, local: bool | None = None) -> StepResult:
        """local None: every term; False: those over the effective batch; True: those of a micro-batch."""
        result = StepResult(step.batch.weight.new_zeros(()))
        for name, (term, schedule) in self.terms.items():
            if local is not None and term.local != local:
                continue
            said, weight = term(step), schedule.at(step.index, step.of)
            if not torch.isfinite(said.loss):
                result.broken[name] = said.loss.item()
            result.loss = result.loss + weight * said.loss
            result.log |= {f"{name}/loss": said.loss.detach(), f"{name}/weight": torch.tensor(weight)}
            result.log |= {f"{name}/{key}": torch.as_tensor(value).detach() for key, value in said.log.items()}
            if said.per_sample is not None:
                result.per_sample[name] = said.per_sample
        if result.broken:
            result.suspects = not_finite(step)
        return result

    def has(self, *, local: bool) -> bool:
        return any(term.local == local for term, _ in self.terms.values())

    @property
    def taps(self) -> set[str]:
        """Those that terms over the effective batch look at."""
        return {tap for term, _ in self.terms.values() if not term.local for tap in getattr(term, "taps", ())}

    @property
    def memories(self) -> dict[str, Memory]:
        """{"term.part": what it remembers}, of the terms that have `memories`."""
        named = ((name, getattr(term, "memories", {})) for name, (term, _) in self.terms.items())
        return {f"{name}.{part}": memory for name, its in named for part, memory in its.items()}


def not_finite(step: Step) -> list[int]:
    """Ordinals of this rank's samples of which some embedding is not finite."""
    bad = torch.zeros_like(step.batch.weight, dtype=torch.bool)
    for view, embedding in step.student.items():
        finite = embedding.vector.detach().flatten(1).isfinite().all(1)
        bad |= ~finite & step.batch.present_in(view)
    return step.batch.ordinal[bad].tolist()
