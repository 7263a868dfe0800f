"""The training loop. `python -m distpre.train RECIPE`, alone or under torchrun or srun; launch/ calls train() the same.

torchrun --nproc_per_node 4 -m distpre.train recipes/quickstart.yaml train.steps=200
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from distpre.errors import DistpreError
from distpre.group import anywhere
from distpre.recipe import Recipe, load, prepare
from distpre.runtime.engine import join_group, leave_group
from distpre.runtime.folder import RunFolder
from distpre.runtime.report import Screen
from distpre.runtime.run import Run, runs
from distpre.runtime.signals import Stop, exit_status
from distpre.runtime.update import update


def run_updates(run: Run) -> bool:
    """A stage, from the newest commit to its last step; False if it was asked to stop before.

    A batch is this rank's part of the global batch; an update embeds it, contrasts it with the whole global batch,
    back-propagates and steps; advance makes it count; a commit makes it last.
    """
    recipe = run.recipe
    for batch in run.batches():
        result = update(run.engine, run.objective, batch, index=run.step, seed=recipe.seed)
        run.advance(batch, result)
        stopping = anywhere(run.stop() is not None)
        if recipe.evaluate and run.due(recipe.evaluate.every) and not stopping:
            run.evaluate()
        if run.due(recipe.train.commit_every) or stopping:
            run.commit(final=stopping)
        if stopping:
            return False
    run.finish()
    return True


def train(recipe: Recipe, *, sink: Callable[[dict[str, Any]], None], stop: Callable[[], str | None]) -> dict[str, Any]:
    """One process's part in a run, stage after stage; RANK, WORLD_SIZE, MASTER_* are set; resumes by itself.

    sink: gets rank 0's records (runtime/report.py). stop: None, or why to stop after the step in hand.
    Returns {"status": "finished" | "stopped", "step": n, "reason": why or None}.
    """
    join_group()
    folder = RunFolder(recipe.run.dir)
    try:
        for run in runs(recipe, folder, sink, stop):
            try:
                run.open()
                finished = run_updates(run)
            finally:
                run.close()
            if not finished:
                break
    finally:
        folder.release()
    leave_group()
    return {"status": "finished" if finished else "stopped", "step": run.step, "reason": stop()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m distpre.train", description=__doc__)
    parser.add_argument("recipe", help="a recipe's path, or path:variant")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example train.steps=200")
    arguments = parser.parse_args()
    first = os.environ.get("RANK", "0") == "0"
    try:
        # Under torchrun and srun it is they who say how many workers there are.
        world = f"launch.workers={os.environ.get('WORLD_SIZE', '1')}"
        recipe = load(arguments.recipe, [*arguments.overrides, world])
        prepare(recipe, lambda text: print(text, file=sys.stderr))
        with Screen() as screen, Stop() as stop:
            outcome = train(recipe, sink=screen.show, stop=stop)
            if first and outcome["status"] == "stopped":
                screen.say(f"stopped after step {outcome['step']}; the same command goes on")
    except DistpreError as e:
        if first or e.exit_status == 1:
            print(f"error: {e}", file=sys.stderr)
        return e.exit_status
    except Exception:
        print(f"rank {os.environ.get('RANK', '0')}:\n{traceback.format_exc()}", file=sys.stderr)
        return 1
    return exit_status(outcome)


if __name__ == "__main__":
    sys.exit(main())
