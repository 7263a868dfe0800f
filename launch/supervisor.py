"""The policy: run a group to its end, restart it from the last commit when a process or a host is lost, on as many
workers as there is room for; make room for more when hosts come; stop when asked."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

import ray
from ray.exceptions import RayError

from distpre.errors import ClusterError
from distpre.recipe.schema import LaunchSpec
from distpre.runtime.signals import EXIT_STATUS, Stop
from launch.group import Fault, Group
from launch.nodes import Layout, answers, free, layout, nodes
from launch.worker import Outcome

_POLL_SECONDS = 0.2
_HEAD_SECONDS = 5.0  # without an answer: the cluster is gone, and Ray would end this process after a minute
_GROW_EVERY = 5.0  # seconds; the same room must be seen twice
_HOST_SECONDS = 600.0  # for a lost host to come back where launch.workers.min needs it
# Less than launch.workers.max is taken after this: at first the nodes of a cluster join one by one, later what a killed
# group held comes free by and by.
_SETTLE_SECONDS = {"start": 15.0, "restart": 5.0}
_SLOW, _SLOW_TIMES = 1.5, 3  # a straggler takes this many times the median, in so many reports in a row


class HeadLost(ClusterError):
    """The head of the cluster answers no more. What goes on is up to another process than this one."""


class Screen(Protocol):
    def show(self, record: dict[str, Any]) -> None: ...
    def say(self, text: str) -> None: ...


class Supervisor:
    """Runs `recipe` (resolved text) on as many workers as `launch` (the recipe's part) allows.

    trainer: "module:function", called in every worker as train(recipe, sink=, stop=). silent_seconds: how long a
    worker's process may leave a heartbeat unanswered. patience: how long to wait at first for nodes that join. In
    `launch`, max_restarts: how many lost groups in a row are replaced without a commit in between; stall_seconds: how
    long a trainer, once it has begun, may go without a record or a question whether to stop.
    """

    def __init__(
        self,
        recipe: str,
        launch: LaunchSpec,
        *,
        screen: Screen,
        stop: Stop,
        silent_seconds: float = 15.0,
        patience: float = 0.0,
        trainer: str = "distpre.train:train",
    ):
        self.recipe, self.launch, self.trainer = recipe, launch, trainer
        self.screen, self.stop, self.silent_seconds = screen, stop, silent_seconds
        self.patience = patience
        self.step: int | None = None
        self.commits = 0
        self._slow: tuple[int, int] = (-1, 0)  # a rank, and in how many reports in a row it was the straggler

    def run(self) -> int:
        """The exit status: 0 finished, 130/143/75 stopped by a signal, 2 the user's to mend, 1 failed.

        Raises ClusterError when there is no room for launch.workers.min, HeadLost.
        """
        restarts, commits, waits = 0, 0, "start"
        while True:
            try:
                end = self._attempt(waits)
            except RayError as e:  # all calls to workers are watched: this was one to the head
                raise HeadLost("the Ray cluster is another than it was.", "The last commit stands.") from e
            if self.commits > commits:
                restarts, commits = 0, self.commits
            if isinstance(end, Outcome):
                if end.kind == "finished":
                    return 0
                if self.stop.reason:
                    self.screen.say(f"stopped{self._where()}; the same command goes on")
                    return EXIT_STATUS[self.stop.reason]
                waits = "restart"  # it made way for a larger group, and what it held comes free by and by
                continue
            if self.stop.reason:
                tell_error(f"{end.what}{self._where()}, while stopping; the last commit stands", end.text)
                return EXIT_STATUS[self.stop.reason]
            if end.kind == "failed":
                what = end.text if end.exit_status == 2 else f"{end.what}{self._where()}:\n{end.text}"
                tell_error(what)
                return end.exit_status
            most = self.launch.max_restarts
            if restarts == most:
                tell_error(f"{end.what}{self._where()}; launch.max_restarts={most} are used up", end.text)
                return 1
            restarts, waits = restarts + 1, "restart"
            again = f"restarting from the last commit ({restarts} of {most})"
            self.screen.say("\n".join(filter(None, [f"{end.what}{self._where()}; {again}", end.text])))

    def _attempt(self, waits: str) -> Outcome | Fault:
        """One group from start to end."""
        room = self._room(waits)
        if room is None:
            return Outcome("stopped", time.time())
        try:
            group = Group(room, self.trainer, self.recipe)
        except RayError as e:
            return Fault("the workers could not be started", "died", time.time(), str(e).splitlines()[0])
        try:
            return self._watch(group)
        finally:
            Head().ensure()  # before a call to it, which might never return
            group.kill()

    def _room(self, waits: str) -> Layout | None:
        """Where the workers go, once there is room for them; None when asked to stop meanwhile.

        Takes what is free, and waits a little for more.
        """
        began, told = time.monotonic(), False
        patience = self.patience if waits == "start" else _HOST_SECONDS
        settle = min(_SETTLE_SECONDS[waits], patience)
        while not self.stop.reason:
            waited = time.monotonic() - began
            there = nodes()
            lacking = None
            try:
                most = layout(there, self.launch)
                now = layout(free(there), self.launch)
                enough = self.launch.workers.max if waits == "start" else len(most.nodes)
                if len(now.nodes) >= enough or waited > settle:
                    return now
            except ClusterError as e:
                lacking = e
            if lacking and waited > patience:
                raise lacking
            if lacking and waited > settle and not told:
                told = True
                self.screen.say(f"waiting up to {patience:.0f} s for room: {lacking.what}")
            time.sleep(_POLL_SECONDS)
        return None

    def _watch(self, group: Group) -> Outcome | Fault:
        told, started = False, self.step
        head = Head()
        growth = Growth(group.layout, self.launch)
        while True:
            group.wait(_POLL_SECONDS)
            self._show(group, group.listen())
            if outcome := group.finished():
                self._show(group, group.last_records())
                return outcome
            head.check()
            if fault := group.fault() or group.silent(self.silent_seconds, self.launch.stall_seconds):
                return fault
            if self.stop.reason and not told:
                told = True
                self.screen.say("stopping: the workers finish their step and commit; interrupt again to kill them")
                group.stop(self.stop.reason)
            elif not told and self.step != started and (more := growth.look()):
                told = True
                self.screen.say(f"room for {more} workers: committing, then going on with them")
                group.stop("resize")

    def _show(self, group: Group, records: list[dict[str, Any]]) -> None:
        for record in records:
            self.step = record.get("step", self.step)
            self.commits += record["kind"] == "commit"
            self.screen.show(record)
            if slowest := record.get("slowest"):
                self._name_straggler(group, slowest)

    def _name_straggler(self, group: Group, slowest: dict[str, Any]) -> None:
        """Once for each time that a rank becomes one."""
        rank, seconds, median = slowest["rank"], slowest["seconds"], slowest["median"]
        if seconds < _SLOW * median:
            self._slow = (-1, 0)
            return
        before, times = self._slow
        self._slow = (rank, times + 1 if rank == before else 1)
        if self._slow[1] == _SLOW_TIMES:
            self.screen.say(
                f"{group.name(rank)} holds the others up: {seconds:.2f} s of its own in each step, where the median "
                f"rank takes {median:.2f} s"
            )

    def _where(self) -> str:
        return " before the first step" if self.step is None else f" after step {self.step}"


class Head:
    """The cluster's head, and whether it is there."""

    def __init__(self):
        self.address = ray.get_runtime_context().gcs_address
        host, port = self.address.rsplit(":", 1)
        self.place = (host, int(port))
        self.asked = self.heard = time.monotonic()

    def check(self) -> None:
        """Asks once a second. Raises HeadLost."""
        if time.monotonic() - self.asked < 1:
            return
        self.asked = time.monotonic()
        if answers(*self.place, seconds=1):
            self.heard = time.monotonic()
        elif time.monotonic() - self.heard > _HEAD_SECONDS:
            raise HeadLost(f"the head of the Ray cluster, {self.address}, answers no more.", "The last commit stands.")

    def ensure(self) -> None:
        """Waits until it answers. Raises HeadLost."""
        while not answers(*self.place, seconds=1):
            self.check()
            time.sleep(_POLL_SECONDS)


class Growth:
    """Looks for room for more workers than a layout has, and for what it has itself."""

    def __init__(self, held: Layout, spec: LaunchSpec):
        self.held, self.spec, self.asked, self.seen = held, spec, time.monotonic(), 0

    def look(self) -> int:
        """How many there could be, when that is more and was so the last time too; else 0."""
        if len(self.held.nodes) == self.spec.workers.max or time.monotonic() - self.asked < _GROW_EVERY:
            return 0
        self.asked = time.monotonic()
        try:
            could = len(layout(free(nodes(), self.held), self.spec).nodes)
        except ClusterError:
            could = 0
        before, self.seen = self.seen, could
        return could if could == before and could > len(self.held.nodes) else 0


def tell_error(what: str, more: str = "") -> None:
    print(f"error: {what}", *filter(None, [more]), sep="\n", file=sys.stderr)
