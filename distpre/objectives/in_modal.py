"""Views of the same samples against one another, within one modality (SimCLR, SupCon)."""

from __future__ import annotations

from distpre.contrast import contrast, joined
from distpre.contrast.targets import OtherView, Targets
from distpre.errors import RecipeError
from distpre.objectives.contrast import Scaling, block, figures, shared, softmax_loss
from distpre.schedule import Schedule
from distpre.types import Step, TermResult


class InModal:
    """NT-Xent (Chen et al. 2020, eq. 1): every entry of all views against all others, itself removed.

    views: names, two or more, of one space. targets: a rule that removes the entry itself; other_view with `id` makes
    every entry of the same id a positive (SupCon). scale or temperature, inside, positives_below, layout: as in
    contrast. A sample's loss is the mean over its views that are there.
    """

    local = False

    def __init__(
        self,
        views: list[str],
        scale: str | None = None,
        temperature: Schedule | None = None,
        targets: Targets = OtherView(),  # noqa: B008
        inside: bool = False,
        positives_below: bool = True,
        layout: str = "auto",
    ):
        if len(views) < 2:
            raise RecipeError(f"in_modal.views {views} will not do.", "It may be a list of at least two views.")
        self.views, self.scaling, self.targets, self.layout = views, Scaling(scale, temperature), targets, layout
        self.loss = softmax_loss(inside, positives_below)
        self.gathers = views

    def __call__(self, step: Step) -> TermResult:
        every = joined([block(step, view, {}) for view in self.views])
        scale, bias = self.scaling.at(step)
        out = contrast(every, every, scale, bias=bias, targets=self.targets, both_ways=False, layout=self.layout)
        weight = step.batch.weight.repeat(len(self.views)) * every.there()
        share, each = shared(weight), self.loss(out.rows)
        counted = every.there().unflatten(0, (len(self.views), -1)).sum(0).clamp(min=1)
        per_sample = each.detach().unflatten(0, (len(self.views), -1)).sum(0) / counted
        return TermResult(
            (share * each).sum(), per_sample, {"scale": scale.detach().squeeze()} | figures(out, share, scale)
        )
