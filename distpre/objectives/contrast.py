"""The contrastive term: two views of the global batch against each other, through distpre.contrast."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from distpre.contrast import Block, Contrast, Direction, contrast
from distpre.contrast.banks import Bank, Queue
from distpre.contrast.similarity import Dot, Similarity
from distpre.contrast.targets import OwnPair, Targets
from distpre.errors import RecipeError
from distpre.group import gathered, total, world_size
from distpre.objectives.distance import Among, chosen
from distpre.schedule import Schedule
from distpre.types import Step, TermResult


class PairContrast:
    """`rows` against every column of the global batch: softmax (CLIP, Radford et al. 2021, fig. 3) or sigmoid (SigLIP).

    rows, columns: names of views, or TEACHER.VIEW. scale: a learned logit scale of the recipe's `scales`, with its bias
    where it has one; or temperature: a number or a schedule. targets: which pairs count. symmetric: mean of both
    directions, else rows only. inside: several positives are summed within the logarithm, else the mean of their
    logarithms; positives_below: positives are in the denominator too. within: whose columns a row meets. among: the
    samples that there are, all, the stage's own (current) or replayed ones. bank: more negatives for the rows. facts:
    {fact of the targets: view of the batch that holds it}; ids and what a weighting knows of the samples are facts
    already.
    quality: a fact, a score for each sample: it counts exp(sharpness · score) among the global batch's (GenView).
    layout: "auto", "RxC" or "ring". A view that a sample lacks is in no denominator; the other of the two then counts
    in no mean, but is a negative still. A sample of weight 0 is neither.
    """

    local = False

    def __init__(
        self,
        rows: str,
        columns: str,
        scale: str | None = None,
        temperature: Schedule | None = None,
        targets: Targets = OwnPair(),  # noqa: B008  (holds no state)
        similarity: Similarity = Dot(),  # noqa: B008
        form: Literal["softmax", "sigmoid"] = "softmax",
        symmetric: bool = True,
        inside: bool = False,
        positives_below: bool = True,
        within: Literal["batch", "rank"] = "batch",
        among: Among = "all",
        bank: Bank | None = None,
        facts: dict[str, str] | None = None,
        quality: str | None = None,
        sharpness: float = 1.0,
        layout: str = "auto",
    ):
        self.rows, self.columns, self.scaling = rows, columns, Scaling(scale, temperature)
        self.quality, self.sharpness = quality, sharpness
        self.symmetric, self.bank, self.facts, self.among = symmetric, bank, facts or {}, among
        self.memories = {"bank": bank} if isinstance(bank, Queue) else {}
        self.asked = {"targets": targets, "similarity": similarity, "form": form, "within": within, "layout": layout}
        self.loss = softmax_loss(inside, positives_below) if form == "softmax" else sigmoid_loss
        self.gathers = [rows] if within == "batch" else []

    def __call__(self, step: Step) -> TermResult:
        rows, columns = (block(step, view, self.facts, self.among) for view in (self.rows, self.columns))
        scale, bias = self.scaling.at(step)
        asked: dict[str, Any] = dict(self.asked)
        if self.bank:
            asked |= {
                "banks": [self.bank.columns(columns.vectors)],
                "private": self.bank.private(rows.vectors, step.index),
            }
        out = contrast(rows, columns, scale, bias=bias, both_ways=self.symmetric, **asked)
        if self.bank:
            self.bank.push(columns.vectors, columns.there())
        per_sample = self.per_sample(out.rows, rows, columns)
        if self.symmetric:
            per_sample = (per_sample + self.per_sample(out.columns, columns, rows)) / 2
        weight = step.batch.weight * (rows.there() & columns.there())
        share = shared(weight)
        counts = share if self.quality is None else shared(weighed(weight, rows.facts[self.quality], self.sharpness))
        return TermResult(
            (counts * per_sample).sum(),
            per_sample.detach(),
            {"scale": scale.detach().squeeze()} | figures(out, share, scale),
        )

    def per_sample(self, direction: Direction, side: Block, other: Block) -> Tensor:
        """(n,) the loss of this rank's samples in one direction, side against other."""
        return self.loss(direction)


class Scaling:
    """What multiplies similarities: a learned scale of the recipe by name, or 1 / temperature."""

    def __init__(self, scale: str | None, temperature: Schedule | None):
        if (scale is None) == (temperature is None):
            raise RecipeError("A contrast has `scale` (learned) or `temperature` (set): one of the two.")
        self.scale, self.temperature = scale, temperature

    def at(self, step: Step) -> tuple[Tensor, Tensor | None]:
        """(scale [1], bias [1] or None) of this step."""
        if self.scale is not None:
            return step.scales[self.scale], step.biases.get(self.scale)
        return torch.full((1,), 1 / self.temperature.at(step.index, step.of), device=step.batch.weight.device), None


def block(step: Step, view: str, facts: dict[str, str], among: Among = "all") -> Block:
    """Embeddings of a view ("image") or of a teacher ("ema.image") as one side, with ids, ordinal and facts."""
    known = step.batch.ids | {"ordinal": step.batch.ordinal} | step.batch.state
    known |= {fact: step.batch.views[name] for fact, name in facts.items()}
    present = step.batch.present_in(view) & chosen(step.batch, among)
    return Block(step.embedding(view).vector, known, present)


def shared(weight: Tensor) -> Tensor:
    """(n,) what each sample counts: the mean over ranks of Σ share·x is the weighted mean over the global batch."""
    return weight * world_size() / total(weight.sum()).clamp(min=1e-12)


def weighed(weight: Tensor, score: Tensor, sharpness: float) -> Tensor:
    """(n,) weight · exp(sharpness · score), over the largest of the global batch so that nothing overflows.

    `shared` makes of it 1/N of N exp(γ score_i) / Σ_j exp(γ score_j): GenView's weights (Li et al. 2024), which have
    mean 1, over the global batch; in the released code over each GPU's.
    """
    log = (sharpness * score.detach()).to(weight).reshape(len(weight)).masked_fill(weight == 0, -torch.inf)
    largest = gathered(log).amax().clamp(min=torch.finfo(log.dtype).min)
    return weight * (log - largest).exp()


def softmax_loss(inside: bool, positives_below: bool) -> Any:
    return lambda direction: direction.loss(inside=inside, positives_below=positives_below)


def sigmoid_loss(direction: Direction) -> Tensor:
    return torch.where(direction.told, direction.negatives + direction.positives, 0.0)


def figures(out: Contrast, share: Tensor, scale: Tensor) -> dict[str, Tensor]:
    """In-batch R@1 each way, and the similarity of the best positive and of the hardest negative."""

    def mean(values: Tensor) -> Tensor:
        return (share * values.masked_fill(values.isinf(), 0.0)).sum()

    log = {"row_hit": mean(out.rows.hit)}
    if out.columns is not None:
        log["column_hit"] = mean(out.columns.hit)
    scale = scale.detach()
    return log | {"positive": mean(out.rows.best / scale), "hardest": mean(out.rows.hardest / scale)}
