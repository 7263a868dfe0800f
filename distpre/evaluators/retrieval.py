"""Retrieval between two views of a held-out set, both ways, or within one view."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from distpre.evaluators.features import Features, features
from distpre.evaluators.intervals import bootstrap
from distpre.group import gathered
from distpre.types import Batch, Embedder, Row

TILE = 4096  # candidates compared at once: memory is n·TILE, never n·n


class Retrieval:
    """R@k: the share of queries with a right candidate among the k nearest by cosine.

    rows, columns: views; with the same view twice a sample is no candidate of its own. id: candidates with the query's
    id are right (without it, only its own pair is). apart: candidates with the query's value of this id are none, as in
    recognising a person in another recording. Queries without a right candidate are not asked. by: an id; its values
    are drawn for the bootstrap interval. features: as in features.py.
    Candidates that tie with the best right one count as nearer: a constant embedding scores 0. Ranks share the
    queries; every rank holds all candidates, (n, d).
    """

    def __init__(
        self,
        rows: str,
        columns: str,
        id: str | None = None,
        k: list[int] = (1, 5, 10),  # noqa: B006
        apart: str | None = None,
        by: str | None = None,
        features: Features = "head",
    ):
        self.rows, self.columns, self.id, self.k = rows, columns, id, sorted(k)
        self.apart, self.by, self.features = apart, by, features

    def run(self, embed: Embedder, data: Callable[[], Iterator[Batch]]) -> Iterator[Row]:
        sides: dict[str, list[Tensor]] = {}
        for batch in data():
            real = batch.present_in(self.rows) & batch.present_in(self.columns)
            for view in {self.rows, self.columns}:
                vectors = self._vectors(embed, batch, view)
                sides.setdefault(view, []).append(vectors[real.to(vectors.device)])
            for name in filter(None, {"own", self.id, self.apart, self.by}):
                values = batch.ordinal if name == "own" else batch.ids[name]
                sides.setdefault(f"id {name}", []).append(values[real])
        joined = {name: torch.cat(parts) for name, parts in sides.items()}
        device = joined[self.rows].device
        ids = {name[3:]: x.to(device) for name, x in joined.items() if name.startswith("id ")}
        both = [(self.rows, self.columns)]
        if self.rows != self.columns:
            both.append((self.columns, self.rows))
        for view, other in both:
            yield from self._direction(view, joined[view], other, joined[other], ids)

    def _direction(
        self, view: str, queries: Tensor, other: str, candidates: Tensor, ids: dict[str, Tensor]
    ) -> Iterator[Row]:
        apart = ids.get(self.apart or ("own" if view == other else ""))
        right = ids[self.id or "own"]
        ahead, asked = wrong_ahead(
            queries,
            right,
            gathered(candidates),
            gathered(right),
            self.k[-1],
            apart=None if apart is None else (apart, gathered(apart)),
        )
        ahead = gathered(ahead[asked]).cpu()
        groups = gathered(ids[self.by][asked]).cpu().numpy() if self.by else None
        for k in self.k:
            hit = (ahead < k).double().numpy()
            low, high = (None, None) if groups is None else bootstrap(lambda at, hit=hit: hit[at].mean(), groups)
            yield Row(f"{view}->{other} R@{k}", float(hit.sum()) / max(len(hit), 1), len(hit), low, high)

    def _vectors(self, embed: Embedder, batch: Batch, view: str) -> Tensor:
        return F.normalize(features(embed, batch, view, self.features), dim=-1)


def wrong_ahead(
    queries: Tensor,
    ids: Tensor,
    candidates: Tensor,
    candidate_ids: Tensor,
    most: int,
    apart: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """(n,) how many wrong candidates are at least as near as the best right one, up to `most`; (n,) has it a right one.

    queries (n, d), candidates (m, d), ids (n,) and (m,); apart: ids of both, equal ones are no candidates. One pass
    over tiles of candidates keeps, for each query, its best right score and its `most` best wrong ones.
    """
    best_right = queries.new_full((len(queries), 1), -torch.inf)
    best_wrong = queries.new_full((len(queries), most), -torch.inf)
    for start in range(0, len(candidates), TILE):
        part = slice(start, start + TILE)
        scores = queries @ candidates[part].T
        if apart is not None:
            scores = scores.masked_fill(apart[0][:, None] == apart[1][None, part], -torch.inf)
        right = ids[:, None] == candidate_ids[None, part]
        best_right = torch.maximum(best_right, scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True))
        wrong = scores.masked_fill(right, -torch.inf)
        best_wrong = torch.cat([best_wrong, wrong.topk(min(most, wrong.shape[1]), dim=1).values], 1)
        best_wrong = best_wrong.topk(most, dim=1).values
    ahead = ((best_wrong >= best_right) & best_wrong.isfinite()).sum(1)
    return ahead, best_right[:, 0] > -torch.inf
