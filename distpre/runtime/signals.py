"""Signals as a wish to stop: the step is finished and committed, then the process ends with the reason's status."""

from __future__ import annotations

import signal
from types import FrameType

EXIT_STATUS = {"interrupt": 130, "terminate": 143, "usr1": 75}  # 75: SLURM's script requeues the job
_REASON = {signal.SIGINT: "interrupt", signal.SIGTERM: "terminate", signal.SIGUSR1: "usr1"}


class Stop:
    """Called by the trainer after each step: None, or why to stop. A context that owns SIGINT, SIGTERM and SIGUSR1.

    The second SIGINT raises KeyboardInterrupt. Only the main thread of a process may enter the context.
    """

    def __init__(self):
        self.reason: str | None = None
        self._before: dict[signal.Signals, object] = {}

    def __call__(self) -> str | None:
        return self.reason

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._note) for number in _REASON}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason == "interrupt":
            raise KeyboardInterrupt
        self.reason = _REASON[signal.Signals(number)]


def exit_status(outcome: dict) -> int:
    """What a program ends with, from what `train` returned: 0 when finished, else by the reason it was stopped for."""
    return 0 if outcome["status"] == "finished" else EXIT_STATUS[outcome["reason"]]
