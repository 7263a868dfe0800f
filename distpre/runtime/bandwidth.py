"""How fast two hosts sum a vector, for preflight checks."""

from __future__ import annotations

import time
from datetime import timedelta

import torch
import torch.distributed as dist

from distpre import group


def all_reduce_speed(rank: int, address: str, port: int, mebibytes: int = 16, rounds: int = 3) -> float:
    """MiB of a vector that two ranks sum in a second, the best of `rounds`; both call it, rank 0 listens at `address`.

    Raises what torch.distributed raises when they do not find each other within 20 s. Makes and ends the default group.
    """
    device = group.device()
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"tcp://{address}:{port}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=20),
    )
    try:
        x = torch.zeros(mebibytes * 2**18, device=device)
        best = float("inf")
        for _ in range(rounds + 1):  # the first one connects
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(x)
            x[0].item()  # until it is there
            best = min(best, time.perf_counter() - began)
        return mebibytes / best
    finally:
        dist.destroy_process_group()
