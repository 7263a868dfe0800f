"""What the doctor asks of a node, answered there."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import platform
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import ray

from launch.worker import interface_of


@ray.remote(num_cpus=0)
class Probe:
    def facts(self) -> dict[str, Any]:
        """devices, gpus, interface (None: no interface has Ray's address) and versions."""
        import torch

        from distpre.runtime.folder import environment

        gpus = torch.cuda.device_count()
        names = f"{gpus} x {torch.cuda.get_device_name(0)}" if gpus else "no GPU"
        memory = psutil.virtual_memory().total / 2**30
        try:
            interface = interface_of(ray.util.get_node_ip_address())
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
        except RuntimeError:
            interface = None
        return {
            "devices": f"{os.cpu_count()} cores, {memory:.0f} GiB, {names}",
            "gpus": gpus,
            "interface": interface,
            "versions": {"python": platform.python_version(), **environment()["packages"], "distpre": _digest()},
        }

    def clock(self) -> float:
        return time.time()

    def write(self, folder: str, number: int) -> float | str:
        """Seconds that it took, or why it failed."""
        began, path = time.monotonic(), Path(folder, str(number))
        try:
            with open(path.with_suffix(".partial"), "w") as f:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                f.write(socket.gethostname())
                f.flush()
                os.fsync(f.fileno())
            os.replace(path.with_suffix(".partial"), path)
        except OSError as e:
            return e.strerror or str(e)
        return time.monotonic() - began

    def read(self, folder: str) -> list[int]:
        """The numbers of the files that are there."""
        return sorted(int(p.name) for p in Path(folder).glob("*") if p.name.isdigit() and p.read_text())

    def forget(self, folder: str) -> None:
        for file in Path(folder).glob("*"):
            file.unlink()

    def missing(self, shards: list[str]) -> list[str]:
        """Those that cannot be reached from here."""
        from distpre.data.shards import stamp

        return [shard for shard in shards if not _there(stamp, shard)]

    def meeting_place(self) -> tuple[str, int]:
        with socket.socket() as s:
            s.bind((ray.util.get_node_ip_address(), 0))
            return s.getsockname()

    def all_reduce(self, rank: int, address: str, port: int) -> float | str:
        """MiB a second, or why it failed."""
        from distpre.runtime.bandwidth import all_reduce_speed

        try:
            return all_reduce_speed(rank, address, port)
        except Exception as e:
            return str(e).splitlines()[0]


def _there(stamp, shard: str) -> bool:
    try:
        return stamp(shard) is not None
    except Exception:  # whatever a file system says of a shard that it has not
        return False


def _digest() -> str:
    """Of distpre's source as this node imports it."""
    folder = Path(importlib.import_module("distpre").__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
