"""Parts of a sample that lie together are to agree, as far as a text says which of them to believe (CLIP2Scene)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distpre.anchors import Anchors
from distpre.errors import RecipeError
from distpre.group import total, world_size
from distpre.objectives.contrast import shared
from distpre.objectives.labels import PartLabels, parts_of
from distpre.types import Step, TermResult


class GroupConsistency:
    """Mean over parts k of 1 - σ(<p_k, f>), f = Σ_i a_i v_i of k's group, a = softmax_i(<v_i, t>/λ) (Chen et al. 2023).

    The v are the group's parts p and, with the fact `pixels`, the unit vectors of the pixels that see them, as in the
    paper; the released code has the parts alone. Parts without a label are in no group. t is the anchor of the class
    that most of the group's parts have, of several the first (the code's: its first part's). The mean over parts is the
    code's but for its padding; the paper adds groups and parts up.

    of: a view of parts, unit vectors (b, k, d). anchors: a file of `tools.anchors`. facts: {label: VIEW, -1 for none;
    group: VIEW, (b, k) numbers within a sample, -1 for none; pixels: VIEW, (b, k, d)}. temperature: λ. tap: as in
    anchored, such as `second` of the head linear_pair.
    """

    def __init__(self, of: str, anchors: str, facts: dict[str, str], temperature: float = 1.0, tap: str | None = None):
        if "group" not in facts:
            raise RecipeError(f"{of}: facts name no group.", "Write {group: VIEW}, a view with super_nodes.")
        self.of, self.facts, self.temperature, self.anchors = of, facts, temperature, Anchors.read(anchors)
        self.tap, self.local = tap, tap is not None
        self.labels = PartLabels(of, self.anchors, facts)

    def __call__(self, step: Step) -> TermResult:
        x = parts_of(step, self.of, self.tap)
        anchors, labels = self.anchors.of(x), self.labels.at(step, x).told
        number = self._numbers(step, labels)
        member = (number >= 0) & (labels >= 0)
        number = number + torch.arange(len(x), device=x.device)[:, None] * x.shape[1]
        names, group = number[member].unique(return_inverse=True)
        p, votes = x[member], x.new_zeros(len(names), len(anchors))
        votes.index_put_((group, labels[member]), x.new_ones(()), accumulate=True)
        items, of = p, group
        if "pixels" in self.facts:
            items, of = torch.cat([p, self._pixels(step, x)[member]]), torch.cat([group, group])
        text = anchors[votes.argmax(1)]
        fused = pooled(items, (items * text[of]).sum(1) / self.temperature, of, len(names))
        like = (p * fused[group]).sum(1)
        share = shared(torch.ones_like(like))
        log = {"alike": total((share * like).sum()) / world_size(), "groups": total(x.new_tensor(float(len(names))))}
        return TermResult((share * (1 - like.sigmoid())).sum(), log=log)

    def _numbers(self, step: Step, labels: Tensor) -> Tensor:
        group = step.batch.views[self.facts["group"]].long()
        if group.shape != labels.shape:
            what = f"group_consistency: groups {tuple(group.shape)} for parts {tuple(labels.shape)}."
            raise RecipeError(what, "Draw the same points in both views (some_of_scene).")
        return group.masked_fill(~step.batch.present_in(self.facts["group"])[:, None], -1)

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
