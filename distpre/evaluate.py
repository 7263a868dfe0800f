"""`python -m distpre.evaluate RUN`: the tables of a run's recipe at its newest commit, on one process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from distpre import group
from distpre.errors import CheckpointError, program
from distpre.recipe import Recipe, resolved
from distpre.recipe.stages import stage_of
from distpre.runtime import build, commit
from distpre.runtime.engine import join_group, leave_group
from distpre.runtime.evaluation import Evaluation, record
from distpre.runtime.report import Screen


def evaluate(run_dir: str | Path) -> dict[str, Any]:
    """An "eval" record of RUN. Raises CheckpointError where there is no commit, or no `evaluate` in the recipe."""
    recipe, model, step = trained(run_dir, note)
    if recipe.evaluate is None:
        raise CheckpointError(f"{run_dir}/recipe.yaml has no `evaluate`.", "Add one, with `data` and `tables`.")
    evaluation = Evaluation.of(recipe, model, build.views(recipe), note)
    return record(step, evaluation.run())


def trained(run_dir: str | Path, note: Callable[[str], None]) -> tuple[Recipe, nn.Module, int]:
    """A run's recipe, at its newest whole commit the towers, and the commit's step. Raises CheckpointError."""
    recipe = resolved(Path(run_dir, "recipe.yaml").read_text())
    newest, _ = commit.newest_whole(run_dir, note, commit.WEIGHTS)
    if newest is None:
        raise CheckpointError(f"{run_dir} holds no commit.", "Train it first, or name another run folder.")
    recipe = stage_of(recipe, newest.step).recipe
    model = build.model(recipe, fresh=False)
    model.load_state_dict(newest.weights())
    return recipe, model.to(group.device()), newest.step


def note(text: str) -> None:
    print(text, file=sys.stderr)


@program
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m distpre.evaluate", description=__doc__)
    parser.add_argument("run", help="a run folder")
    join_group()
    result = evaluate(parser.parse_args().run)
    if group.rank() == 0:
        Screen().show(result)
    leave_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
