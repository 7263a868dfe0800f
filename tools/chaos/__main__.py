"""python -m tools.chaos [--trials 5] [--only TEXT] [--out table.md]

Three hosts in network namespaces of this machine, Ray across them, one training run (launch.workers from 1 to 3) that
every fault hits in turn. Prints a table of medians. Needs root, iproute2 and util-linux.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tools.chaos.faults import FAULTS, Trial, healthy, trial
from tools.chaos.hosts import cluster_of, missing
from tools.chaos.run import Training, digits

COMMIT_EVERY = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.chaos", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--trials", type=int, default=5, help="of each fault (default 5)")
    parser.add_argument("--only", default="", help="faults whose name has this text")
    parser.add_argument("--out", type=Path, help="a file for the table, in Markdown")
    arguments = parser.parse_args()
    if why := missing():
        print(f"error: tools.chaos {why}.", file=sys.stderr)
        return 2
    faults = {name: fault for name, fault in FAULTS.items() if arguments.only in name}
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        results, lost = measure(faults, arguments.trials, Path(folder))
    text = table(results, lost)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    return 0


def measure(faults: dict, trials: int, folder: Path) -> tuple[dict[str, list[Trial]], int]:
    """{fault: its trials}, and how many samples of the run were lost or seen twice."""
    shards = digits(folder / "digits")
    results: dict[str, list[Trial]] = {name: [] for name in faults}
    run = (f"run.dir={folder}/run", "train.batch=48", "train.steps=1000000", f"train.commit_every={COMMIT_EVERY}")
    with cluster_of(3, folder / "hosts") as cluster:
        training = Training(cluster, *run, shards, "launch.workers={min: 1, max: 3}")
        try:
            healthy(training, time.time())
            for _ in range(trials):
                for name, fault in faults.items():
                    time.sleep(random.uniform(0, 4))  # any moment between two commits
                    result = trial(fault, cluster, training)
                    results[name].append(result)
                    print(f"{name}: {result}", file=sys.stderr, flush=True)
        finally:
            training.end()
    return results, _lost(folder / "run" / "metrics.jsonl")


def _lost(metrics: Path) -> int:
    """Samples that the steps which count did not see, or saw twice; the loader itself ends a run whose epoch did not
    use every sample once."""
    seen = [json.loads(line) for line in metrics.read_text().splitlines()]
    expected = range(1, len(seen) + 1)
    return sum(48 for line, step in zip(seen, expected, strict=True) if line["step"] != step)


def table(results: dict[str, list[Trial]], lost: int) -> str:
    lines = [
        f"| fault | trials | detected in | back to training in | steps repeated of {COMMIT_EVERY} | samples lost |",
        "|---|---|---|---|---|---|",
    ]
    for name, trials in results.items():
        detected, back, repeated = ([getattr(t, field) for t in trials] for field in ("detected", "back", "repeated"))
        lines.append(
            f"| {name} | {len(trials)} | {_spread(detected)} s | {_spread(back)} s "
            f"| {statistics.median(repeated):.0f} (at most {max(repeated)}) | {lost} |"
        )
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    """The median, and the range."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    sys.exit(main())
