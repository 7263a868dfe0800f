"""The process group: who we are, and the few collectives that rooms other than contrast/ may ask for."""

from __future__ import annotations

import functools
import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """This process's device: its GPU by LOCAL_RANK where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    return torch.device("cpu")


def part(n: int) -> slice:
    """Of n things that every rank knows, this rank's consecutive share: each is one rank's."""
    return slice(n * rank() // world_size(), n * (rank() + 1) // world_size())


def total(x: Tensor) -> Tensor:
    """Sum over ranks, without gradient, in the tensor's own shape and dtype."""
    x = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def anywhere(flag: bool) -> bool:
    """True on every rank if the flag is up on any."""
    return bool(total(torch.tensor([float(flag)], device=device())).item())


def gathered(x: Tensor) -> Tensor:
    """Rows of every rank in rank order, (n_r, ...) -> (sum of n_r, ...), without gradient; n_r may differ."""
    if world_size() == 1:
        return x.detach()
    counts = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([len(x)], device=x.device))
    longest = int(max(counts))
    padded = x.new_zeros((longest, *x.shape[1:]))
    padded[: len(x)] = x.detach()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([p[: int(n)] for p, n in zip(parts, counts, strict=True)])


def first_row(x: Tensor) -> int:
    """Rows of the ranks before this one."""
    counts = gathered(torch.tensor([len(x)], device=x.device))
    return int(counts[: rank()].sum())


def gathered_with_gradient(x: Tensor) -> Tensor:
    """As gathered; back comes the sum over ranks of the gradients of this rank's rows."""
    return _Gathered.apply(x)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        first = first_row(x)
        ctx.mine = slice(first, first + len(x))
        return gathered(x).clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return total(gradient)[ctx.mine]


def from_rank_zero(value: Any) -> Any:
    """Rank 0's object, on every rank."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, device=device())
    return box[0]


Aside = dist.ProcessGroup | None


@functools.cache
def aside() -> Aside:
    """All ranks once more, over the CPU: for a thread whose collectives must not mix with the training's. Made by the
    first call, which is every rank's.
    """
    return dist.new_group(backend="gloo", timeout=timedelta(hours=2)) if world_size() > 1 else None


def from_all(value: Any, among: Aside = None) -> list[Any]:
    """Every rank's object, in rank order, on every rank. among: all ranks, aside of the training."""
    if world_size() == 1:
        return [value]
    box = [None] * world_size()
    dist.all_gather_object(box, value, group=among)
    return box


def wait_for_all() -> None:
    if world_size() > 1:
        dist.barrier()


def ranks_a_node() -> int:
    """Ranks on this node, as torchrun and the launcher say (LOCAL_WORLD_SIZE)."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
