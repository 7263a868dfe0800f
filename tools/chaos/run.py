"""A training run on a cluster of hosts, as a person at its terminal sees it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tools.chaos.hosts import REPOSITORY, RayCluster

SHARED = ("data.prepare=null", "evaluate=null", "train.zero=0", "train.log_every=1", "launch.cpus_per_worker=1")


@dataclass(frozen=True)
class Line:
    at: float
    text: str

    @property
    def step(self) -> int | None:
        said = re.match(r"step (\d+)/", self.text)
        return int(said[1]) if said else None


class Training:
    """`python -m launch` of the quickstart's small variant on host 1, its lines kept with the time they came."""

    def __init__(self, cluster: RayCluster, *overrides: str):
        recipe = [str(REPOSITORY / "recipes/quickstart.yaml:small"), *SHARED, *overrides]
        self.cluster, self.lines = cluster, []
        self.process = cluster.run(
            1,
            *[sys.executable, "-m", "launch", *recipe, "--address", cluster.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for text in self.process.stdout:
            self.lines.append(Line(time.time(), text.rstrip()))

    def first(self, what: Callable[[Line], object], since: float, seconds: float = 180) -> Line:
        """The first line after `since` (wall clock) that is so. Raises TimeoutError with the last lines."""
        until = time.time() + seconds
        while time.time() < until and (self.process.poll() is None or self._found(what, since)):
            if found := self._found(what, since):
                return found
            time.sleep(0.05)
        raise TimeoutError("\n".join(["what was waited for did not come:", *(line.text for line in self.lines[-20:])]))

    def _found(self, what: Callable[[Line], object], since: float) -> Line | None:
        return next((line for line in list(self.lines) if line.at > since and what(line)), None)

    def last_step(self) -> int:
        return next((line.step for line in reversed(self.lines) if line.step is not None), 0)

    def driver(self) -> psutil.Process:
        return self.cluster.find(1, "launch.driver")[-1]

    def worker(self, host: int) -> psutil.Process:
        return next(p for p in self.cluster.find(host, "ray::Worker") if p.status() != psutil.STATUS_ZOMBIE)

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60) -> int:
        """Sends the launcher a signal and waits for its exit status."""
        launcher = next(p for p in self.cluster.find(1, "-m launch ") if "nsenter" not in p.cmdline()[0])
        launcher.send_signal(number)
        return self.process.wait(seconds)


def digits(folder: Path) -> str:
    """Writes the quickstart's shards there; the override that names them."""
    command = [sys.executable, "-m", "tools.shard", "digits", "--out", str(folder)]
    subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    return f"data.train.shards={folder}/train-{{000..003}}.tar"
