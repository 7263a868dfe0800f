"""What texts as anchors are for: points of a kind are not pushed apart, and come out better than their labels."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distpre.anchors import Anchors, likest
from distpre.evaluators.iou import confusion, ious
from distpre.objectives.anchored import Anchored
from distpre.objectives.contrast import PairContrast
from distpre.objectives.group_consistency import GroupConsistency
from distpre.objectives.of_parts import OfParts
from distpre.schedule import Constant, Steps
from distpre.towers.encoders.features import Features
from distpre.towers.heads.projection import Mlp
from distpre.towers.tower import Tower
from distpre.types import Batch, Embedding, Step
from distpre.views.scenes import SuperNodes
from tools.shard.scenes import SHAPES, Row, anchors, scene

KINDS = ("floor", *SHAPES)
SCENES, STEPS = 16, 60


@cache
def world() -> Batch:
    """Scenes of 160 points. The encoder sees a point's kind, in noise; what pixels say is tools.shard's."""
    g = torch.Generator().manual_seed(0)
    made = [scene(Row(0, i, 160, 6, 0.3, 0.15, 16, KINDS)) for i in range(SCENES)]
    views = {name: torch.from_numpy(np.stack([s[name] for s in made])) for name in ("label", "truth", "pixels")}
    views = {name: x.long() if name != "pixels" else x.float() for name, x in views.items()}
    views["chance"] = views["label"].flatten()[torch.randperm(views["label"].numel(), generator=g)].view(SCENES, 160)
    cells = [SuperNodes(0.6)(s["points"], np.random.default_rng(0)) for s in made]
    views["group"] = torch.from_numpy(np.stack(cells))
    seen = F.one_hot(views["truth"], len(KINDS)) + 0.35 * torch.randn(SCENES, 160, len(KINDS), generator=g)
    return Batch(views | {"points": seen}, {}, torch.arange(SCENES), torch.ones(SCENES))


def trained(terms: list, seed: int = 0) -> torch.Tensor:
    """Unit vectors (scenes, points, 16) after some steps in which the terms saw the teacher's labels alone."""
    torch.manual_seed(seed)
    net = Tower(Features(len(KINDS)), Mlp([64, 16]))
    optimiser, whole = torch.optim.AdamW(net.parameters(), 1e-2), world()
    for index in range(STEPS):
        few = torch.randperm(SCENES)[:4]
        batch = whole._map(lambda x, few=few: x[few])
        student = {"points": Embedding(net(batch.views["points"])[0])}
        student["pixels"] = Embedding(F.normalize(batch.views["pixels"], dim=-1))
        step = Step(batch, student, {}, {}, index, STEPS)
        optimiser.zero_grad()
        sum(weight * term(step).loss for weight, term in terms).backward()
        optimiser.step()
    with torch.no_grad():
        return net(whole.views["points"])[0]


def miou(named: torch.Tensor) -> float:
    return float(np.nanmean(ious(confusion(world().views["truth"], named, len(KINDS)).sum(0).numpy())))


def unannotated(x: torch.Tensor) -> float:
    return miou(likest(x, anchors(0, len(KINDS), 16)))


def alike(x: torch.Tensor, by: str) -> float:
    """Mean cosine of points of a scene that share what the view `by` says of them."""
    said = world().views[by]
    pairs = (said[:, :, None] == said[:, None]) & (said >= 0)[:, None] & ~torch.eye(said.shape[1], dtype=torch.bool)
    return float((x @ x.mT)[pairs].mean())


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, torch.Tensor]:
    path = str(tmp_path_factory.mktemp("world") / "anchors.safetensors")
    Anchors(anchors(0, len(KINDS), 16), KINDS).write(path)
    label = {"label": "label"}
    pairs = OfParts(["points", "pixels"], PairContrast("points", "pixels", temperature=Constant(0.07)), label)
    semantic = Anchored("points", path, label, temperature=Constant(0.3))
    groups = GroupConsistency("points", path, {"label": "label", "group": "group"})
    ways = {"pairs": [(1, pairs)], "semantic": [(1, semantic)], "groups": [(1, semantic), (20, groups)]}
    half = Anchored("points", path, label, temperature=Constant(0.3), own=Steps((0, STEPS // 2), (0.0, 0.5)))
    ways["own"] = [(1, half)]
    chance = Anchored("points", path, {"label": "chance"}, temperature=Constant(0.3))
    return {name: trained(terms) for name, terms in (ways | {"chance": [(1, chance)]}).items()}


def test_points_come_out_better_than_the_labels_that_taught_them(found):
    teacher = miou(world().views["label"])
    assert teacher < 0.56 and unannotated(found["semantic"]) > teacher + 0.25
    assert unannotated(found["chance"]) < 0.3  # the same, of labels that say nothing of the points


def test_texts_tell_kinds_apart_better_than_pixels_do(found):
    assert unannotated(found["semantic"]) > unannotated(found["pairs"]) + 0.04


def test_points_of_a_cell_agree_more_where_they_are_told_to_and_kinds_are_told_apart_as_well(found):
    assert alike(found["groups"], "group") > alike(found["semantic"], "group") + 0.04
    assert unannotated(found["groups"]) > unannotated(found["semantic"]) - 0.03


def test_the_students_own_labels_do_not_lose_what_was_learnt(found):
    assert unannotated(found["own"]) > miou(world().views["label"]) + 0.2
