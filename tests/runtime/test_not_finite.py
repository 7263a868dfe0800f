"""A run whose third batch holds one sample that is not finite, on rank 1 of 2."""

import json
import os
from pathlib import Path

import pytest
import torch

from distpre.errors import NumericError
from distpre.runtime import commit
from tests.ranks import ranks

RECIPE = str(Path(__file__).parents[2] / "recipes/quickstart.yaml") + ":small"


def trained(folder: str, policy: str, bad_steps: list[int]) -> tuple[list[str], str, str | None]:
    """What rank 0 told, what this rank raised, and the key of the bad sample where it is this rank's."""
    from distpre import group
    from distpre.recipe import load, prepare
    from distpre.runtime.engine import join_group
    from distpre.runtime.run import Run
    from distpre.train import train

    os.chdir(folder)
    words = ["run.dir=run", "launch.workers=2", "data.workers=0", "evaluate=null", "train.log_every=1", "train.zero=2"]
    recipe = load(RECIPE, [*words, "train.steps=24", "train.commit_every=1000", f"train.on_nan={policy}"])
    if os.environ["RANK"] == "0":
        prepare(recipe, print)
    join_group()
    group.wait_for_all()
    batches, key, told = Run.batches, [None], []

    def spoiled(run: Run):
        for batch in batches(run):
            if run.step + 1 in bad_steps and group.rank() == 1:
                batch.views["image"][2] = float("nan")
                key[0] = run.loader.source.where(int(batch.ordinal[2]))[2]
            yield batch

    Run.batches = spoiled
    try:
        train(recipe, sink=told.append, stop=lambda: None)
    except NumericError as e:
        return [t["text"] for t in told if t["kind"] == "note"], str(e), key[0]
    return [t["text"] for t in told if t["kind"] == "note"], "", key[0]


@pytest.mark.cluster
def test_stop_ends_the_run_on_every_rank_with_term_rank_step_and_sample(tmp_path):
    (_, raised, _), (_, other, key) = ranks(2).run(trained, str(tmp_path), "stop", [3])
    assert raised == other and key
    assert f"The loss of step 3 is not finite: match is nan on rank 1 (samples {key})." in raised
    assert "train.on_nan=skip" in raised and commit.newest(tmp_path / "run") is None


@pytest.mark.cluster
def test_skip_passes_the_step_over_and_says_so_but_not_for_ever(tmp_path):
    (told, raised, _), (_, _, key) = ranks(2).run(trained, str(tmp_path), "skip", [3])
    assert not raised and [t for t in told if "not finite" in t] == [
        f"The loss of step 3 is not finite: match is nan on rank 1 (samples {key}). No weight was changed."
    ]
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [step for step, loss in enumerate(losses, 1) if loss is None] == [3] and len(losses) == 24
    assert all(torch.isfinite(w).all() for w in commit.newest(tmp_path / "run").weights().values())
    other = tmp_path / "other"
    other.mkdir()
    (other / "runs").symlink_to(tmp_path / "runs")
    found = ranks(2).run(trained, str(other), "skip", list(range(2, 25)))
    assert all(
        "The loss of step 21 is not finite" in raised and "20 steps in a row" in raised for _, raised, _ in found
    )
