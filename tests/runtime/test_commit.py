"""A commit holds everything, counts only when whole, and is taken up to the same bits."""

import json

import pytest
import torch

from distpre.errors import CheckpointError
from distpre.runtime import commit
from distpre.runtime.committer import Committer
from tests.ranks import ranks


def an_engine(zero: int, start: float = 14.0):
    from distpre.runtime.engine import Engine, join_group
    from distpre.schedule import Constant
    from distpre.towers.encoders.open_clip import OpenClipImage
    from distpre.towers.model import LogitScale, Model
    from distpre.towers.tower import Tower

    join_group()
    torch.manual_seed(0)
    config = {"image_size": 8, "patch_size": 4, "width": 16, "layers": 1, "head_width": 8}
    tower = Tower(OpenClipImage(config=config, embed_dim=8))
    model = Model({"image": tower}, {"image": "image"}, {"logit": LogitScale(start)}, "fp32")
    return Engine(model, lr=Constant(0.1), steps=10, zero=zero, clip=1.0, weight_decay=0.1)


def save(run_dir, engine, *, step: int, state: dict, keep: int, memories: dict = commit.NONE) -> commit.Commit:
    """A commit that is waited for."""
    committer = Committer(run_dir, keep)
    committer.begin(engine, step, state, memories)
    return committer.settle().commit


def updates(engine, first: int, last: int) -> None:
    from distpre import group

    for index in range(first, last):
        x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(100 * index + group.rank()))
        embedded, scales = engine({"image": x})
        engine.backward((embedded["image"][0][:, 0] * scales["logit"][0]).mean())
        engine.step(index)


def straight(zero: int):
    from distpre import group

    engine = an_engine(zero)
    updates(engine, 0, 5)
    weights = engine.full_weights()
    return weights if group.rank() == 0 else None


def broken_off(zero: int, run_dir: str):
    """Three updates in one engine, and two more while their commit is written; these two again in a fresh one."""
    from distpre import group

    engine = an_engine(zero)
    updates(engine, 0, 3)
    committer = Committer(run_dir, keep=2)
    committer.begin(engine, 3, {"data": {"cursor": 12}}, {})
    updates(engine, 3, 5)
    committer.settle()
    resumed = an_engine(zero, start=3.0)
    state = commit.load(commit.newest(run_dir), resumed)
    assert state["data"] == {"cursor": 12} and state["step"] == 3
    updates(resumed, 3, 5)
    weights = resumed.full_weights()
    return weights if group.rank() == 0 else None


@pytest.mark.cluster
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_resumed_training_equals_unbroken_training_bit_for_bit(zero, tmp_path):
    expected = ranks(2).run(straight, zero)[0]
    found = ranks(2).run(broken_off, zero, str(tmp_path))[0]
    assert found.keys() == expected.keys()
    assert [k for k in expected if not torch.equal(found[k], expected[k])] == []


@pytest.mark.cluster
def test_whole_weights_beside_the_shards_equal_the_engines(tmp_path):
    found = ranks(2).run(broken_off_weights, str(tmp_path))[0]
    written = commit.newest(tmp_path).weights()
    assert written.keys() == found.keys() and all(torch.equal(written[k], found[k]) for k in found)


def broken_off_weights(run_dir: str):
    engine = an_engine(3)
    updates(engine, 0, 2)
    save(run_dir, engine, step=2, state={}, keep=2)
    return engine.full_weights()


@pytest.mark.cluster
def test_another_stage_is_refused_with_the_remedy(tmp_path):
    ranks(2).run(save_one, 1, str(tmp_path))
    with pytest.raises(Exception, match="train.zero=1"):
        ranks(2).run(load_one, 2, str(tmp_path))


@pytest.mark.cluster
def test_a_commit_that_cannot_be_converted_says_so_on_every_rank(tmp_path):
    ranks(2).run(save_one, 1, str(tmp_path))
    next(tmp_path.rglob("*rank_1*optim_states.pt")).write_bytes(b"torn")
    with pytest.raises(Exception, match="was written by 2 workers and could not be converted for 1"):
        ranks(1).run(load_one, 1, str(tmp_path))


