"""The process at the terminal, around drivers that are a line of shell."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from launch.watch import HEAD_LOST, watch


def driver(tmp_path, *lives):
    """A driver that lives each of `lives` in turn."""
    count = tmp_path / "lives"
    numbered = " ".join(f"{i}) {life};;" for i, life in enumerate(lives, 1))
    return ["bash", "-c", f"echo >>{count}; case $(wc -l <{count}) in {numbered} esac"]


def test_a_status_of_its_own_is_passed_on(tmp_path):
    assert watch(driver(tmp_path, "exit 75"), None) == 75


def test_a_killed_driver_is_started_again(tmp_path, capfd):
    assert watch(driver(tmp_path, "kill -9 $$", "exit 0"), None) == 0
    assert (
        "the driver was killed by SIGKILL; starting it again, from the last commit (1 of 3)" in capfd.readouterr().out
    )


def test_a_driver_that_lost_the_cluster_is_started_when_it_answers_again(tmp_path, capfd):
    import socket

    with socket.socket() as head:
        head.bind(("127.0.0.1", 0))
        head.listen()
        address = f"127.0.0.1:{head.getsockname()[1]}"
        assert watch(driver(tmp_path, f"exit {HEAD_LOST}", "exit 0"), address) == 0
    assert "the driver has lost the cluster" in capfd.readouterr().out


def test_drivers_that_die_at_once_are_given_up(tmp_path, capfd):
    assert watch(driver(tmp_path, *["kill -9 $$"] * 9), None) == 1
    told = capfd.readouterr()
    assert told.out.count("starting it again") == 3 and "the last commit stands" in told.err


@pytest.mark.parametrize("trap", ["trap 'exit 75' USR1;", ""], ids=["heard", "too early to be heard"])
def test_usr1_reaches_the_driver_which_is_not_started_again(trap, tmp_path):
    up = tmp_path / "up"
    life = f"{trap} touch {up}; while :; do sleep 0.1; done"
    program = f"import sys; from launch.watch import watch; sys.exit(watch({driver(tmp_path, life)!r}, None))"
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, **path})
    while not up.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 75


def test_usr1_that_comes_while_the_driver_starts_is_passed_on(tmp_path, monkeypatch):
    up, start = tmp_path / "up", subprocess.Popen

    def slow(*words, **keywords):
        process = start(*words, **keywords)
        while not up.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)
        return process

    monkeypatch.setattr("launch.watch.subprocess.Popen", slow)
    before = signal.signal(signal.SIGUSR1, lambda *ignored: None)
    try:
        assert watch(driver(tmp_path, f"trap 'exit 75' USR1; touch {up}; while :; do sleep 0.1; done"), None) == 75
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
def test_nothing_outlives_the_driver(tmp_path):
    left = tmp_path / "left"
    assert watch(driver(tmp_path, f"(setsid sleep 60 & echo $! >{left}); kill -9 $$", "exit 0"), None) == 0
    assert not psutil.pid_exists(int(left.read_text()))
