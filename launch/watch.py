"""The process at the terminal: passes signals on to the driver, and starts it again when it is lost."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

import psutil

from distpre.runtime.signals import EXIT_STATUS
from launch.arguments import REPOSITORY
from launch.nodes import answers

HEAD_LOST = 69  # how the driver ends when the cluster has gone: EX_UNAVAILABLE
_HEAD_SECONDS = 600.0  # to wait for the cluster to come back
_AT_ONCE, _LIVED_SECONDS = 3, 120.0  # this many drivers in a row may be lost that lived no longer
_PASSED_ON = {signal.SIGTERM: "terminate", signal.SIGUSR1: "usr1"}


def watch(command: list[str], address: str | None) -> int:
    """Runs `command` to its end, again whenever it is killed or loses the head at `address`; its exit status."""
    lost = 0
    while True:
        began = time.monotonic()
        status, asked = _run(command)
        if asked and status < 0:  # it came too early or too late to be heard
            return EXIT_STATUS[asked]
        if asked or (status >= 0 and status != HEAD_LOST):
            return status
        lost = lost + 1 if time.monotonic() - began < _LIVED_SECONDS else 1
        how = "has lost the cluster" if status == HEAD_LOST else f"was killed by {signal.Signals(-status).name}"
        if lost > _AT_ONCE:
            print(f"error: the driver {how}, for the {lost}th time in a row; the last commit stands", file=sys.stderr)
            return 1
        print(f"the driver {how}; starting it again, from the last commit ({lost} of {_AT_ONCE})", flush=True)
        if address and not _back(address):
            nothing = f"nothing answered for {_HEAD_SECONDS:.0f} s; the last commit stands"
            print(f"error: --address {address}: {nothing}", file=sys.stderr)
            return 1


def end_with_parent() -> None:
    """This process gets SIGTERM when its parent ends: it commits, and does not train on unseen. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _run(command: list[str]) -> tuple[int, str | None]:
    """Its exit status, and the last signal that was passed on to it."""
    asked: list[int] = []
    early: list[int] = []
    driver: subprocess.Popen | None = None

    def pass_on(number: int, frame: object) -> None:
        asked.append(number)
        if driver is None:
            early.append(number)
        else:
            driver.send_signal(number)

    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    _adopt_orphans()
    before = psutil.Process().children()
    # An interrupt at a terminal reaches the driver by itself. SIG_IGN it would inherit, a handler it does not.
    handlers = {signal.SIGINT: lambda *ignored: None} | dict.fromkeys(_PASSED_ON, pass_on)
    handled = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        driver = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})
        for number in early:
            driver.send_signal(number)
        return driver.wait(), _PASSED_ON[asked[-1]] if asked else None
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
        _end([p for p in psutil.Process().children() if p not in before])


def _adopt_orphans() -> None:
    """What a killed driver leaves behind becomes this process's child: Ray's agents, for a minute. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


def _end(orphans: list[psutil.Process]) -> None:
    for orphan in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [*orphan.children(recursive=True), orphan]:
                process.kill()
    psutil.wait_procs(orphans, timeout=5)


def _back(address: str) -> bool:
    if address.count(":") != 1:  # "auto"
        return True
    host, port = address.split(":")
    until = time.monotonic() + _HEAD_SECONDS
    while not answers(host, int(port)):
        if time.monotonic() > until:
            return False
        time.sleep(1)
    return True
