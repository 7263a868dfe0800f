"""The policy: run a group to its end, restart it from the last commit when a process is lost, stop it when asked."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

from ray.exceptions import RayError

from distpre.runtime.signals import EXIT_STATUS, Stop
from launch.cluster import Share
from launch.group import Fault, Group
from launch.worker import Outcome

_POLL_SECONDS = 0.2


class Screen(Protocol):
    def show(self, record: dict[str, Any]) -> None: ...
    def say(self, text: str) -> None: ...


class Supervisor:
    """Runs `recipe` (resolved text) on `workers` workers of `share` each.

    trainer: "module:function", called in every worker as train(recipe, sink=, stop=). max_restarts: how many lost
    groups are replaced. silent_seconds: how long a worker's process may leave a heartbeat unanswered. stall_seconds:
    how long its trainer, once it has begun, may go without a record or a question whether to stop.
    """

    def __init__(
        self,
        recipe: str,
        *,
        workers: int,
        share: Share,
        screen: Screen,
        stop: Stop,
        max_restarts: int,
        stall_seconds: float,
        silent_seconds: float = 30.0,
        trainer: str = "distpre.train:train",
    ):
        self.recipe, self.workers, self.share, self.trainer = recipe, workers, share, trainer
        self.screen, self.stop, self.max_restarts = screen, stop, max_restarts
        self.stall_seconds, self.silent_seconds = stall_seconds, silent_seconds
        self.step: int | None = None

    def run(self) -> int:
        """The exit status: 0 finished, 130/143/75 stopped by a signal, 2 the user's to mend, 1 failed."""
        restarts = 0
        while True:
            end = self._attempt()
            if isinstance(end, Outcome):
                return 0 if end.kind == "finished" else EXIT_STATUS[self.stop.reason]
            if self.stop.reason:
                tell_error(f"{end.what}{self._where()}, while stopping; the last commit stands", end.text)
                return EXIT_STATUS[self.stop.reason]
            if end.kind == "failed":
                what = end.text if end.exit_status == 2 else f"{end.what}{self._where()}:\n{end.text}"
                tell_error(what)
                return end.exit_status
            if restarts == self.max_restarts:
                tell_error(f"{end.what}{self._where()}; launch.max_restarts={restarts} are used up", end.text)
                return 1
            restarts += 1
            again = f"restarting all {self.workers} workers from the last commit ({restarts} of {self.max_restarts})"
            self.screen.say("\n".join(filter(None, [f"{end.what}{self._where()}; {again}", end.text])))

    def _attempt(self) -> Outcome | Fault:
        """One group from start to end."""
        try:
            group = Group(self.workers, self.share, self.trainer, self.recipe)
        except RayError as e:
            return Fault("the workers could not be started", "died", time.time(), str(e))
        try:
            return self._watch(group)
        finally:
            group.kill()

    def _watch(self, group: Group) -> Outcome | Fault:
        told = False
        while True:
            group.wait(_POLL_SECONDS)
            self._show(group.listen())
            if outcome := group.finished():
                self._show(group.last_records())
                return outcome
            if fault := group.fault() or group.silent(self.silent_seconds, self.stall_seconds):
                return fault
            if self.stop.reason and not told:
                told = True
                self.screen.say("stopping: the workers finish their step and commit; interrupt again to kill them")
                group.stop(self.stop.reason)

    def _show(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            self.step = record.get("step", self.step)
            self.screen.show(record)

    def _where(self) -> str:
        return " before the first step" if self.step is None else f" after step {self.step}"


def tell_error(what: str, more: str = "") -> None:
    print(f"error: {what}", *filter(None, [more]), sep="\n", file=sys.stderr)
