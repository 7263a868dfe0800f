"""One update: embed the batch, contrast it globally, back-propagate, step.

With accumulation the two passes of GradCache (Gao et al. 2021, arXiv 2101.06983): every micro-batch is embedded without
gradient, the objective sees the whole effective batch once, and each micro-batch is embedded again, with its rng
replayed, to receive its rows of the gradient. The logit scale's gradient enters once, with the first micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from distpre import group
from distpre.errors import NumericError
from distpre.objectives.objective import Objective, StepResult
from distpre.runtime.engine import Engine, seed_step
from distpre.types import Batch, Embedding, Step

NOT_FINITE = "Lower the learning rate or the logit scale's max, or look at those samples."


def update(engine: Engine, objective: Objective, batch: Batch, *, index: int, seed: int) -> StepResult:
    """One optimiser step on this rank's part of the global batch, in engine.accumulation micro-batches.

    Where any rank's loss is not finite no rank steps, and the result says `skipped`. Raises NumericError for a local
    term that is not finite: it is seen only when micro-batches before it have been back-propagated.
    """
    batch = batch.to(engine.device)
    if engine.accumulation == 1:
        seed_step(seed, index, 0)
        result = objective(embed(engine, batch, index))
        result.skipped = group.anywhere(bool(result.broken))
        if result.skipped:
            return result
        engine.backward(result.loss)
        engine.step(index)
        return result
    return _accumulated(engine, objective, batch, index, seed)


def embed(engine: Engine, batch: Batch, index: int, *, taught: bool = True) -> Step:
    """The batch through every tower and, where `taught`, every teacher: what the terms look at."""
    names = {name: view for name, view in engine.model.taught.items() if taught and view in batch.views}
    embedded, scales = engine(batch.views | {name: batch.views[view] for name, view in names.items()})
    student: dict[str, Embedding] = {}
    teachers: dict[str, dict[str, Embedding]] = {}
    for name, (vector, taps) in embedded.items():
        teacher, _, view = name.rpartition(".")
        (teachers.setdefault(teacher, {}) if teacher else student)[view] = Embedding(vector, taps)
    for name, teacher in engine.model.teachers.items():
        for view, holder in teacher.teaching.facts.items():
            teachers.setdefault(name, {})[view] = Embedding(batch.views[holder])
    return Step(
        batch,
        student,
        {name: values[0] for name, values in scales.items()},
        {name: values[1] for name, values in scales.items() if len(values) > 1},
        index - engine.first,
        engine.steps,
        teachers,
    )


def _accumulated(engine: Engine, objective: Objective, batch: Batch, index: int, seed: int) -> StepResult:
    parts = batch.split(engine.accumulation)
    steps = []
    with torch.no_grad():
        for i, part in enumerate(parts):
            seed_step(seed, index, i)
            steps.append(embed(engine, part, index))
    whole = _joined(batch, steps, objective.taps)
    result = objective(whole, local=False)
    result.skipped = group.anywhere(bool(result.broken))
    if result.skipped:
        return result
    leaves = _leaves(whole, objective.taps)
    gradients = [None] * len(leaves)
    if result.loss.requires_grad:  # there may be local terms alone
        gradients = torch.autograd.grad(result.loss, list(leaves.values()), allow_unused=True)
    gradients = dict(zip(leaves, gradients, strict=True))
    local, start, said_of_parts = objective.has(local=True), 0, []
    for i, part in enumerate(parts):
        seed_step(seed, index, i)
        step = embed(engine, part, index, taught=local)
        rows = slice(start, start + len(part))
        loss = _injected(_leaves(step, objective.taps), gradients, rows, first=i == 0)
        if local:
            said = objective(step, local=True)
            if said.broken:
                what = f"The loss of step {index + 1} is not finite: rank {group.rank()}: {said.broken}."
                raise NumericError(what, NOT_FINITE)
            loss = loss + said.loss * (len(part) / max(1, len(batch)))
            said_of_parts.append((len(part) / max(1, len(batch)), said))
        engine.backward(loss)
        engine.step(index)
        start += len(part)
    _add_local(result, said_of_parts)
    return result


def _add_local(result: StepResult, parts: list[tuple[float, StepResult]]) -> None:
    """What local terms said of each micro-batch, by its share of the samples."""
    for share, said in parts:
        result.loss = result.loss.detach() + share * said.loss.detach()
    for name in parts[0][1].log if parts else ():
        result.log[name] = sum(share * said.log[name] for share, said in parts)
    for name in parts[0][1].per_sample if parts else ():
        result.per_sample[name] = torch.cat([said.per_sample[name] for _, said in parts])


def _joined(batch: Batch, steps: list[Step], taps: set[str]) -> Step:
    """The effective batch's embeddings, the student's and its `taps` as leaves of a graph of their own."""

    def whole(parts: Iterable[Tensor]) -> Tensor:
        return torch.cat(list(parts)).requires_grad_()

    student = {
        view: Embedding(
            whole(s.student[view].vector for s in steps),
            {tap: whole(s.student[view].taps[tap] for s in steps) for tap in taps & first.taps.keys()},
        )
        for view, first in steps[0].student.items()
    }
    teachers = {
        name: {view: Embedding(torch.cat([s.teachers[name][view].vector for s in steps])) for view in views}
        for name, views in steps[0].teachers.items()
    }
    scales = {name: value.detach().requires_grad_() for name, value in steps[0].scales.items()}
    biases = {name: value.detach().requires_grad_() for name, value in steps[0].biases.items()}
    return Step(batch, student, scales, biases, steps[0].index, steps[0].of, teachers)


def _leaves(step: Step, taps: set[str]) -> dict[tuple[str, str], Tensor]:
    """Everything a term's gradient reaches: (kind, name) -> tensor."""
    vectors = {("view", name): e.vector for name, e in step.student.items()}
    of_views = {(name, tap) for name, e in step.student.items() for tap in taps & e.taps.keys()}
    vectors |= {("view", f"{name}.{tap}"): step.student[name].taps[tap] for name, tap in sorted(of_views)}
    scales = {("scale", name): value for name, value in step.scales.items()}
    return vectors | scales | {("bias", name): value for name, value in step.biases.items()}


def _injected(leaves: dict, gradients: dict, rows: slice, *, first: bool) -> Tensor:
    """A scalar whose gradient at each leaf is the stored one: <leaf, gradient>."""
    loss = sum(value.sum() * 0.0 for value in leaves.values())
    for (kind, name), value in leaves.items():
        gradient = gradients[kind, name]
        if gradient is not None and kind == "view":
            loss = loss + (value * gradient[rows]).sum()
        elif gradient is not None and first:
            loss = loss + (value * gradient).sum()
    return loss
