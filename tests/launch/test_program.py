"""The driver as a process of its own: what is left when it ends, however it ends."""

import os
import signal
import time

import psutil
import pytest

pytestmark = pytest.mark.cluster


def marked(mark):
    """Living processes that a driver with this MARK has brought into the world."""
    alive = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return alive


def test_interrupt_of_the_whole_terminal_commits_and_leaves_nothing(run_driver, recipe, tmp_path):
    driver = run_driver("until_stopped", recipe, tmp_path, mark=str(tmp_path))
    assert any("training" in line for line in driver.stdout)
    assert sum("fake_child" in command for command in marked(str(tmp_path))) == 2
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: every process of the foreground group gets it
    rest = driver.stdout.read()
    assert driver.wait() == 130 and "Traceback" not in rest
    assert marked(str(tmp_path)) == []
    assert [(tmp_path / "run" / f"committed-{rank}").read_text() for rank in (0, 1)] == ["interrupt", "interrupt"]


def test_nothing_outlives_a_killed_driver(run_driver, recipe, tmp_path):
    driver = run_driver("until_stopped", recipe, tmp_path, mark=str(tmp_path))
    assert any("training" in line for line in driver.stdout)
    driver.kill()
    driver.wait()
    until = time.monotonic() + 30
    while (left := marked(str(tmp_path))) and time.monotonic() < until:
        time.sleep(0.2)
    assert left == []
