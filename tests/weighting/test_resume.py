"""NEVLP killed inside epochs and resumed by other numbers of ranks: ε and the losses of the unbroken run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.ranks import RankError, ranks

RECIPE = str(Path(__file__).parents[2] / "recipes/robust/nevlp_vectors.yaml")
STEPS = 60  # 7.5 epochs of 400 samples; a commit every 5 steps is inside an epoch as a rule


def trained(folder: str, run_dir: str, until: int) -> None:
    """To the end, or until the ranks are killed after step `until`, which is committed never."""
    from distpre.group import wait_for_all
    from distpre.recipe import load, prepare
    from distpre.runtime.engine import join_group
    from distpre.runtime.run import Run
    from distpre.train import train

    os.chdir(folder)
    words = [f"run.dir={run_dir}", "data.prepare.first=400", "train.batch=50", f"train.steps={STEPS}"]
    words += ["train.commit_every=5", "train.log_every=1", "evaluate=null", "weighting.noise.warm_up=4"]
    words += ["train.optimiser.lr={cosine: {start: 3e-3, end: 0, warm_up: 5}}", "launch.workers={min: 1, max: 2}"]
    recipe = load(RECIPE, words)
    if os.environ["RANK"] == "0":
        prepare(recipe, print)
    join_group()
    wait_for_all()
    advance = Run.advance

    def killed(run: Run, *arguments) -> None:
        advance(run, *arguments)
        if run.step == until < STEPS:
            run.settle()  # so that it is known which commit is the last
            os.kill(os.getpid(), signal.SIGKILL)

    Run.advance = killed
    train(recipe, sink=lambda record: None, stop=lambda: None)


def remembered(run: Path) -> torch.Tensor:
    """(400, 2) losses and ε of the last commit, whoever wrote it."""
    parts = sorted((run / f"checkpoints/step-{STEPS:08d}/memory").glob("state.noise-*"))
    return torch.cat([load_file(part)["values"][:, :2] for part in parts])


@pytest.mark.cluster
def test_epsilon_and_losses_of_a_killed_and_resized_run_are_the_unbroken_ones(tmp_path):
    ranks(2).run(trained, str(tmp_path), "whole", STEPS)
    for workers, until in ((2, 37), (1, 43), (2, 52)):
        with pytest.raises(RankError):
            ranks(workers).run(trained, str(tmp_path), "broken", until)
    ranks(1).run(trained, str(tmp_path), "broken", STEPS)
    runs = (tmp_path / "whole", tmp_path / "broken")
    whole, broken = ([json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()] for run in runs)
    assert [x["step"] for x in broken] == list(range(1, STEPS + 1))
    assert [x["loss"] for x in broken] == pytest.approx([x["loss"] for x in whole], rel=1e-5)
    one, other = (remembered(run) for run in runs)
    assert (one[:, 1] > 0.5).sum() > 20 and (one[:, 1] < 0.5).sum() > 20, "otherwise nothing was to be kept"
    torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
