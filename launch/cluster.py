"""Find or start Ray: a private one on this machine's loopback, or a running cluster."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from distpre.errors import ClusterError

REPOSITORY = Path(__file__).resolve().parent.parent
_OBJECT_STORE_BYTES = 80 * 2**20  # Ray's least is 75 MiB; only recipes and records pass through it


@dataclass(frozen=True)
class Share:
    """What one worker gets."""

    cpus: int
    gpus: float


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


def share(nodes: list[dict[str, float]], workers: int, cpus: int | None, gpus: float | None) -> Share:
    """What each of `workers` gets where the recipe leaves it open: one GPU if there are any, and all the cores there
    are for every worker. nodes: {"CPU": n, "GPU": n} of each node.

    Raises ClusterError when the nodes cannot hold them all.
    """
    total = sum(n.get("GPU", 0) for n in nodes)
    if gpus is None:
        gpus = 1 if total else 0
    if gpus * workers > total:
        raise too_many(workers, f"{total:g} GPUs, at {gpus:g} a worker")
    every_core = int(sum(n.get("CPU", 0) for n in nodes))
    for each in [cpus] if cpus else range(every_core // workers, 0, -1):
        if sum(_fits(n, each, gpus) for n in nodes) >= workers:
            return Share(each, gpus)
    at = f", at {cpus} a worker" if cpus else ""
    raise too_many(workers, f"{every_core} cores on {len(nodes)} node{'s' * (len(nodes) != 1)}{at}")


def resources() -> list[dict[str, float]]:
    """Of each node of the connected cluster that is alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def too_many(workers: int, there_are: str) -> ClusterError:
    return ClusterError(f"launch.workers={workers}: too many for {there_are}.", "Give fewer launch.workers.")


def _fits(node: dict[str, float], cpus: int, gpus: float) -> int:
    by_cpu = int(node.get("CPU", 0) // cpus)
    return min(by_cpu, int(node.get("GPU", 0) // gpus)) if gpus else by_cpu
