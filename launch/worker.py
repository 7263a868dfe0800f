"""The Ray actor: takes its rank, calls the trainer, says that it is alive.

Importing this module imports no torch: the rank's environment must stand before it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import socket
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil
import ray

from distpre.errors import ClusterError, DistpreError
from launch.nodes import answers
from launch.ranks import Place

# What the others see when one rank is gone: never the root of the fault while there is another.
_LOST_PEER = re.compile(r"connection (was )?(reset|closed|refused)|broken pipe|gloo|nccl|socket", re.IGNORECASE)
# A worker that can reach neither the supervisor nor the head for this long ends itself. It is less than the supervisor
# waits before it replaces the workers of an unreachable host: the old ones never write beside the new ones.
LEASE_SECONDS = 10.0


@dataclass(frozen=True)
class Outcome:
    """How the trainer ended. at: wall-clock time; text: for `failed`, what a person is shown (message or traceback)."""

    kind: Literal["finished", "stopped", "failed", "lost_peer"]
    at: float
    text: str = ""
    exit_status: int = 1


@dataclass(frozen=True)
class Beat:
    """quiet: seconds since the trainer last reported a record or asked whether to stop; None before it first did."""

    quiet: float | None
    records: list[dict[str, Any]] = field(default_factory=list)


@ray.remote(concurrency_groups={"control": 1})
class Worker:
    """run() takes one thread for as long as training lasts; the control methods answer from another."""

    def __init__(self):
        self._reason: str | None = None
        self._records: list[dict[str, Any]] = []
        self._heard: float | None = None
        self._lock = threading.Lock()
        self._in_touch = time.monotonic()
        head, port = ray.get_runtime_context().gcs_address.rsplit(":", 1)
        threading.Thread(target=self._end_when_cut_off, args=(head, int(port)), daemon=True).start()

    def place(self) -> Place:
        context = ray.get_runtime_context()
        return Place(
            node=context.get_node_id(),
            host=socket.gethostname(),
            address=ray.util.get_node_ip_address(),
            pid=os.getpid(),
            gpus=tuple(str(i) for i in context.get_accelerator_ids().get("GPU", ())),
            log=os.readlink("/proc/self/fd/2") if os.path.exists("/proc/self/fd/2") else "",
        )

    def free_port(self) -> int:
        with socket.socket() as s:
            s.bind((ray.util.get_node_ip_address(), 0))
            return s.getsockname()[1]

    def run(self, trainer: str, recipe: str, directory: str, environment: dict[str, str]) -> Outcome:
        """Calls `trainer` ("module:function") on the resolved recipe in the driver's `directory`; never raises."""
        os.environ.update(environment)
        try:
            _enter(directory)
            interface = interface_of(ray.util.get_node_ip_address())
            for library in ("GLOO", "NCCL"):  # without it both look the host's name up, and may find another network
                os.environ.setdefault(f"{library}_SOCKET_IFNAME", interface)
            module, function = trainer.split(":")
            train = getattr(importlib.import_module(module), function)
            from distpre.recipe import resolved

            result = train(resolved(recipe), sink=self._take, stop=self._asked_to_stop)
            return Outcome(result["status"], time.time())
        except DistpreError as e:
            text = str(e) if e.exit_status == 2 else traceback.format_exc()
            return Outcome("failed", time.time(), text, e.exit_status)
        except Exception as e:
            lost = isinstance(e, RuntimeError | ConnectionError) and _LOST_PEER.search(str(e))
            return Outcome("lost_peer" if lost else "failed", time.time(), traceback.format_exc())

    @ray.method(concurrency_group="control")
    def stop(self, reason: str) -> None:
        """The trainer finishes its step, commits and returns."""
        self._reason = reason

    @ray.method(concurrency_group="control")
    def beat(self) -> Beat:
        """The heartbeat, with the records since the last one."""
        self._in_touch = time.monotonic()
        with self._lock:
            records, self._records = self._records, []
        return Beat(None if self._heard is None else time.monotonic() - self._heard, records)

    def _take(self, record: dict[str, Any]) -> None:
        self._heard = time.monotonic()
        with self._lock:
            self._records.append(record)

    def _end_when_cut_off(self, head: str, port: int) -> None:
        while True:
            time.sleep(1)
            quiet = time.monotonic() - self._in_touch
            if quiet > LEASE_SECONDS / 2 and answers(head, port):  # a supervisor that is only slow
                self._in_touch = time.monotonic()
            elif quiet > LEASE_SECONDS:
                for process in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                os.kill(os.getpid(), signal.SIGKILL)

    def _asked_to_stop(self) -> str | None:
        self._heard = time.monotonic()
        return self._reason


def _enter(directory: str) -> None:
    """Relative paths of a recipe mean the same here as at the terminal."""
    try:
        os.chdir(directory)
    except OSError as e:
        raise ClusterError(
            f"{socket.gethostname()} has no folder {directory} ({e.strerror}).",
            "Start from a folder that every node of the cluster has.",
        ) from e


def interface_of(address: str) -> str:
    """Name of the network interface that has `address`."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(a.address == address for a in addresses):
            return name
    raise RuntimeError(f"no network interface of {socket.gethostname()} has Ray's node address {address}")
