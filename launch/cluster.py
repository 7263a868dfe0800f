"""Find or start Ray: a private one on this machine's loopback, or a running cluster."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from distpre.errors import ClusterError
from launch.arguments import REPOSITORY
from launch.nodes import too_many

_OBJECT_STORE_BYTES = 80 * 2**20  # Ray's least is 75 MiB; only recipes and records pass through it


@contextlib.contextmanager
def cluster(address: str | None, workers: int) -> Iterator[None]:
    """Ray is connected inside the context; one that we started is gone after it, with all its processes.

    Raises ClusterError when this machine has fewer cores than workers or the cluster at `address` does not answer.
    """
    if address is None:
        with _own_ray(workers):
            yield
    else:
        _connect(address)
        import ray

        try:
            yield
        finally:
            ray.shutdown()


def cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _own_ray(workers: int) -> Iterator[None]:
    if workers > cores():
        raise too_many(workers, f"{cores()} cores on this machine")
    with tempfile.TemporaryDirectory(prefix="distpre-") as private:  # mode 0700
        _authenticate(Path(private, "token"))
        _quieten()
        os.environ.update(
            RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",  # Ray's switch for "no other hosts": everything listens on loopback
            RAY_process_group_cleanup_enabled="1",  # a killed worker takes its data workers with it
            PYTHONPATH=os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]),
        )
        import ray

        try:
            ray.init(
                address="local",
                num_cpus=cores(),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level="error",
            )
            if ray.util.get_node_ip_address() != "127.0.0.1":
                raise RuntimeError("Ray was imported before launch.cluster could keep it on the loopback interface")
            yield
        finally:
            _end_own_ray()


def _end_own_ray() -> None:
    """Every process below this one is Ray's; none is left. Takes about 1.5 s, in which Ctrl-C is not heard."""
    import ray

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    children, begun = psutil.Process().children(recursive=True), ray.is_initialized()
    ray.shutdown()
    _, left = psutil.wait_procs(children, timeout=5 if begun else 0)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)
    signal.signal(signal.SIGINT, before)


def _quieten() -> None:
    """Ray reads these when it is imported. The supervisor tells of faults, once; Ray's lines stay in its logs."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DEDUP_LOGS_SKIP_REGEX=".")


def _authenticate(token: Path) -> None:
    descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, secrets.token_hex(32).encode())
    os.close(descriptor)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))


def _connect(address: str) -> None:
    try:
        if address.count(":") == 1:  # HOST:PORT; Ray itself would try for a minute
            host, port = address.split(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        _quieten()
        import ray

        ray.init(
            address=address,
            runtime_env={"py_modules": [str(REPOSITORY / "launch")]},
            log_to_driver=False,
            logging_level="error",
        )
    except (OSError, RuntimeError, ValueError) as e:
        raise ClusterError(
            f"--address {address}: no Ray cluster answers there ({str(e).splitlines()[0]}).",
            "Start it with `ray start --head`, and export its RAY_AUTH_TOKEN_PATH here too.",
        ) from e
