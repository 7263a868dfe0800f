"""Where workers are, and the environment that makes each of them a rank."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a worker is: enough to give it a rank, a rendezvous and a name in a message."""

    node: str
    host: str
    address: str
    pid: int
    gpus: tuple[str, ...]
    log: str


def ranks(places: list[Place], port: int, threads: int) -> list[dict[str, str]]:
    """The environment of every rank, as torchrun would set it. Workers of one node see all of the node's GPUs."""
    size, seen, result = Counter(p.node for p in places), Counter(), []
    gpus: dict[str, list[str]] = {}
    for place in places:
        gpus.setdefault(place.node, []).extend(place.gpus)
    for rank, place in enumerate(places):
        environment = {
            "RANK": str(rank),
            "LOCAL_RANK": str(seen[place.node]),
            "WORLD_SIZE": str(len(places)),
            "LOCAL_WORLD_SIZE": str(size[place.node]),
            "MASTER_ADDR": places[0].address,
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": str(threads),
        }
        if gpus[place.node]:  # each once: several workers may share one
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(gpus[place.node]))
        seen[place.node] += 1
        result.append(environment)
    return result
