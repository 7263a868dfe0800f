"""Evaluation inside a run: frozen towers, a recipe's tables, sharded over the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor, nn

from distpre.data.loader import Loader, collate
from distpre.recipe import Recipe
from distpre.recipe.resolve import build as build_component
from distpre.runtime import build, group
from distpre.types import Batch, Evaluator, Row
from distpre.views.pipeline import View


class FrozenTowers:
    """A model (or DeepSpeed's wrapping of it) in evaluation mode, without gradient (types.Embedder)."""

    def __init__(self, model: nn.Module, views: dict[str, View], chunk: int):
        self.model, self.views, self.chunk = model, views, chunk
        self.device = group.device()

    def batch(self, batch: Batch, *views: str) -> dict[str, Tensor]:
        return {view: vector for view, (vector, _) in self._embedded(batch, views).items()}

    def pooled(self, batch: Batch, *views: str) -> dict[str, Tensor]:
        return {view: taps["pooled"].float() for view, (_, taps) in self._embedded(batch, views).items()}

    @torch.no_grad()
    def _embedded(self, batch: Batch, views: tuple[str, ...]) -> dict[str, tuple[Tensor, dict[str, Tensor]]]:
        there = batch.to(self.device).views
        return self.model({view: there[view] for view in views})[0]

    @torch.no_grad()
    def values(self, view: str, values: list[Any]) -> Tensor:
        made = [self.views[view].evaluation(value) for value in values]
        parts = [collate(made[i : i + self.chunk]) for i in range(0, len(made), self.chunk)]
        return torch.cat([self.model({view: part.to(self.device)})[0][view][0] for part in parts])


class Evaluation:
    """The tables of a recipe's `evaluate`, over its data set, sharded over the ranks."""

    def __init__(self, tables: dict[str, Evaluator], loader: Loader, towers: FrozenTowers, alive: Callable[[], object]):
        self.tables, self.loader, self.towers, self.alive = tables, loader, towers, alive

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        model: nn.Module,
        views: dict[str, View],
        note: Callable[[str], None],
        alive: Callable[[], object] = lambda: None,
    ) -> Evaluation:
        """alive() is called with every batch: whoever watches the run sees that it goes on."""
        spec = recipe.evaluate
        source = build.source(recipe, spec.data, note)
        loader = build.loader(recipe, source, views, batch=spec.batch, note=note)
        tables = {name: build_component(c, "evaluator") for name, c in spec.tables.items()}
        return cls(tables, loader, FrozenTowers(model, views, chunk=spec.batch), alive)

    def run(self) -> dict[str, list[Row]]:
        self.towers.model.eval()
        try:
            return {name: list(table.run(self.towers, self._once)) for name, table in self.tables.items()}
        finally:
            self.towers.model.train()

    def _once(self) -> Iterator[Batch]:
        for batch in self.loader.once():
            self.alive()
            yield batch

    def close(self) -> None:
        self.loader.close()


def record(step: int, tables: dict[str, list[Row]]) -> dict[str, Any]:
    """The evaluation as one line of eval.jsonl."""
    return {"kind": "eval", "step": step, "tables": {name: [list(astuple(r)) for r in t] for name, t in tables.items()}}
