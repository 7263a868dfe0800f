"""The only gathers of embeddings: one modality travels, its gradient comes back summed. Ranks may hold unequal rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Line:
    """Rows stay, columns are gathered: (N-1)·b·d elements each way. counts: rows of every rank, in rank order."""

    counts: tuple[int, ...]
    rank: int

    @classmethod
    def of(cls, n: int, device: torch.device) -> Line:
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return cls((n,), 0)
        counts = torch.zeros(dist.get_world_size(), dtype=torch.long, device=device)
        counts[dist.get_rank()] = n
        dist.all_reduce(counts)
        return cls(tuple(counts.tolist()), dist.get_rank())

    @property
    def start(self) -> int:
        return sum(self.counts[: self.rank])

    @property
    def mine(self) -> slice:
        return slice(self.start, self.start + self.counts[self.rank])

    def gather(self, x: Tensor) -> Tensor:
        """(b, ...) -> (B, ...) in rank order."""
        if len(self.counts) == 1:
            return x
        longest = max(self.counts)
        padded = x.new_zeros((longest, *x.shape[1:]))
        padded[: len(x)] = x
        out = x.new_empty((len(self.counts) * longest, *x.shape[1:]))
        dist.all_gather_into_tensor(out, padded)
        return torch.cat([p[:n] for p, n in zip(out.split(longest), self.counts, strict=True)])

    def scatter_sum(self, x: Tensor) -> Tensor:
        """(B, ...) a rank -> this rank's (b, ...) of the sum over ranks."""
        if len(self.counts) == 1:
            return x
        longest = max(self.counts)
        padded = x.new_zeros((len(self.counts), longest, *x.shape[1:]))
        for part, rows in zip(padded, x.split(list(self.counts)), strict=True):
            part[: len(rows)] = rows
        out = x.new_empty((longest, *x.shape[1:]))
        dist.reduce_scatter_tensor(out, padded.flatten(0, 1))
        return out[: self.counts[self.rank]]

    def sum(self, x: Tensor) -> Tensor:
        if len(self.counts) > 1:
            dist.all_reduce(x)
        return x

    def max(self, x: Tensor) -> Tensor:
        if len(self.counts) > 1:
            dist.all_reduce(x, op=dist.ReduceOp.MAX)
        return x
