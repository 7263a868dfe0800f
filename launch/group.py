"""One attempt: a group of workers in a placement group, from their creation to their end."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from launch.nodes import Layout, answers
from launch.ranks import ranks
from launch.worker import LEASE_SECONDS, Beat, Outcome, Worker

_PLACEMENT_SECONDS = 60
_STARTING = 4  # times as long may a heartbeat stay unanswered before a trainer has begun
_UNREACHABLE_SECONDS = LEASE_SECONDS + 2
# A fault counts as the root this many seconds after the first one, if none of the kinds above it has shown by then.
_ROOT_SECONDS = {"died": 0.0, "failed": 0.5, "lost_peer": 5.0}


@dataclass(frozen=True)
class Fault:
    """Why a group cannot go on. kind "died" and "lost_peer" may go better in a new group; "failed" would fail again.

    at: wall-clock time; text: what else a person needs to see; exit_status 2: text is the whole message.
    """

    what: str
    kind: Literal["died", "failed", "lost_peer"]
    at: float
    text: str = ""
    exit_status: int = 1


class Group:
    """Actors placed as `layout` says, in its order of ranks, all running the trainer.

    Raises RayError when a node does not give what it promised: another job took it, or the node is gone.
    """

    def __init__(self, layout: Layout, trainer: str, recipe: str):
        self.layout, share = layout, layout.share
        bundle = {"CPU": share.cpus, **({"GPU": share.gpus} if share.gpus else {})}
        self.actors: list[Any] = []  # by rank
        self.placement = placement_group(
            [bundle] * len(layout.nodes), bundle_label_selector=[{"ray.io/node-id": n.id} for n in layout.nodes]
        )
        try:
            ray.get(self.placement.ready(), timeout=_PLACEMENT_SECONDS)
            self.actors = [self._actor(i) for i in range(len(layout.nodes))]
            self.places = ray.get([a.place.remote() for a in self.actors], timeout=_PLACEMENT_SECONDS)
            port = ray.get(self.actors[0].free_port.remote(), timeout=_PLACEMENT_SECONDS)
            environments = ranks(self.places, port, share.cpus)
        except BaseException:
            self.kill()
            raise
        self.runs = {
            actor.run.remote(trainer, recipe, os.getcwd(), environment): rank
            for rank, (actor, environment) in enumerate(zip(self.actors, environments, strict=True))
        }
        self.ends: dict[int, Outcome | Fault] = {}
        self._first_fault: float | None = None
        now = time.monotonic()
        self._beats = {rank: (actor.beat.remote(), now) for rank, actor in enumerate(self.actors)}
        self._quiet: dict[int, float] = {}

    def _actor(self, index: int) -> Any:
        share = self.layout.share
        bundle = PlacementGroupSchedulingStrategy(self.placement, placement_group_bundle_index=index)
        return Worker.options(num_cpus=share.cpus, num_gpus=share.gpus, scheduling_strategy=bundle).remote()

    def name(self, rank: int) -> str:
        """With its host, where there are several."""
        several = len({n.id for n in self.layout.nodes}) > 1
        return f"rank {rank} on {self.layout.nodes[rank]}" if several else f"rank {rank}"

    def wait(self, seconds: float) -> None:
        """Until some rank ends, at most `seconds`."""
        pending = [run for run, rank in self.runs.items() if rank not in self.ends]
        if not pending:
            time.sleep(seconds)
            return
        for run in ray.wait(pending, num_returns=1, timeout=seconds)[0]:
            rank = self.runs[run]
            self.ends[rank] = end = self._end(rank, run)
            if isinstance(end, Fault) and self._first_fault is None:
                self._first_fault = time.monotonic()

    def _end(self, rank: int, run: Any) -> Outcome | Fault:
        try:
            outcome: Outcome = ray.get(run)
        except RayTaskError as e:  # run() itself is at fault
            return Fault(f"{self.name(rank)} failed", "failed", time.time(), str(e))
        except RayError:
            if gone := self._gone(rank):
                return gone
            return Fault(f"the process of {self.name(rank)} died", "died", time.time(), self._last_words(rank))
        what = {
            "failed": f"{self.name(rank)} failed",
            "lost_peer": f"{self.name(rank)} lost the connection to its peers",
        }
        if outcome.kind in what:
            return Fault(what[outcome.kind], outcome.kind, outcome.at, outcome.text, outcome.exit_status)
        return outcome

    def finished(self) -> Outcome | None:
        """Rank 0's outcome once every rank has finished or stopped as it was asked."""
        whole = len(self.ends) == len(self.actors) and self._first_fault is None
        return self.ends[0] if whole else None

    def fault(self) -> Fault | None:
        """The root of what went wrong, once it is known: one rank's fault makes the others fail too, perhaps sooner."""
        faults = sorted((e for e in self.ends.values() if isinstance(e, Fault)), key=lambda f: f.at)
        if not faults:
            return None
        if all(f.kind == "lost_peer" for f in faults):  # whose host went with it cannot tell
            for rank in {
                node.id: rank for rank, node in enumerate(self.layout.nodes) if rank not in self.ends
            }.values():
                if gone := self._gone(rank):
                    return gone
        age = time.monotonic() - self._first_fault
        for kind, certain_after in _ROOT_SECONDS.items():
            for fault in faults:
                if fault.kind == kind and age >= certain_after:
                    return fault
        return None

    def _gone(self, rank: int) -> Fault | None:
        """The host of `rank`, if no Ray answers there."""
        node = self.layout.nodes[rank]
        if answers(node.address, node.port):
            return None
        theirs = [str(r) for r, n in enumerate(self.layout.nodes) if n.id == node.id]
        which = f"rank{'s' * (len(theirs) > 1)} {', '.join(theirs)}"
        return Fault(f"{node} is gone, with {which}", "died", time.time())

    def silent(self, silent_seconds: float, stall_seconds: float) -> Fault | None:
        """The rank whose process does not answer, else the one whose trainer has said nothing for longest."""
        waiting = {r: time.monotonic() - asked for r, (_, asked) in self._beats.items() if r not in self.ends}
        quiet = {r: self._quiet[r] for r in waiting if r in self._quiet}
        # Importing the libraries may hold the interpreter for long, and the heartbeat with it.
        if any(rank not in self._quiet for rank in waiting):
            silent_seconds *= _STARTING
        for seconds, limit, did in (
            (waiting, silent_seconds, "has not answered"),
            (quiet, stall_seconds, "has made no step"),
        ):
            rank = max(seconds, key=seconds.__getitem__, default=None)
            if seconds is waiting and rank is not None and seconds[rank] > _UNREACHABLE_SECONDS:
                if gone := self._gone(rank):
                    return gone
            if rank is not None and seconds[rank] > limit:
                return Fault(f"{self.name(rank)} {did} for {seconds[rank]:.0f} s", "died", time.time())
        return None

    def listen(self) -> list[dict[str, Any]]:
        """Rank 0's records since the last call; every rank that has answered is asked for its next beat."""
        asked = {beat: rank for rank, (beat, _) in self._beats.items() if rank not in self.ends}
        records = []
        for beat in ray.wait(list(asked), num_returns=len(asked), timeout=0)[0] if asked else []:
            rank = asked[beat]
            records += self._hear(rank, beat)
            self._beats[rank] = (self.actors[rank].beat.remote(), time.monotonic())
        return records

    def last_records(self) -> list[dict[str, Any]]:
        """What rank 0 had still to say when its trainer returned."""
        return self._hear(0, self._beats[0][0]) + self._hear(0, self.actors[0].beat.remote())

    def _hear(self, rank: int, beat: Any) -> list[dict[str, Any]]:
        try:
            heard: Beat = ray.get(beat)
        except RayError:
            return []  # it died: its run says so
        if heard.quiet is not None:
            self._quiet[rank] = heard.quiet
        return heard.records

    def stop(self, reason: str) -> None:
        for actor in self.actors:
            actor.stop.remote(reason)

    def kill(self) -> None:
        for actor in self.actors:
            ray.kill(actor)
        remove_placement_group(self.placement)

    def _last_words(self, rank: int) -> str:
        """The end of the worker's log, where this machine has it."""
        place = self.places[rank]
        try:
            with open(place.log, errors="replace") as f:
                lines = [line for line in f.read().splitlines() if not line.startswith(":")][-5:]  # ":": Ray's marks
        except OSError:
            return f"its log is {place.log} on {place.address}"
        return "\n".join([f"the end of {place.log}:", *(f"  | {line}" for line in lines)]) if lines else ""
