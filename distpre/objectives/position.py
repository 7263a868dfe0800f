"""Where in its volume is a crop? Said by its likeness to the cells of a grid (VoCo, Wu et al. 2024)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from distpre.errors import RecipeError
from distpre.group import total, world_size
from distpre.types import Step, TermResult

SMALL = 1e-6  # within logarithms, the released code's


class Position:
    """The likeness l_ik = max(0, cos) of crop i and cell k of one sample is to be y_ik, the share of i that lies in k.

    of: a view of parts, n cells and then m crops, (b, n + m, d); facts: {overlap: the view that holds y}, (b, m, n),
    rows of sum 1. Other samples play no part. against: a teacher that embeds the view; l is then the mean of the
    student's crops by the teacher's cells and the other way round. Without one, cells get no gradient from l.

    loss "split" (the released code's): -Σ y log(1 - |y - l|) / Σ y + mean of l² over the pairs that do not overlap
    + mean over cells j < k of max(0, cos(q_j, stop(q_k)))². loss "mean" (the paper's eq. 4 to 6): the mean over all
    pairs of -log(1 - |y - l|) + the mean over cells j < k of |cos|. spread: the weight of the part that keeps cells
    apart. Means run over the global batch.
    """

    local = False

    def __init__(
        self,
        of: str,
        facts: dict[str, str],
        against: str | None = None,
        loss: Literal["split", "mean"] = "split",
        spread: float = 1.0,
    ):
        if "overlap" not in facts:
            raise RecipeError("position: facts name no overlap.", "Write {overlap: VIEW}, a view with box_overlaps.")
        self.of, self.overlap, self.against = of, facts["overlap"], against
        self.form, self.spread = loss, spread

    def __call__(self, step: Step) -> TermResult:
        parts = step.embedding(self.of).vector
        y = step.batch.views[self.overlap].to(parts.dtype)
        if parts.ndim != 3 or parts.shape[1] != y.shape[1] + y.shape[2]:
            raise RecipeError(
                f"position: {self.of} is embedded as {tuple(parts.shape)}, and {self.overlap} is {tuple(y.shape)}; "
                "it asks for (b, n + m, d) and (b, m, n).",
                "Give cells_and_boxes and box_overlaps one grid and one count.",
            )
        many = y.shape[2]
        q, p = parts[:, :many], parts[:, many:]
        if self.against:
            theirs = step.embedding(f"{self.against}.{self.of}").vector
            known, told = theirs[:, :many], theirs[:, many:]
            like = (likeness(p, known) + likeness(told, q)) / 2
        else:
            like = likeness(p, q.detach())
        weight = (step.batch.weight * step.batch.present_in(self.of)).to(p.dtype)[:, None, None]
        sums = {"overlap": _mean(self._pairs(y, like), weight * (y if self.form == "split" else torch.ones_like(y)))}
        if self.form == "split":
            sums["elsewhere"] = _mean(like.square(), weight * (y == 0))
        above = torch.ones_like(q @ q.mT).triu(1)
        sums["cells"] = self.spread * _mean(self._apart(q), weight * above)
        loss = sum(sums.values())
        hit = _mean(right(like.detach(), y), weight.expand(-1, y.shape[1], 1)[..., 0])
        log = {name: total(x.detach()) / world_size() for name, x in {**sums, "hit": hit}.items()}
        return TermResult(loss, self._pairs(y, like).detach().mean((1, 2)), log)

    def _pairs(self, y: Tensor, like: Tensor) -> Tensor:
        return -(1 - (y - like).abs() + SMALL).log()

    def _apart(self, q: Tensor) -> Tensor:
        return likeness(q, q.detach()).square() if self.form == "split" else (q @ q.mT).abs()


def likeness(rows: Tensor, columns: Tensor) -> Tensor:
    """(b, m, n) of unit vectors (b, m, d) and (b, n, d), never below 0."""
    return (rows @ columns.mT).relu()


def right(like: Tensor, overlap: Tensor) -> Tensor:
    """(b, m) 1.0 where the likest cell is the one that holds most of the crop; any of several that hold as much."""
    chosen = overlap.gather(2, like.argmax(2, keepdim=True))[..., 0]
    return (chosen == overlap.amax(2)).to(like.dtype)


def _mean(x: Tensor, weight: Tensor) -> Tensor:
    """(): its mean over ranks is the weighted mean over the global batch."""
    return (weight * x).sum() * world_size() / total(weight.sum()).clamp(min=1e-12)
