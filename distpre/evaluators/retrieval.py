"""Retrieval between two views of a held-out set, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from distpre.runtime.group import gathered, total
from distpre.types import Batch, Embedder, Row

TILE = 4096  # candidates compared at once: memory is n·TILE, never n·n


class Retrieval:
    """R@k: the share of queries with a right candidate among the k nearest.

    rows, columns: views; id: candidates with the query's id are right (without it, only its own pair is).
    Candidates that tie with the best right one count as nearer: a constant embedding scores 0. Ranks share the
    queries; every rank holds all candidates, (n, d).
    """

    def __init__(self, rows: str, columns: str, id: str | None = None, k: list[int] = (1, 5, 10)):  # noqa: B006
        self.rows, self.columns, self.id, self.k = rows, columns, id, sorted(k)

    def run(self, embed: Embedder, data: Callable[[], Iterator[Batch]]) -> Iterator[Row]:
        sides: dict[str, list[Tensor]] = {self.rows: [], self.columns: [], "id": []}
        for batch in data():
            real = batch.present_in(self.rows) & batch.present_in(self.columns)
            vectors = embed.batch(batch, self.rows, self.columns)
            for view in (self.rows, self.columns):
                sides[view].append(vectors[view][real.to(vectors[view].device)])
            sides["id"].append((batch.ids[self.id] if self.id else batch.ordinal)[real])
        rows, columns = torch.cat(sides[self.rows]), torch.cat(sides[self.columns])
        ids = torch.cat(sides["id"]).to(rows.device)
        for name, queries, candidates in (
            (f"{self.rows}->{self.columns}", rows, columns),
            (f"{self.columns}->{self.rows}", columns, rows),
        ):
            ahead = wrong_ahead(queries, ids, gathered(candidates), gathered(ids), self.k[-1])
            n = int(total(torch.tensor(float(len(ahead)), device=rows.device)))
            for k in self.k:
                yield Row(f"{name} R@{k}", float(total((ahead < k).double().sum())) / max(n, 1), n)


def wrong_ahead(queries: Tensor, ids: Tensor, candidates: Tensor, candidate_ids: Tensor, most: int) -> Tensor:
    """(n,) how many wrong candidates are at least as near as the best right one, counted up to `most`.

    queries (n, d), candidates (m, d), ids (n,) and (m,). One pass over tiles of candidates keeps, for each query, its
    best right score and its `most` best wrong ones.
    """
    best_right = queries.new_full((len(queries), 1), -torch.inf)
    best_wrong = queries.new_full((len(queries), most), -torch.inf)
    for start in range(0, len(candidates), TILE):
        scores = queries @ candidates[start : start + TILE].T
        right = ids[:, None] == candidate_ids[None, start : start + TILE]
        best_right = torch.maximum(best_right, scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True))
        wrong = scores.masked_fill(right, -torch.inf)
        best_wrong = torch.cat([best_wrong, wrong.topk(min(most, wrong.shape[1]), dim=1).values], 1)
        best_wrong = best_wrong.topk(most, dim=1).values
    return ((best_wrong >= best_right) & best_wrong.isfinite()).sum(1)
