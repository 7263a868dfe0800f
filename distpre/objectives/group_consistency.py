"""Parts of a sample that lie together are to agree, as far as a text says which of them to believe (CLIP2Scene)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distpre.anchors import Anchors
from distpre.errors import RecipeError
from distpre.objectives.contrast import shared
from distpre.objectives.labels import PartLabels
from distpre.runtime.group import total, world_size
from distpre.schedule import Constant, Schedule
from distpre.types import Step, TermResult


class GroupConsistency:
    """Mean over parts k of 1 - σ(<p_k, f>), f = Σ_i a_i v_i of k's group, a = softmax_i(<v_i, t>/λ) (Chen et al. 2023).

    The v are the group's parts p and, with the fact `pixels`, the unit vectors of the pixels that see them, as in the
    paper; the released code has the parts alone. t is the anchor of the class that most of the group's labelled parts
    have (of several the first; ours: the paper gives a cell one text and does not say how); a group without a label
    counts nowhere. The mean is ours too: the paper adds groups and parts up.

    of: a view of parts, unit vectors (b, k, d). anchors, own, seed: as in anchored. facts: {label: VIEW; group: VIEW,
    (b, k) numbers within a sample, -1 for none; pixels: VIEW, (b, k, d)}. temperature: λ.
    """

    local = False

    def __init__(
        self,
        of: str,
        anchors: str,
        facts: dict[str, str],
        temperature: float,
        own: Schedule = Constant(0.0),  # noqa: B008
        seed: int = 0,
    ):
        if "group" not in facts:
            raise RecipeError("group_consistency: facts name no group.", "Write {group: VIEW}, a view with super_nodes.")
        self.of, self.facts, self.temperature, self.anchors = of, facts, temperature, Anchors.read(anchors)
        self.labels = PartLabels(of, self.anchors, facts, own, seed)

    def __call__(self, step: Step) -> TermResult:
        x = step.embedding(self.of).vector
        anchors, labels = self.anchors.of(x), self.labels.at(step, x)
        member = self._members(step, labels.classes)
        number = (torch.arange(len(x), device=x.device)[:, None] * x.shape[1] + step.batch.views[self.facts["group"]])
        _, group = number[member].long().unique(return_inverse=True)
        groups = int(group.max()) + 1 if len(group) else 0
        p, classes = x[member], labels.classes[member]
        votes = torch.zeros(groups, len(anchors), device=x.device)
        votes.index_put_((group[classes >= 0], classes[classes >= 0]), torch.ones((), device=x.device), accumulate=True)
        text, counts = anchors[votes.argmax(1)], (votes.amax(1) > 0)[group] if groups else member[:0, 0]
        items, of = p, group
        if "pixels" in self.facts:
            seen = classes >= 0
            items, of = torch.cat([p, self._pixels(step, x)[member][seen]]), torch.cat([group, group[seen]])
        fused = pooled(items, (items * text[of]).sum(1) / self.temperature, of, groups)
        like = (p * fused[group]).sum(1)
        share = shared(counts.to(x.dtype))
        log = {"alike": total((share * like).sum()) / world_size(), "groups": total(x.new_tensor(float(groups)))}
        return TermResult((share * (1 - like.sigmoid())).sum(), log=log)

    def _members(self, step: Step, classes: Tensor) -> Tensor:
        group = step.batch.views[self.facts["group"]]
        if group.shape != classes.shape:
            what = f"group_consistency: groups {tuple(group.shape)} for parts {tuple(classes.shape)}."
            raise RecipeError(what, "Draw the same points in both views (some_of_scene).")
        there = (step.batch.weight > 0) & step.batch.present_in(self.of) & step.batch.present_in(self.facts["group"])
        return (group >= 0) & there[:, None]

    def _pixels(self, step: Step, x: Tensor) -> Tensor:
        pixels = step.batch.views[self.facts["pixels"]].to(x.dtype)
        if pixels.shape != x.shape:
            what = f"group_consistency: pixels {tuple(pixels.shape)} for parts {tuple(x.shape)}."
            raise RecipeError(what, "Pixels, points and anchors are vectors of one space.")
        return F.normalize(pixels, dim=-1)


def pooled(items: Tensor, logits: Tensor, group: Tensor, groups: int) -> Tensor:
    """(groups, d): of each group its items (m, d) by the softmax of their logits (m,); group: (m,)."""
    top = logits.new_full((groups,), -torch.inf).scatter_reduce(0, group, logits.detach(), "amax")
    weight = (logits - top[group]).exp()
    below = logits.new_zeros(groups).index_add(0, group, weight)
    return items.new_zeros(groups, items.shape[1]).index_add(0, group, (weight / below[group])[:, None] * items)
