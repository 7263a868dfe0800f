"""Processes that a test has started, or that were started for it."""

import time
from collections.abc import Iterable

import psutil


def alive(pids: Iterable[int], seconds: float = 0) -> list[int]:
    """Those still running after at most `seconds`; a zombie that nobody has waited for is not."""
    until = time.monotonic() + seconds
    while (left := [pid for pid in pids if _runs(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
