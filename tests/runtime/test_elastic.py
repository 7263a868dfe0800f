"""A run broken off and taken up by other numbers of workers is the unbroken run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from tests.ranks import ranks

REPOSITORY = Path(__file__).parents[2]
STEPS = 10


def trained(folder: str, run_dir: str, zero: int, until: int) -> None:
    """Steps of the quickstart's small variant; a step after `until` is never committed, as if the run were killed."""
    from distpre.group import wait_for_all
    from distpre.recipe import load, prepare
    from distpre.runtime.engine import join_group
    from distpre.runtime.run import Run
    from distpre.train import train

    os.chdir(folder)
    words = [f"run.dir={run_dir}", "launch.workers=4", "data.workers=0", "evaluate=null", "train.log_every=1"]
    words += [f"train.steps={STEPS}", "train.commit_every=2", f"train.zero={zero}", "train.batch=20"]
    recipe = load(f"{REPOSITORY / 'recipes/quickstart.yaml'}:small", words)
    if os.environ["RANK"] == "0":
        prepare(recipe, print)
    join_group()
    wait_for_all()

    advance = Run.advance

    def killed(run: Run, *arguments) -> None:
        advance(run, *arguments)
        if run.step == until < STEPS:
            raise InterruptedError

    Run.advance = killed
    try:
        train(recipe, sink=lambda record: None, stop=lambda: None)
    except InterruptedError:
        return
    assert until == STEPS


def trace(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def leaves(run: Path) -> dict[str, torch.Tensor]:
    """Every parameter and moment that the last commit holds, whatever number of workers wrote it."""
    from distpre.runtime.commit import newest
    from distpre.runtime.engine import universal_copy

    out = run / "universal"
    assert universal_copy(newest(run).path / "engine", out) is None
    found = {}
    for file in sorted((out / "zero").rglob("*.pt")):
        held = torch.load(file, weights_only=False)
        value = held["param"] if isinstance(held, dict) and "param" in held else held
        if isinstance(value, torch.Tensor):
            found[str(file.relative_to(out))] = value
    return found


@pytest.mark.cluster
@pytest.mark.parametrize("zero", [1, 3])
def test_4_2_3_1_4_workers_with_kills_between_are_the_unbroken_run(zero, tmp_path):
    ranks(4).run(trained, str(tmp_path), "whole", zero, STEPS)
    for workers, until in ((4, 3), (2, 5), (3, 7), (1, 9), (4, STEPS)):  # each loses the step after its last commit
        ranks(workers).run(trained, str(tmp_path), "broken", zero, until)
    whole, broken = trace(tmp_path / "whole"), trace(tmp_path / "broken")
    assert [r["step"] for r in broken] == [r["step"] for r in whole] == list(range(1, STEPS + 1))
    for a, b in zip(whole, broken, strict=True):
        assert abs(a["loss"] - b["loss"]) <= 1e-6 * abs(a["loss"]), a["step"]
    one, other = leaves(tmp_path / "whole"), leaves(tmp_path / "broken")
    assert one.keys() == other.keys() and any("exp_avg_sq" in name for name in one)
    for name, value in one.items():
        value, found = value.double(), other[name].double()
        if (
            "in_proj_bias" in name and value.ndim
        ):  # a key's bias has gradient 0, and Adam makes whole steps of its rounding
            value, found = (x.unflatten(0, (3, -1))[[0, 2]] for x in (value, found))
        assert (found - value).norm() <= 1e-4 * value.norm().clamp(min=1e-12), name


def resaved(run_dir: str, zero: int, fresh: bool) -> None:
    from distpre.runtime import commit
    from tests.runtime.test_commit import an_engine, save, updates

    engine = an_engine(zero)
    if fresh:
        updates(engine, 0, 3)
    else:
        commit.load(commit.newest(run_dir), engine)
    step = 3 if fresh else commit.newest(run_dir).step + 1
    save(run_dir, engine, step=step, state={}, keep=9)


@pytest.mark.cluster
@pytest.mark.parametrize("zero", [2, 3])
def test_no_bit_of_weights_or_moments_changes_when_other_numbers_of_workers_take_over(zero, tmp_path):
    ranks(4).run(resaved, str(tmp_path), zero, True)
    first = leaves(tmp_path)
    for workers in (2, 3, 1, 4):
        ranks(workers).run(resaved, str(tmp_path), zero, False)
    last = leaves(tmp_path)
    assert first.keys() == last.keys() and any("exp_avg_sq" in name for name in first)
    assert all(torch.equal(last[name], value) for name, value in first.items())
