"""Parts of samples (points) against frozen vectors of their classes (CLIP2Scene, Chen et al. 2023)."""

from __future__ import annotations

from typing import Literal

import torch

from distpre.anchors import Anchors
from distpre.contrast import Block, contrast
from distpre.contrast.targets import SameId
from distpre.group import part, total, world_size
from distpre.objectives.contrast import Scaling, shared
from distpre.objectives.labels import PartLabels, parts_of
from distpre.schedule import Constant, Schedule
from distpre.types import Step, TermResult


class Anchored:
    """Text t_c of each class c against the parts f_i of the global batch; those of the class, P_c, are positive.

    over "parts" (the paper's semantic consistency): -Σ_c log[Σ_{i in P_c} exp(<t_c, f_i>/τ) / Σ_j exp(<t_c, f_j>/τ)],
    j over all parts with a label; a class without parts adds nothing. Parts of a class are never pushed apart, as they
    are by a contrast of points with pixels. over "classes" (the released code's): the mean over parts of
    -log[exp(<t_c(i), f_i>/τ) / Σ_c exp(<t_c, f_i>/τ)].

    of: a view of parts, unit vectors (b, k, d). anchors: a file of `tools.anchors`. facts: {label: VIEW}; own, seed: as
    in PartLabels. scale or temperature: as in contrast. tap: a tap of the tower in place of its unit vectors, such as
    `said` (released, with τ = 1); then an accumulated step counts its micro-batches by samples, not by parts. Parts
    never travel between ranks, anchors do. Over parts and with labels that err, a low τ learns the few parts that are
    likest already: the sum stands inside the logarithm.
    """

    def __init__(
        self,
        of: str,
        anchors: str,
        facts: dict[str, str],
        over: Literal["parts", "classes"] = "parts",
        scale: str | None = None,
        temperature: Schedule | None = None,
        tap: str | None = None,
        own: Schedule = Constant(0.0),  # noqa: B008
        seed: int = 0,
    ):
        self.of, self.over, self.tap, self.local = of, over, tap, tap is not None
        self.anchors, self.scaling = Anchors.read(anchors), Scaling(scale, temperature)
        self.labels = PartLabels(of, self.anchors, facts, own, seed)

    def __call__(self, step: Step) -> TermResult:
        x = parts_of(step, self.of, self.tap)
        anchors, labels = self.anchors.of(x), self.labels.at(step, x)
        mine = part(len(anchors))  # each anchor is on one rank
        texts = Block(anchors[mine], {"class": torch.arange(len(anchors), device=x.device)[mine]})
        parts = Block(x.flatten(0, 1), {"class": labels.classes.flatten()}, labels.classes.flatten() >= 0)
        (scale, bias), ranks = self.scaling.at(step), world_size()
        asked = {"bias": bias, "targets": SameId("class"), "both_ways": False}
        share = shared(parts.there().to(x.dtype))
        if self.over == "parts":
            found = contrast(texts, parts, scale, layout=f"1x{ranks}", **asked).rows
            loss = ranks * found.loss(inside=True).sum()
        else:
            found = contrast(parts, texts, scale, layout=f"{ranks}x1", **asked).rows
            loss = (share * found.loss()).sum()
        agree = (share * (labels.likest == labels.told).flatten()).sum()
        log = {"scale": scale.detach().squeeze(), "own": labels.own, "agree": total(agree) / ranks}
        return TermResult(loss, log=log)
