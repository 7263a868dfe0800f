"""Evaluation inside a run: frozen towers, a recipe's tables, sharded over the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor, nn

from distpre import group
from distpre.data.loader import Loader, collate
from distpre.data.subset import domain
from distpre.group import gathered
from distpre.recipe import Recipe
from distpre.recipe.resolve import build as build_component
from distpre.recipe.schema import Where
from distpre.runtime import build
from distpre.types import Batch, Evaluator, Padded, Row
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
        if not len(batch):  # some encoders cannot reshape nothing, yet under ZeRO-3 every rank must take part
            there = {name: _one_row(x) for name, x in there.items()}
        embedded, _ = self.model({view: there[view.rpartition(".")[2]] for view in views})
        n = len(batch)
        return {
            view: (vector[:n], {tap: x[:n] for tap, x in taps.items()}) for view, (vector, taps) in embedded.items()
        }

    @torch.no_grad()
    def values(self, view: str, values: list[Any]) -> Tensor:
        made = [self.views[view.rpartition(".")[2]].evaluation(value) for value in values]
        parts = [collate(made[i : i + self.chunk]) for i in range(0, len(made), self.chunk)]
        return torch.cat([self.model({view: part.to(self.device)})[0][view][0] for part in parts])


def _one_row(x: Tensor | Padded) -> Tensor | Padded:
    if isinstance(x, Padded):
        return Padded(_one_row(x.values), _one_row(x.mask).logical_not())
    return x.new_zeros((1, *x.shape[1:]))


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
        where: Where | None = None,
    ) -> Evaluation:
        """alive() is called with every batch: whoever watches the run sees that it goes on. where: a part of the data.

        Raises DataError where no sample is in that part.
        """
        spec = recipe.evaluate
        source = domain(build.source(recipe, spec.data, note), where or {})
        made = {name: views[name] for name in recipe.evaluated_views()}
        loader = build.loader(recipe, source, made, batch=spec.batch, note=note)
        tables = {name: build_component(c, "evaluator") for name, c in spec.tables.items()}
        return cls(tables, loader, FrozenTowers(model, views, chunk=spec.batch), alive)

    def run(self) -> dict[str, list[Row]]:
        self.towers.model.eval()
        try:
            return {name: list(table.run(self.towers, self._once)) for name, table in self.tables.items()}
        finally:
            self.towers.model.train()

    def embeddings(self, most: int) -> dict[str, Tensor]:
        """{view: (n, d)} of every view of the first `most` samples that could be read, on the CPU of every rank."""
        self.towers.model.eval()
        try:
            parts: dict[str, list[Tensor]] = {view: [] for view in self.towers.views}
            count = 0
            for batch in self._once():
                real = (batch.weight > 0).to(self.towers.device)
                for view, x in self.towers.batch(batch, *self.towers.views).items():
                    parts[view].append(gathered(x[real]).cpu())
                count += len(next(iter(parts.values()))[-1])
                if count >= most:
                    break
            return {view: torch.cat(x)[:most].contiguous() for view, x in parts.items()}
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
