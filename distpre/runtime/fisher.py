"""Diagonal Fisher information of a stage's objective: what elastic weight consolidation holds weights by.

Samples that are contrasted with one another are not independent: the unit is the global batch, with its own pairs as
labels (the empirical Fisher information). F is the mean over batches of B (∂L/∂θ)², L the loss of a batch of B: a
sample's share, whatever B is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from distpre import group
from distpre.errors import NumericError
from distpre.objectives.objective import Objective
from distpre.runtime.engine import Engine
from distpre.runtime.update import NOT_FINITE, update
from distpre.types import Batch


def information(
    engine: Engine, objective: Objective, batches: Iterable[Batch], *, index: int, seed: int
) -> dict[str, Tensor]:
    """{weight of a tower: F}, whole, on the CPU; every rank calls it with its parts of the batches.

    Towers embed as in evaluation; penalties of teachers are no part of it. The engine can train no more afterwards: its
    moments are spoilt. Raises NumericError for a loss that is not finite.
    """
    squares = Squares(engine)
    engine.model.towers.eval()
    for batch in batches:
        squares.samples = group.total(torch.tensor(float(len(batch)), device=engine.device))
        if update(squares, objective, batch, index=index, seed=seed).skipped:
            raise NumericError("The loss of a batch that the Fisher information is of is not finite.", NOT_FINITE)
    engine.model.towers.train()
    nothing = slice(0, 0), torch.zeros(0, device=engine.device)
    names = [name for name in engine.trained if name.startswith("towers.")]
    return {name: (engine.whole(name, *squares.sums.get(name, nothing)) / squares.count).cpu() for name in names}


class Squares:
    """An engine, to update(), that adds up the squares of gradients where it would step."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.sums: dict[str, tuple[slice, Tensor]] = {}
        self.count, self.samples = 0, torch.zeros(())

    def __call__(self, views: dict[str, Any]) -> tuple[dict, dict]:
        return self.engine(views)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    @torch.no_grad()
    def step(self, index: int) -> None:
        if self.engine.updates:
            self.count += 1
            for name, at, gradient in self.engine.gradients():
                _, its = self.sums.setdefault(name, (at, torch.zeros_like(gradient)))
                its.addcmul_(gradient * self.samples, gradient)
        self.engine.pass_over()
