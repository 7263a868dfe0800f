"""The driver as a process of its own: what is left when it ends, however it ends."""

import os
import signal

import psutil
import pytest

pytestmark = pytest.mark.cluster


@pytest.fixture
def training(run_driver, recipe, tmp_path):
    """A driver whose workers train, and every process below it, each with its command line."""
    driver = run_driver("until_stopped", recipe, tmp_path)
    assert any("training" in line for line in driver.stdout)
    below = {p: " ".join(p.cmdline()) for p in psutil.Process(driver.pid).children(recursive=True)}
    assert sum("ray::Worker" in c for c in below.values()) == 2 and sum("fake_child" in c for c in below.values()) == 2
    return driver, below


def alive(processes, seconds):
    """Those still running after at most `seconds`; a zombie that nobody has waited for is not."""
    _, left = psutil.wait_procs(processes, timeout=seconds)
    return [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


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
    # Ray's two agents of a node take a minute to give up on a head that is gone; nothing else may.
    ours = [process for process, command in below.items() if "Agent" not in command]
    assert len(ours) == len(below) - 2
    assert alive(ours, seconds=20) == []
