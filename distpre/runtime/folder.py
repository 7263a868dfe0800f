"""The run folder: who owns it, and what is written into it beside the metrics and the checkpoints."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distpre.errors import CheckpointError

CLAIM = "claim.json"
_PACKAGES = ("distpre", "torch", "deepspeed", "ray", "webdataset", "open_clip_torch", "transformers", "timm", "numpy")


class RunFolder:
    """A run's folder, made when it is first claimed.

    The claim is a flock on claim.json, so it ends with the process that holds it, however that ends. It needs a file
    system with working locks (Lustre: mounted with `flock`).
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lock: int | None = None

    def claim(self, patience: float = 2.0) -> None:
        """Makes the folder this process's own until release() or its end; rank 0 calls it before each stage writes.

        patience: seconds to wait for the claim of a process that is just ending.
        Raises CheckpointError when another process holds it, with its host and process id.
        """
        if self._lock is not None:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / CLAIM, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as e:
            what = f"run.dir={self.path}: cannot be written ({e.strerror})."
            raise CheckpointError(what, "Give another run.dir.") from e
        if not _locked(lock, patience):
            os.close(lock)
            raise in_use(self.path)
        self._lock = lock
        # A forked child shares the lock: it must not outlive this process in a data worker.
        os.register_at_fork(after_in_child=self._forget)
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(holder).encode(), 0)

    def release(self) -> None:
        self._forget()

    def write(self, recipe: str, facts: Mapping[str, Any]) -> None:
        """recipe.yaml, as resolved, and environment.json: `facts` beside the versions and the machine."""
        replace_text(self.path / "recipe.yaml", recipe)
        replace_text(self.path / "environment.json", json.dumps({**environment(), **facts}, indent=1) + "\n")

    def _forget(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def refuse_if_in_use(path: str | Path) -> None:
    """Raises CheckpointError if a run holds the folder's claim now; takes nothing and makes nothing."""
    try:
        lock = os.open(Path(path) / CLAIM, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # no claim yet, or not ours to write: claim() will say so
    free = _locked(lock, patience=0)
    os.close(lock)
    if not free:
        raise in_use(Path(path))


def in_use(path: Path) -> CheckpointError:
    try:
        holder = json.loads((path / CLAIM).read_text())
        who = f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError):
        who = "another process"
    return CheckpointError(
        f"run.dir={path}: this run folder is in use by {who}.", "Wait for that run, stop it, or give another run.dir."
    )


def environment() -> dict[str, Any]:
    """Versions, machine and command line: what the next person needs to repeat the run."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def replace_text(path: Path, text: str) -> None:
    """Writes the whole file or leaves the old one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _locked(descriptor: int, patience: float) -> bool:
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.05)
