"""python -m tools.chaos.kills [--kills 50] [--ranks 2] [--zero 1] [--seed 0]

Trains the quickstart's small variant twice on this machine, once undisturbed and once with a rank killed by SIGKILL
again and again at random moments (while it starts, steps, or writes a commit), each time started again from what is on
the disk. Ends with 0 where every loss, weight and optimiser state of the two is the same, bit for bit. Needs no root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch

from distpre.recipe import Recipe, load, resolved
from distpre.runtime.commit import MARK, commits, newest
from tools.port import free_port

RECIPE = str(Path(__file__).parents[2] / "recipes/quickstart.yaml") + ":small"
STEPS_A_KILL, COMMIT_EVERY = 6, 5
STARTING = 0.15  # of the kills come before the first step
_SERVER = multiprocessing.get_context("forkserver")


@dataclass
class Kills:
    """Where they hit, and the steps that had to be done again."""

    starting: int = 0
    committing: int = 0
    stepping: int = 0
    repeated: int = 0
    resumed_at: set[int] = field(default_factory=set)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.chaos.kills", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--zero", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        kills, wrong = killed(Path(folder), asked.kills, asked.ranks, asked.zero, random.Random(asked.seed), print)
    print(
        f"{asked.kills} kills: {kills.starting} before the first step, {kills.committing} while a commit was written, "
        f"{kills.stepping} else; {kills.repeated} steps repeated, resumed at {len(kills.resumed_at)} different steps"
    )
    print("\n".join(wrong) or "losses, weights and optimiser states: the unbroken run's, bit for bit")
    return int(bool(wrong))


def killed(folder: Path, count: int, ranks: int, zero: int, rng: random.Random, say=lambda text: None):
    """(where `count` kills hit, what differs from the unbroken run at the end)."""
    from tools.shard.digits import write

    write(str(folder / "digits"))
    words = [f"data.train.shards={folder}/digits/train-{{000..003}}.tar", "data.prepare=null", "evaluate=null"]
    words += [f"launch.workers={ranks}", f"train.zero={zero}", "train.batch=24", "train.log_every=1"]
    words += [f"train.steps={STEPS_A_KILL * (count + 1)}", f"train.commit_every={COMMIT_EVERY}"]
    whole, broken = (load(RECIPE, [*words, f"run.dir={folder / name}"]) for name in ("whole", "broken"))
    with free_port() as port:
        Group(whole, ranks, port).ends()
    kills = Kills()
    for number in range(count):
        with free_port() as port:
            group = Group(broken, ranks, port)
            try:
                early = rng.random() < STARTING
                if early or not group.steps(rng.randint(1, 2 * COMMIT_EVERY)):
                    time.sleep(rng.uniform(0, 1.5))
                else:
                    time.sleep(rng.uniform(0, 2 * group.step_seconds))
                group.kill(rng.randrange(ranks))
            finally:
                group.end()
        at, since = group.seen, commits(broken.run.dir)
        kept = since[-1].step if since else 0
        kills.starting += not at
        kills.committing += bool(at) and half_written(broken)
        kills.stepping += bool(at) and not half_written(broken)
        kills.repeated += max(0, at - kept)
        kills.resumed_at.add(kept)
        say(f"kill {number + 1} of {count}: after step {at}, the newest commit is of step {kept}")
    with free_port() as port:
        Group(broken, ranks, port).ends()
    return kills, differences(whole, broken)


class Group:
    """The ranks of a run, forked from one process that has the heavy libraries imported."""

    def __init__(self, recipe: Recipe, ranks: int, port: int):
        _SERVER.set_forkserver_preload(["tools.preload"])
        self.said, theirs = _SERVER.Pipe(duplex=False)
        self.processes = [
            _SERVER.Process(target=_rank, args=(theirs, recipe.dump(), rank, ranks, port)) for rank in range(ranks)
        ]
        for process in self.processes:
            process.start()
        theirs.close()
        self.seen, self.step_seconds = 0, 0.1

    def steps(self, count: int) -> bool:
        """Whether so many steps were done; waits for them."""
        last = time.monotonic()
        for _ in range(count):
            try:
                self.seen, now = self.said.recv(), time.monotonic()
            except EOFError:
                return False
            self.step_seconds, last = now - last, now
        return True

    def kill(self, rank: int) -> None:
        self.processes[rank].kill()
        with contextlib.suppress(EOFError):
            while self.said.poll():
                self.seen = self.said.recv()

    def end(self) -> None:
        """What a supervisor does with the other ranks."""
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.join()

    def ends(self) -> None:
        """Waits until all ranks are through. Raises RuntimeError if one failed."""
        while self.steps(1):
            pass
        for process in self.processes:
            process.join()
        if any(process.exitcode for process in self.processes):
            raise RuntimeError("a rank failed: what it said stands above")


def _rank(end: Connection, recipe: str, rank: int, ranks: int, port: int) -> None:
    from distpre.train import train

    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}

    def sink(record: dict[str, Any]) -> None:
        if record["kind"] == "step":
            end.send(record["step"])

    train(resolved(recipe), sink=sink, stop=lambda: None)


def half_written(recipe: Recipe) -> bool:
    return any(not (path / MARK).exists() for path in Path(recipe.run.dir, "checkpoints").glob("step-*"))


def differences(whole: Recipe, broken: Recipe) -> list[str]:
    """What differs, a line each: the losses, and every tensor of the last commit."""
    one, other = (newest(recipe.run.dir) for recipe in (whole, broken))
    wrong = [] if losses(whole) == losses(broken) else ["the losses differ"]
    if one.step != other.step:
        return [*wrong, f"the last commits are of steps {one.step} and {other.step}"]
    ours, theirs = one.weights(), other.weights()
    wrong += [f"weights of {name} differ" for name in ours if not torch.equal(ours[name], theirs[name])]
    for file in sorted((one.path / "engine").iterdir()):
        a, b = (torch.load(c.path / "engine" / file.name, weights_only=False) for c in (one, other))
        wrong += [f"{file.name}: {name} differs" for name, equal in leaves(a, b) if not equal]
    return wrong


def losses(recipe: Recipe) -> list[tuple[int, float]]:
    lines = Path(recipe.run.dir, "metrics.jsonl").read_text().splitlines()
    return [(record["step"], record["loss"]) for record in map(json.loads, lines)]


def leaves(a: Any, b: Any, name: str = ""):
    """(name, whether equal) of every tensor and number in two nests."""
    if isinstance(a, dict):
        for key in a.keys() | b.keys():
            yield from leaves(a.get(key), b.get(key), f"{name}/{key}")
    elif isinstance(a, list | tuple):
        yield f"{name}: length", len(a) == len(b)
        for i, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from leaves(x, y, f"{name}/{i}")
    elif isinstance(a, torch.Tensor):
        yield name, torch.equal(a, b)
    elif isinstance(a, int | float | str | type(None)):
        yield name, a == b


if __name__ == "__main__":
    sys.exit(main())
