"""The nodes of the connected cluster, and which worker goes to which of them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from distpre.errors import ClusterError
from distpre.recipe.schema import LaunchSpec

_ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class Share:
    """What one worker gets."""

    cpus: int
    gpus: float


@dataclass(frozen=True)
class Node:
    """A machine of the cluster; cpus and gpus are all that it has, or what is free of them."""

    id: str
    host: str
    address: str
    port: int
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return self.host if self.host == self.address else f"{self.host} ({self.address})"

    def holds(self, cpus: int, gpus: float) -> int:
        """How many workers of that share."""
        by_cpu = int(self.cpus // cpus)
        return min(by_cpu, int(self.gpus // gpus)) if gpus else by_cpu


@dataclass(frozen=True)
class Layout:
    """nodes: that of each worker, in rank order, so that neighbours in rank are neighbours on the network."""

    share: Share
    nodes: tuple[Node, ...]


def nodes() -> list[Node]:
    """Those that Ray believes in and whose Ray answers now. Ray itself notices a lost host only after a while."""
    import ray

    found = [
        Node(
            n["NodeID"],
            n["NodeManagerHostname"],
            n["NodeManagerAddress"],
            n["NodeManagerPort"],
            n["Resources"].get("CPU", 0),
            n["Resources"].get("GPU", 0),
        )
        for n in ray.nodes()
        if n["Alive"]
    ]
    there = answering((n.address, n.port) for n in found)
    return sorted((n for n in found if (n.address, n.port) in there), key=lambda n: (n.address, n.id))


def free(nodes: list[Node], held: Layout | None = None) -> list[Node]:
    """The nodes with what no job holds; what `held` holds counts as free."""
    from ray._private.state import available_resources_per_node  # the public call sums over the cluster

    left = available_resources_per_node()
    result = []
    for node in nodes:
        ours = sum(n.id == node.id for n in held.nodes) if held else 0
        cpus, gpus = (left.get(node.id, {}).get(kind, 0) for kind in ("CPU", "GPU"))
        share = held.share if held else Share(0, 0)
        result.append(replace(node, cpus=cpus + ours * share.cpus, gpus=gpus + ours * share.gpus))
    return result


def answers(address: str, port: int, seconds: float = _ANSWER_SECONDS) -> bool:
    """Somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=seconds):
        return True
    return False


def answering(places: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """Those of (address, port) where somebody answers, asked all at once."""
    asked = list(dict.fromkeys(places))
    if not asked:
        return set()
    with ThreadPoolExecutor(min(64, len(asked))) as pool:
        return {place for place, yes in zip(asked, pool.map(lambda p: answers(*p), asked), strict=True) if yes}


def layout(nodes: list[Node], spec: LaunchSpec) -> Layout:
    """As many workers as launch.workers allows and the nodes hold, on as few nodes as hold them, node by node.

    Raises ClusterError when there is no room for launch.workers.min.
    """
    for workers in range(spec.workers.max, spec.workers.min, -1):
        with contextlib.suppress(ClusterError):
            return _layout(nodes, workers, spec)
    return _layout(nodes, spec.workers.min, spec)


def _layout(nodes: list[Node], workers: int, spec: LaunchSpec) -> Layout:
    each = share(nodes, workers, spec.cpus_per_worker, spec.gpus_per_worker)
    most_first = sorted(nodes, key=lambda n: -n.holds(each.cpus, each.gpus))
    slots = [node for node in most_first for _ in range(node.holds(each.cpus, each.gpus))]
    return Layout(each, tuple(slots[:workers]))


def share(nodes: list[Node], workers: int, cpus: int | None, gpus: float | None) -> Share:
    """What each of `workers` gets where the recipe leaves it open: one GPU if there are any, and all the cores there
    are for every worker (with GPUs: their share of a node's). Raises ClusterError when the nodes cannot hold them all.
    """
    total = sum(n.gpus for n in nodes)
    if gpus is None:
        gpus = 1 if total else 0
    if gpus * workers > total:
        raise too_many(workers, f"{total:g} GPUs, at {gpus:g} a worker")
    every_core = int(sum(n.cpus for n in nodes))
    most = every_core // workers
    if gpus:  # a GPU's share of its node: with more, a node's last GPUs would have no cores
        most = min(most, *(int(n.cpus * gpus / n.gpus) for n in nodes if n.gpus))
    for each in [cpus] if cpus else range(most, 0, -1):
        if sum(n.holds(each, gpus) for n in nodes) >= workers:
            return Share(each, gpus)
    at = f", at {cpus} a worker" if cpus else ""
    raise too_many(workers, f"{every_core} cores on {len(nodes)} node{'s' * (len(nodes) != 1)}{at}")


def too_many(workers: int, there_are: str) -> ClusterError:
    return ClusterError(f"launch.workers={workers}: too many for {there_are}.", "Give fewer launch.workers.")
