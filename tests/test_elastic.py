"""One run on 3, then 1, then 2 workers, against the run that stayed at 3."""

import json
from pathlib import Path

import pytest

from tests.ranks import ranks

RECIPE = str(Path(__file__).parents[1] / "recipes/quickstart.yaml:small")


def part(run: str, digits: str, until: int) -> int:
    """Trains to step `until`, and commits; the number of micro-batches."""
    from distpre.recipe import load
    from distpre.runtime.engine import join_group
    from distpre.runtime.folder import RunFolder
    from distpre.runtime.run import runs
    from distpre.train import run_updates

    recipe = load(
        RECIPE,
        ["launch.workers={min: 1, max: 3}", "train.zero=0", "train.batch=24", "train.steps=6", "train.log_every=1"]
        + [f"run.dir={run}", f"data.train.shards={digits}/train-{{000..003}}.tar", "data.workers=0"]
        + ["evaluate=null", "data.prepare=null", "train.commit_every=1000"],
    )
    join_group()
    asked: list[int] = []

    def stop() -> str | None:
        asked.append(0)
        return "resize" if len(asked) + first == until else None

    training = next(runs(recipe, RunFolder(recipe.run.dir), lambda record: None, stop))
    training.open()
    first, micro_batches = training.step, training.engine.accumulation
    run_updates(training)
    training.close()
    return micro_batches


@pytest.mark.cluster
def test_a_run_that_changes_its_workers_keeps_its_losses(tmp_path):
    from tools.shard.digits import write

    digits = str(tmp_path / "digits")
    write(digits)
    whole, changed = str(tmp_path / "whole"), str(tmp_path / "changed")
    ranks(3).run(part, whole, digits, 6)
    assert [max(ranks(n).run(part, changed, digits, until)) for n, until in ((3, 2), (1, 4), (2, 6))] == [1, 3, 2]
    lines = [[json.loads(x) for x in Path(r, "metrics.jsonl").read_text().splitlines()] for r in (whole, changed)]
    assert [x["step"] for x in lines[1]] == [1, 2, 3, 4, 5, 6]
    assert [x["loss"] for x in lines[1]] == pytest.approx([x["loss"] for x in lines[0]], rel=1e-6)
