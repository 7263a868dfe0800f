"""Negatives beyond the batch: columns that each rank keeps a shard of, and synthetic ones of a row's own.

A bank's vectors must live in the space of the term's columns; a queue is fed with those, so it does. Whatever remembers
has parts() and load(): a rank's part, and the files of all ranks of the job that saved it, however many they were.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from distpre.contrast.block import Block
from distpre.contrast.layout import Axis, exchange
from distpre.errors import RecipeError
from distpre.group import rank, world_size


class Bank(Protocol):
    def columns(self, like: Tensor) -> Block:
        """This rank's shard as negatives for every row; like: vectors (n, d) that tell width, dtype and device."""

    def private(self, rows: Tensor, step: int) -> Tensor | None:
        """(n, m, d) negatives for each of this rank's rows alone, without gradient; every rank calls it."""

    def push(self, vectors: Tensor, present: Tensor) -> None:
        """The step's columns (n, d), after they were used; every rank calls it."""


class Queue:
    """The last `size` columns of the global batches, first in, first out (MoCo, He et al. 2020, section 3.2).

    A vector has its number in the sequence of all ever pushed, in rank order within a step, so the queue holds the same
    set at any number of ranks. A rank keeps what it pushed itself.
    """

    def __init__(self, size: int):
        if size < 1:
            raise RecipeError(f"bank.size {size} will not do.", "It may be a whole number of at least 1.")
        self.size, self.pushed = size, 0
        self.vectors: Tensor | None = None
        self.number = torch.zeros(0, dtype=torch.long)

    def columns(self, like: Tensor) -> Block:
        if self.vectors is None:
            return Block(like.detach().new_zeros((0, *like.shape[1:])))
        self.vectors, self.number = self.vectors.to(like), self.number.to(like.device)
        return Block(self.vectors)

    def private(self, rows: Tensor, step: int) -> None:
        return None

    def push(self, vectors: Tensor, present: Tensor) -> None:
        new = vectors.detach()
        new = new[present & new.flatten(1).isfinite().all(1)]  # else one bad sample would spoil steps to come
        counts = [row[0] for row in exchange([len(new)], new.device)]
        first = self.pushed + sum(counts[: rank()])
        number = torch.arange(first, first + len(new), device=new.device)
        self.pushed += sum(counts)
        old = self.columns(new).vectors
        self._keep(torch.cat([old, new]), torch.cat([self.number.to(new.device), number]))

    def parts(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        vectors = torch.zeros(0, 0) if self.vectors is None else self.vectors
        return {"vectors": vectors.cpu(), "number": self.number.cpu(), "pushed": torch.tensor([self.pushed])}, {}

    def load(self, files: list[Path]) -> None:
        """Deals what all ranks had to as many as there are now, by number."""
        parts = [load_file(file) for file in files]
        self.pushed = int(parts[0]["pushed"])
        some = [part for part in parts if len(part["number"])]
        if some:
            number = torch.cat([part["number"] for part in some])
            mine = number % world_size() == rank()
            self._keep(torch.cat([part["vectors"] for part in some])[mine], number[mine])

    def _keep(self, vectors: Tensor, number: Tensor) -> None:
        young = number >= self.pushed - self.size
        self.vectors, self.number = vectors[young], number[young]


class HardMixing(Queue):
    """A queue, and for each row synthetic negatives mixed from its hardest (MoCHi, Kalantidis et al. 2020, eq. 3-4).

    Of the `hardest` queue entries by <x, n>: `pairs` mixtures a·n_i + (1 - a)·n_j with a ~ U(0, 1), and `with_row`
    mixtures b·x + (1 - b)·n_j with b ~ U(0, 1/2), all of unit length. From step `start` on. Draws depend on (seed,
    step) and a row's place in the global batch alone. Each rank holds all `size` vectors while it mixes.
    """

    def __init__(self, size: int, hardest: int, pairs: int, with_row: int = 0, start: int = 0, seed: int = 0):
        super().__init__(size)
        self.hardest, self.pairs, self.with_row, self.start, self.seed = hardest, pairs, with_row, start, seed

    @torch.no_grad()
    def private(self, rows: Tensor, step: int) -> Tensor | None:
        shard = self.columns(rows).vectors
        counts = exchange([len(rows), len(shard)], rows.device)
        if step < self.start or sum(held for _, held in counts) == 0:
            return None
        axis = Axis(tuple(held for _, held in counts), rank())
        vectors, number = axis.gather(shard), axis.gather(self.number)
        vectors = vectors[number.argsort()]
        near = (rows @ vectors.T).topk(min(self.hardest, len(vectors)), dim=1).indices  # (n, h)
        first = sum(n for n, _ in counts[: rank()])
        draws = self._draws(step, sum(n for n, _ in counts), rows)[first : first + len(rows)]
        one, two, third = ((draws[..., k] * near.shape[1]).long().clamp(max=near.shape[1] - 1) for k in (0, 1, 2))
        share = draws[..., 3, None]
        left, right = (vectors[near.gather(1, at[:, : self.pairs])] for at in (one, two))
        mixed = share[:, : self.pairs] * left + (1 - share[:, : self.pairs]) * right
        share = share[:, self.pairs :] / 2
        mine = share * rows[:, None] + (1 - share) * vectors[near.gather(1, third[:, self.pairs :])]
        return F.normalize(torch.cat([mixed, mine], 1), dim=2)

    def _draws(self, step: int, batch: int, like: Tensor) -> Tensor:
        """(B, m, 4) uniform numbers, the same on every rank."""
        generator = torch.Generator().manual_seed((self.seed << 32) + step)
        return torch.rand(batch, self.pairs + self.with_row, 4, generator=generator).to(like)


class StaticBank:
    """Vectors made before the run (captions of a corpus, class anchors): tensor `key` (M, d) of a safetensors file.

    Rank r of N reads and holds rows r, r + N, ...; nothing is gathered. Raises RecipeError.
    """

    def __init__(self, file: Path, key: str = "vectors"):
        self.file, self.key = file, key
        self.rows: Tensor | None = None

    def columns(self, like: Tensor) -> Block:
        if self.rows is None:
            self.rows = self._read().to(like)
        if self.rows.shape[1:] != like.shape[1:]:
            what = (
                f"bank.file {self.file} holds vectors of width {self.rows.shape[-1]}, the term's have {like.shape[-1]}."
            )
            raise RecipeError(what, "Make the bank with the tower that embeds the columns.")
        return Block(self.rows)

    def private(self, rows: Tensor, step: int) -> None:
        return None

    def push(self, vectors: Tensor, present: Tensor) -> None:
        return None

    def _read(self) -> Tensor:
        try:
            with safe_open(self.file, "pt") as opened:
                part = opened.get_slice(self.key)
                return part[rank() :: world_size()]
        except (OSError, SafetensorError) as e:
            remedy = f"Give a safetensors file with a tensor {self.key!r} of shape (M, d)."
            raise RecipeError(f"bank.file {self.file} cannot be read: {e}.", remedy) from e
