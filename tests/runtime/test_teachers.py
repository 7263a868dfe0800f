"""Teachers under every ZeRO stage: the exponential mean against a float64 loop, resumed to the same bits."""

import pytest
import torch
from torch import nn

from distpre.runtime import commit
from distpre.schedule import Constant, Linear
from tests.ranks import ranks
from tests.runtime.test_commit import save
from tests.runtime.test_update import BATCH, Net, global_views

STEPS = 5
MOMENTUM = Linear(start=0.6, end=0.9)


class Wide(Net):
    """With a matrix that ZeRO-3 divides, beside small ones that it keeps whole."""

    def __init__(self, dropout: float = 0.0):
        super().__init__(dropout)
        self.layers = nn.Sequential(nn.Linear(12, 320), nn.GELU(), nn.Dropout(dropout), nn.Linear(320, 320))
        self.last = nn.Linear(320, 8)

    def forward(self, x):
        return self.last(self.layers(x)), {}


def an_engine(zero: int, accumulation: int = 1):
    from distpre.runtime.engine import Engine, join_group
    from distpre.towers.model import LogitScale, Model
    from distpre.towers.teachers import Ema, Previous, Teacher
    from distpre.towers.tower import Tower

    join_group()
    torch.manual_seed(0)
    towers = {"image": Tower(Wide(0.5)), "text": Tower(Net())}
    teachers = {
        "ema": Teacher(Ema(MOMENTUM), towers),
        "old": Teacher(Previous(of=["text"]), {"text": towers["text"]}),
    }
    model = Model(towers, {"image": "image", "text": "text"}, {"logit": LogitScale(14.0)}, "fp32", teachers)
    return Engine(model, lr=Constant(0.05), steps=STEPS, zero=zero, accumulation=accumulation, clip=1.0)


class Watched:
    """A term over two teachers' embeddings, which it keeps."""

    local = False

    def __init__(self):
        self.seen = []

    def __call__(self, step):
        from distpre.types import TermResult

        self.seen.append((step.embedding("ema.image").vector.clone(), step.embedding("old.text").vector.clone()))
        pull = (step.student["image"].vector - step.embedding("ema.image").vector.roll(1, 0)).square().sum(1).mean()
        return TermResult(pull + (step.student["text"].vector - step.embedding("old.text").vector).abs().mean())


def train(engine, first: int, last: int, keep=None) -> Watched:
    from distpre import group
    from distpre.objectives.contrast import PairContrast
    from distpre.objectives.objective import Objective
    from distpre.runtime.update import update
    from distpre.types import Batch

    watched = Watched()
    objective = Objective(
        {"match": (PairContrast("image", "text", scale="logit"), Constant(1.0)), "teach": (watched, Constant(1.0))}
    )
    share = BATCH // group.world_size()
    mine = slice(share * group.rank(), share * (group.rank() + 1))
    for index in range(first, last):
        views = {name: x[mine] for name, x in global_views(index).items()}
        update(engine, objective, Batch(views, {}, torch.arange(BATCH)[mine], torch.ones(share)), index=index, seed=0)
        if keep is not None:
            keep.append(engine.full_weights())
    return watched


def traced(zero: int, accumulation: int):
    from distpre import group

    engine = an_engine(zero, accumulation)
    trace = [engine.full_weights()]
    seen = train(engine, 0, STEPS, trace).seen
    optimised = {id(p) for g in engine.wrapped.optimizer.param_groups for p in g["params"]}
    taught = {id(p) for p in engine.model.teachers.parameters()}
    return (trace, seen, len(optimised & taught)) if group.rank() == 0 else None


@pytest.mark.cluster
@pytest.mark.parametrize("zero,accumulation", [(0, 1), (1, 1), (2, 3), (3, 1), (3, 2)])
def test_the_mean_equals_a_float64_loop_over_the_students_weights(zero, accumulation):
    trace, seen, optimised = ranks(2).run(traced, zero, accumulation)[0]
    assert optimised == 0
    names = [name for name in trace[0] if name.startswith("teachers.ema.")]
    mean = {name: trace[0][name].double() for name in names}
    for index in range(STEPS):
        m = 0.6 + 0.3 * index / STEPS
        for name in names:
            student = trace[index + 1][name.replace("teachers.ema.", "towers.")].double()
            mean[name] = m * mean[name] + (1 - m) * student
            torch.testing.assert_close(trace[index + 1][name].double(), mean[name], rtol=0, atol=2e-7)
    moved = [name for name in names if not torch.equal(trace[0][name], trace[-1][name])]
    assert moved == names
    for name in (n for n in trace[0] if n.startswith("teachers.old.")):
        assert torch.equal(trace[-1][name], trace[0][name])
    # What the terms saw is what those weights say, without dropout.
    for index in range(STEPS):
        state = {n.removeprefix("teachers.ema.image."): v for n, v in trace[index].items() if ".ema.image." in n}
        from distpre.towers.tower import Tower

        tower = Tower(Wide()).eval()
        tower.load_state_dict({n: v for n, v in state.items()})
        with torch.no_grad():
            expected = tower(global_views(index)["image"][: BATCH // 2])[0]
        torch.testing.assert_close(seen[index][0], expected, rtol=0, atol=1e-6)


def straight(zero: int):
    engine = an_engine(zero)
    train(engine, 0, STEPS)
    return engine.full_weights()


def broken_off(zero: int, run_dir: str):
    engine = an_engine(zero)
    train(engine, 0, 3)
    save(run_dir, engine, step=3, state={}, keep=2)
    resumed = an_engine(zero)
    train(resumed, 0, 1)  # elsewhere, so that what is not restored shows
    commit.load(commit.newest(run_dir), resumed)
    train(resumed, 3, STEPS)
    return resumed.full_weights()


@pytest.mark.cluster
@pytest.mark.parametrize("zero", [0, 2, 3])
def test_resumed_teachers_are_the_unbroken_runs_bit_for_bit(zero, tmp_path):
    expected, found = ranks(2).run(straight, zero)[0], ranks(2).run(broken_off, zero, str(tmp_path))[0]
    assert [k for k in expected if not torch.equal(found[k], expected[k])] == []
    assert any(k.startswith("teachers.ema") for k in expected)
