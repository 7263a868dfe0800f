"""What texts as anchors are for: points of a kind are not pushed apart, and come out better than their labels."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distpre.anchors import Anchors
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
    cells = [SuperNodes(0.6)(s["points"], np.random.default_rng(0)) for s in made]
    views["group"] = torch.from_numpy(np.stack(cells))
    seen = F.one_hot(views["truth"], len(KINDS)) + 0.35 * torch.randn(SCENES, 160, len(KINDS), generator=g)
    return Batch(views | {"points": seen}, {}, torch.arange(SCENES), torch.ones(SCENES))


def trained(terms: list, seed: int) -> float:
    """mIoU of all points, of which the terms saw the teacher's labels alone."""
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
        sum(term(step).loss for term in terms).backward()
        optimiser.step()
    with torch.no_grad():
        named = (net(whole.views["points"])[0] @ anchors(0, len(KINDS), 16).T).argmax(-1)
    return miou(named)


def miou(named: torch.Tensor) -> float:
    return float(np.nanmean(ious(confusion(world().views["truth"], named, len(KINDS)).sum(0).numpy())))


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, list[float]]:
    path = str(tmp_path_factory.mktemp("world") / "anchors.safetensors")
    Anchors(anchors(0, len(KINDS), 16), KINDS).write(path)
    label, heat = {"label": "label"}, {"temperature": Constant(0.07)}
    half = Steps((0, STEPS // 2), (0.0, 0.5))
    pairs = [OfParts(["points", "pixels"], PairContrast("points", "pixels", **heat), label)]
    semantic = [Anchored("points", path, label, **heat)]
    facts = {"label": "label", "group": "group", "pixels": "pixels"}
    all_three = [
        Anchored("points", path, label, own=half, **heat),
        GroupConsistency("points", path, facts),
    ]
    ways = {"pairs": pairs, "semantic": semantic, "all": all_three}
    return {name: [trained(terms, seed) for seed in range(1)] for name, terms in ways.items()}


def test_x(found):
    print({k: [round(x, 3) for x in v] for k, v in found.items()}, miou(world().views["label"]))
    assert 0
