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

from distpre.errors import ClusterError
from launch.cluster import Share
from launch.ranks import ranks
from launch.worker import Beat, Outcome, Worker

_PLACEMENT_SECONDS = 120
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
    """`workers` actors, packed onto as few nodes as hold them, ranked node by node, all running the trainer."""

    def __init__(self, workers: int, share: Share, trainer: str, recipe: str):
        bundle = {"CPU": share.cpus, **({"GPU": share.gpus} if share.gpus else {})}
        self.actors: list[Any] = []  # by rank
        self.placement = placement_group([bundle] * workers, strategy="PACK")
        try:
            if not self.placement.wait(_PLACEMENT_SECONDS):
                raise ClusterError(
                    f"launch.workers={workers}: the cluster had no room for them in {_PLACEMENT_SECONDS} s.",
                    "Wait for the jobs that hold it, or give fewer launch.workers.",
                )
            self.actors = [self._actor(i, share) for i in range(workers)]
            places = ray.get([a.place.remote() for a in self.actors])
            order = sorted(range(workers), key=lambda i: (places[i].node != places[0].node, places[i].node, i))
            self.actors, self.places = [self.actors[i] for i in order], [places[i] for i in order]
            port = ray.get(self.actors[0].free_port.remote())
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

    def _actor(self, index: int, share: Share) -> Any:
        bundle = PlacementGroupSchedulingStrategy(self.placement, placement_group_bundle_index=index)
        return Worker.options(num_cpus=share.cpus, num_gpus=share.gpus, scheduling_strategy=bundle).remote()

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
            return Fault(f"rank {rank} failed", "failed", time.time(), str(e))
        except RayError:
            return Fault(f"the process of rank {rank} died", "died", time.time(), self._last_words(rank))
        what = {"failed": f"rank {rank} failed", "lost_peer": f"rank {rank} lost the connection to its peers"}
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
        age = time.monotonic() - self._first_fault
        for kind, certain_after in _ROOT_SECONDS.items():
            for fault in faults:
                if fault.kind == kind and age >= certain_after:
                    return fault
        return None

    def silent(self, silent_seconds: float, stall_seconds: float) -> Fault | None:
        """The rank whose process does not answer, else the one whose trainer has said nothing for longest."""
        waiting = {r: time.monotonic() - asked for r, (_, asked) in self._beats.items() if r not in self.ends}
        quiet = {r: self._quiet[r] for r in waiting if r in self._quiet}
        for seconds, limit, did in (
            (waiting, silent_seconds, "has not answered"),
            (quiet, stall_seconds, "has made no step"),
        ):
            rank = max(seconds, key=seconds.__getitem__, default=None)
            if rank is not None and seconds[rank] > limit:
                return Fault(f"rank {rank} {did} for {seconds[rank]:.0f} s", "died", time.time())
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
