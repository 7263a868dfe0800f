"""python -m tools.bench commit [--pairs 5] [--steps 100] [--batch 64] [--require]

What a commit costs the training that goes on beside it: blocks of `--steps` steps of the quickstart's model, in turn
without a commit and with one begun at the block's first step, in one run. Prints medians and their ratio; with
--require it ends with 1 when committing every `--steps` steps costs 2 % or more.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from distpre.recipe import load
from distpre.runtime.engine import join_group
from distpre.runtime.folder import RunFolder
from distpre.runtime.run import Run, runs
from distpre.runtime.update import update
from tools.shard.digits import write

QUICKSTART = str(Path(__file__).parents[2] / "recipes/quickstart.yaml")
MOST = 1.02


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench commit", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--pairs", type=int, default=5, help="of blocks")
    parser.add_argument("--steps", type=int, default=100, help="in a block")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--require", action="store_true")
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        seconds, told = measure(Path(folder), asked.pairs, asked.steps, asked.batch)
    without, with_one = (statistics.median(seconds[commits]) for commits in (False, True))
    ratio = statistics.median(b / a for a, b in zip(seconds[False], seconds[True], strict=True))
    for commits, its in seconds.items():
        print(f"{'with a commit' if commits else 'without':14} {' '.join(f'{s:7.2f}' for s in its)} s")
    print(f"{asked.steps} steps: {without:.2f} s without, {with_one:.2f} s with a commit; median ratio {ratio:.4f}")
    waited, written = (statistics.median(record[key] for record in told) for key in ("waited", "seconds"))
    print(f"a commit: training waited {waited:.3f} s, it was whole after {written:.2f} s")
    return int(asked.require and ratio >= MOST)


def measure(folder: Path, pairs: int, steps: int, batch: int) -> tuple[dict[bool, list[float]], list[dict]]:
    """({with a commit: seconds of each block}, what was recorded of the commits)."""
    write(str(folder / "digits"))
    words = ["data.prepare=null", f"data.train.shards={folder}/digits/train-{{000..003}}.tar", "evaluate=null"]
    words += ["launch.workers=1", f"run.dir={folder}/run", f"train.batch={batch}"]
    recipe = load(QUICKSTART, [*words, f"train.steps={2 * pairs * steps + steps}", "train.log_every=1000000"])
    join_group()
    told: list[dict] = []
    training = next(runs(recipe, RunFolder(recipe.run.dir), told.append, lambda: None))
    training.open()
    batches = training.batches()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    block(training, batches, steps, commits=False)  # to warm up
    for pair in range(pairs):
        for commits in (False, True) if pair % 2 else (True, False):
            seconds[commits].append(block(training, batches, steps, commits))
            training.settle()
    training.close()
    return seconds, [record for record in told if record["kind"] == "commit"]


def block(training: Run, batches, steps: int, commits: bool) -> float:
    began = time.perf_counter()
    if commits:
        training.commit()
    for _ in range(steps):
        batch = next(batches)
        result = update(training.engine, training.objective, batch, index=training.step, seed=0)
        training.advance(batch, result)
    return time.perf_counter() - began
