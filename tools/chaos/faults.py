"""The faults, each with what brings the hosts back as they were."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from tools.chaos.hosts import RayCluster
from tools.chaos.run import Line, Training


@dataclass(frozen=True)
class Fault:
    """does(cluster, training) at once; mends(cluster) when training goes on (at_once: as soon as it is done, as a
    service manager would). told: the line in which the launcher says what it saw."""

    does: Callable[[RayCluster, Training], None]
    mends: Callable[[RayCluster], None] = lambda cluster: None
    told: str = "restarting from the last commit"
    at_once: bool = False


def _worker_killed(cluster: RayCluster, training: Training) -> None:
    training.worker(2).kill()


def _worker_hung(cluster: RayCluster, training: Training) -> None:
    training.worker(2).send_signal(signal.SIGSTOP)


def _raylet_killed(cluster: RayCluster, training: Training) -> None:
    for process in cluster.find(2, "raylet/raylet"):
        process.kill()


def _host_killed(cluster: RayCluster, training: Training) -> None:
    cluster.hosts.kill(3)


def _network_cut(cluster: RayCluster, training: Training) -> None:
    cluster.hosts.cut(3)


def _driver_killed(cluster: RayCluster, training: Training) -> None:
    training.driver().kill()


def _head_restarted(cluster: RayCluster, training: Training) -> None:
    for process in [*cluster.find(1, "gcs_server"), *cluster.find(1, "raylet/raylet")]:
        process.kill()


def _reboot(*which: int) -> Callable[[RayCluster], None]:
    def mend(cluster: RayCluster) -> None:
        for i in which:
            cluster.hosts.mend(i)
            cluster.hosts.kill(i)
            cluster.hosts.boot(i)
            cluster.start(i)

    return mend


def _head_again(cluster: RayCluster) -> None:
    time.sleep(2)  # `ray start --block` of the old head ends
    cluster.start(1)
    _reboot(2, 3)(cluster)


FAULTS = {
    "worker killed (SIGKILL)": Fault(_worker_killed),
    "worker hung (SIGSTOP)": Fault(_worker_hung),
    "raylet killed": Fault(_raylet_killed, _reboot(2)),
    "host dead": Fault(_host_killed, _reboot(3)),
    "host's network cut": Fault(_network_cut, _reboot(3)),
    "driver killed (SIGKILL)": Fault(_driver_killed, told="starting it again, from the last commit"),
    "head restarted": Fault(_head_restarted, _head_again, "starting it again, from the last commit", at_once=True),
}


@dataclass(frozen=True)
class Trial:
    """detected, back: seconds from the fault to the launcher's line, and to the next step; repeated: steps done twice;
    told: that line."""

    detected: float
    back: float
    repeated: int
    told: str


def trial(fault: Fault, cluster: RayCluster, training: Training) -> Trial:
    """One fault in a healthy run; returns when the hosts are as before and training has their workers again."""
    step, began = training.last_step(), time.time()
    fault.does(cluster, training)
    if fault.at_once:
        fault.mends(cluster)
    told = training.first(lambda line: fault.told in line.text, began)
    step = max(step, *(line.step or 0 for line in training.lines if line.at <= told.at))
    back = training.first(lambda line: line.step is not None, told.at)
    if not fault.at_once:
        fault.mends(cluster)
    healthy(training, back.at)
    return Trial(told.at - began, back.at - began, step + 1 - back.step, told.text)


def healthy(training: Training, since: float, workers: int = 3) -> None:
    """Until all workers train again and have made a commit."""

    def all_of_them(line: Line) -> bool:
        return line.text.startswith(f"{workers} workers on ")

    starts = [line for line in training.lines if " on cpu, global batch" in line.text]
    start = starts[-1] if starts and all_of_them(starts[-1]) else training.first(all_of_them, since)
    committed = training.first(lambda line: line.text.startswith("committed step"), start.at)
    training.first(lambda line: (line.step or 0) > 0, max(committed.at, since))
