"""Elastic weight consolidation under every ZeRO stage against plain loops on one process."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distpre.schedule import Constant
from tests.ranks import ranks
from tests.runtime.test_teachers import Wide
from tests.runtime.test_update import BATCH, Net, global_views

STEPS, LR, CLIP, LAMBDA = 4, 0.05, 0.5, 3.0
EPS = 1e-3  # large: AdamW's quotient of two gradients as small as float32's rounding says nothing


def a_model(weight: float | None):
    """Two towers, one wide enough for ZeRO-3 to divide; θ* and F drawn at random. weight None: nothing holds."""
    from distpre.towers.model import LogitScale, Model
    from distpre.towers.teachers import Fisher, Previous, Teacher
    from distpre.towers.tower import Tower

    torch.manual_seed(0)
    towers = {"image": Tower(Wide()), "text": Tower(Net())}
    teachers = {
        "old": Teacher(Previous(views=[]), towers),
        "fisher": Teacher(Fisher("old", Constant(weight or 0.0)), towers),
    }
    for old in teachers["old"].parameters():
        old.add_(0.1 * torch.randn(old.shape))
    for importance in teachers["fisher"].parameters():
        importance.copy_(torch.rand(importance.shape))
    scales = {"logit": LogitScale(14.0)}
    views = {"image": "image", "text": "text"}
    return Model(towers, views, scales, "fp32", teachers if weight is not None else {})


def an_objective():
    from distpre.objectives.contrast import PairContrast
    from distpre.objectives.objective import Objective

    return Objective({"match": (PairContrast("image", "text", scale="logit"), Constant(1.0))})


def part(index: int):
    """This rank's part of a global batch."""
    from distpre import group
    from distpre.types import Batch

    at = slice(BATCH * group.rank() // group.world_size(), BATCH * (group.rank() + 1) // group.world_size())
    ordinal = torch.arange(BATCH)[at]
    return Batch({name: x[at] for name, x in global_views(index).items()}, {}, ordinal, torch.ones(len(ordinal)))


def traced(cases: list[tuple[int, int]], weights: list[float | None]) -> dict:
    """{(zero, accumulation, weight): (weights after STEPS steps, penalty of the last one, Fisher information then)}."""
    from distpre.runtime.engine import Engine, join_group
    from distpre.runtime.fisher import information
    from distpre.runtime.update import update

    join_group()
    found = {}
    for zero, accumulation in cases:
        for weight in weights:
            engine = Engine(
                a_model(weight), lr=Constant(LR), steps=STEPS, zero=zero, accumulation=accumulation, clip=CLIP, eps=EPS
            )
            for index in range(STEPS):
                update(engine, an_objective(), part(index), index=index, seed=0)
            after, penalty = engine.full_weights(), engine.figures().get("penalties")
            fisher = information(engine, an_objective(), map(part, (7, 8, 9)), index=STEPS - 1, seed=0)
            assert all(torch.equal(w, after[name]) for name, w in engine.full_weights().items())
            found[zero, accumulation, weight] = after, penalty, fisher
    return found


def loss_of(model: nn.Module, index: int) -> torch.Tensor:
    embedded, scales = model({k: x.double() for k, x in global_views(index).items()})
    logits = scales["logit"][0] * embedded["image"][0].double() @ embedded["text"][0].double().T
    return (F.cross_entropy(logits, torch.arange(BATCH)) + F.cross_entropy(logits.T, torch.arange(BATCH))) / 2


def written_out() -> tuple[dict, float, dict]:
    """The same in float64, the penalty a part of the loss."""
    model = a_model(LAMBDA).double()
    its = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in its if p.ndim >= 2]}, {"params": [p for p in its if p.ndim < 2]}]
    optimiser = torch.optim.AdamW(groups, lr=LR, weight_decay=0.0, betas=(0.9, 0.98), eps=EPS)
    triples = list(
        zip(*(m.parameters() for m in (model.towers, *(model.teachers[n] for n in ("old", "fisher")))), strict=True)
    )
    for index in range(STEPS):
        penalty = LAMBDA / 2 * sum((importance * (p - old).square()).sum() for p, old, importance in triples)
        optimiser.zero_grad()
        (loss_of(model, index) + penalty).backward()
        nn.utils.clip_grad_norm_(its, CLIP)
        optimiser.step()
    names = {name: p for name, p in model.named_parameters() if name.startswith("towers.")}
    fisher = {name: torch.zeros_like(p) for name, p in names.items()}
    for index in (7, 8, 9):
        for name, g in zip(names, torch.autograd.grad(loss_of(model, index), list(names.values())), strict=True):
            fisher[name] += BATCH * g.square() / 3
    return {name: p.detach() for name, p in names.items()}, penalty.item(), fisher


CASES = {1: [(0, 2), (3, 1)], 2: [(0, 1), (1, 1), (2, 2), (3, 2)]}


@pytest.mark.cluster
@pytest.mark.parametrize("world", CASES)
def test_penalty_and_information_are_those_of_a_float64_loop(world):
    found = ranks(world).run(traced, CASES[world], [None, 0.0, LAMBDA])[0]
    weights, penalty, fisher = written_out()
    for case in CASES[world]:
        after, said, estimated = found[*case, LAMBDA]
        for name, value in weights.items():
            at = f"{case} {name}"
            torch.testing.assert_close(
                after[name].double(), value, rtol=1e-4, atol=2e-5, msg=lambda m, a=at: f"{a}: {m}"
            )
            torch.testing.assert_close(
                estimated[name].double(), fisher[name], rtol=2e-3, atol=1e-6, msg=lambda m, a=at: f"{a}: {m}"
            )
        assert said["fisher"] == pytest.approx(penalty, rel=1e-4)
        tuned, held = found[*case, None][0], found[*case, 0.0][0]
        assert all(torch.equal(held[name], w) for name, w in tuned.items())  # λ = 0: not a bit of it
        assert not torch.equal(after[next(iter(weights))], tuned[next(iter(weights))])
