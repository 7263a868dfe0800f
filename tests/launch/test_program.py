"""The driver as a process of its own: what is left when it ends, however it ends."""

import contextlib
import os
import signal
import time

import psutil
import pytest

from tests.processes import alive

pytestmark = pytest.mark.cluster


@pytest.fixture
def training(run_driver, recipe, tmp_path):
    """A driver whose workers train, and every process below it, each with its command line."""
    driver = run_driver("until_stopped", recipe, tmp_path)
    assert any("training" in line for line in driver.stdout)
    until = time.monotonic() + 60
    # Ray's two agents of a node call themselves so when they have started.
    while (below := commands(driver.pid)) and time.monotonic() < until:
        if [sum(what in c for c in below.values()) for what in ("ray::Worker", "fake_child", "Agent")] == [2, 2, 2]:
            return driver, below
        time.sleep(0.1)
    raise AssertionError(below)


def commands(pid: int) -> dict[int, str]:
    """{pid: command line} of every process below one."""
    found = {}
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found[process.pid] = " ".join(process.cmdline())
    return found


def test_interrupt_of_the_whole_terminal_commits_and_leaves_nothing(training, tmp_path):
    driver, below = training
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: every process of the foreground group gets it
    rest = driver.stdout.read()
    assert driver.wait() == 130 and "Traceback" not in rest
    assert alive(below, seconds=0) == []
    assert [(tmp_path / "run" / f"committed-{rank}").read_text() for rank in (0, 1)] == ["interrupt", "interrupt"]


def test_no_worker_outlives_a_killed_driver(training):
    driver, below = training
    driver.kill()
    driver.wait()
    # Ray's agents take a minute to give up on a head that is gone; nothing else may.
    assert alive([pid for pid, command in below.items() if "Agent" not in command], seconds=20) == []