@pytest.mark.cluster
def test_stage_zero_resumes_at_another_world_size(tmp_path):
    ranks(2).run(save_one, 0, str(tmp_path))
    assert ranks(1).run(load_one, 0, str(tmp_path)) == [1]


def save_one(zero: int, run_dir: str) -> None:
    engine = an_engine(zero)
    updates(engine, 0, 1)
    save(run_dir, engine, step=1, state={}, keep=2)


def load_one(zero: int, run_dir: str) -> int:
    return commit.load(commit.newest(run_dir), an_engine(zero))["step"]


@pytest.mark.cluster
@pytest.mark.parametrize("zero", [0, 2, 3])
def test_scale_is_clamped_in_place_after_each_step(zero):
    """Pushed against its bound for long, the parameter itself must not run away, or it would take as long to return."""
    for log in ranks(2).run(pushed_scale, zero):
        assert log <= 4.60517 + 1e-5


def pushed_scale(zero: int) -> float:
    import deepspeed

    engine = an_engine(zero, start=99.0)
    for index in range(5):
        embedded, scales = engine({"image": torch.zeros(2, 3, 8, 8)})
        engine.backward(-scales["logit"][0].sum() + 0 * embedded["image"][0].sum())
        engine.step(index)
    log = engine.model.scales["logit"].log
    with deepspeed.zero.GatheredParameters([log], enabled=zero == 3):
        return log.item()


def make(folder, step: int, whole: bool = True) -> None:
    path = folder / "checkpoints" / f"step-{step:08d}"
    path.mkdir(parents=True)
    (path / "state.json").write_text(json.dumps({"step": step}))
    if whole:
        (path / "COMMIT").write_text("{}")


def test_newest_is_the_last_whole_one(tmp_path):
    assert commit.newest(tmp_path) is None
    make(tmp_path, 9)
    make(tmp_path, 100)
    make(tmp_path, 200, whole=False)
    assert commit.newest(tmp_path).step == 100


def test_an_unreadable_state_is_named(tmp_path):
    make(tmp_path, 1)
    (tmp_path / "checkpoints" / "step-00000001" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="state.json cannot be read"):
        commit.newest(tmp_path).state()


@pytest.mark.cluster
def test_pruning_keeps_the_newest_and_removes_what_a_crash_left(tmp_path):
    make(tmp_path, 7, whole=False)
    ranks(1).run(save_many, str(tmp_path))
    assert [c.step for c in commit.commits(tmp_path)] == [2, 3]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000002", "step-00000003"]


def save_many(run_dir: str) -> None:
    engine = an_engine(0)
    for step in (1, 2, 3):
        save(run_dir, engine, step=step, state={}, keep=2)


def remembering(run_dir: str, world: int):
    """A queue that took one batch is committed; returns what an empty one finds in that commit."""
    from distpre import group
    from distpre.contrast.banks import Queue

    engine, queue = an_engine(0), Queue(6)
    if world == 2:
        queue.push(torch.eye(4)[2 * group.rank() :][:2] + group.rank(), torch.ones(2, dtype=torch.bool))
        save(run_dir, engine, step=1, state={}, keep=2, memories={"match.bank": queue})
    found = Queue(6)
    commit.load(commit.newest(run_dir), engine, {"match.bank": found})
    return sorted(group.gathered(found.columns(torch.zeros(1, 4)).vectors).tolist()), found.pushed


@pytest.mark.cluster
def test_what_terms_remember_is_in_the_commit_and_is_dealt_anew_at_another_world_size(tmp_path):
    expect = sorted([*torch.eye(4)[:2].tolist(), *(torch.eye(4)[2:] + 1).tolist()])
    assert ranks(2).run(remembering, str(tmp_path), 2) == [(expect, 4)] * 2
    assert ranks(1).run(remembering, str(tmp_path), 1) == [(expect, 4)]
    (tmp_path / "checkpoints/step-00000001/memory/match.bank-00001.safetensors").unlink()
    with pytest.raises(AssertionError, match="has 1 parts of match.bank for 2 workers"):
        ranks(1).run(remembering, str(tmp_path), 1)
