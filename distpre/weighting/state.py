"""Numbers a sample over the whole data set: rank r of N holds the samples n·r/N .. n·(r + 1)/N - 1, by ordinal.

k fp32 columns cost 4·k·n/N bytes a rank: two columns of 10^9 samples on 64 ranks are 125 MB. A step moves the global
batch's ordinals and values once. The parts in a commit are read by ordinal, so any number of ranks takes them up.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from distpre.errors import CheckpointError
from distpre.group import device, gathered, rank, total, world_size


class SampleState:
    """columns (k names) over `size` samples of the source with this digest; NaN until first written."""

    def __init__(self, size: int, columns: tuple[str, ...], digest: str):
        self.size, self.columns, self.digest = size, columns, digest
        self.first, self.end = (size * r // world_size() for r in (rank(), rank() + 1))
        self.values = torch.full((self.end - self.first, len(columns)), torch.nan)

    def column(self, name: str) -> Tensor:
        """This rank's part, (n_r,), to read and to write."""
        return self.values[:, self.columns.index(name)]

    def sampled(self, names: str | tuple[str, ...], most: int) -> Tensor:
        """The column's values over all ranks, on each (m,), or several columns' (m, k): of every sample, or of every
        step-th, at most `most`, and of those whose values are all finite.
        """
        step = max(1, -(-self.size // most))  # the order on the disk is no order of value
        mine = self.values[-self.first % step :: step, self._places(names)]
        values = gathered(mine.to(device())).cpu()
        values = values[values.isfinite().all(1)]
        return values.squeeze(1) if isinstance(names, str) else values

    def _places(self, names: str | tuple[str, ...]) -> list[int]:
        return [self.columns.index(name) for name in ((names,) if isinstance(names, str) else names)]

    def write(self, names: str | tuple[str, ...], ordinals: Tensor, values: Tensor) -> None:
        """Values (b,) of this rank's samples, or (b, several names), go to their owners; every rank calls it, any b."""
        where, what = gathered(ordinals).cpu(), gathered(values.to(ordinals.device, torch.float32)).cpu()
        mine = (where >= self.first) & (where < self.end)
        columns = self._places(names)
        self.values[(where[mine] - self.first)[:, None], torch.tensor(columns)] = what[mine].reshape(-1, len(columns))

    def read(self, ordinals: Tensor) -> Tensor:
        """Ordinals (b,) of this rank's samples -> (b, k) on their device; every rank calls it, with any b."""
        where = gathered(ordinals).cpu()
        asked = gathered(torch.full_like(ordinals, rank())) == rank()
        mine = (where >= self.first) & (where < self.end)
        known = torch.zeros(len(where), len(self.columns))
        known[mine] = self.values[where[mine] - self.first]
        return total(known.to(ordinals.device))[asked]

    def parts(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """(tensors, metadata) of this rank's file in a commit."""
        facts = {"first": str(self.first), "size": str(self.size), "digest": self.digest}
        return {"values": self.values}, facts | {"columns": ",".join(self.columns)}

    def load(self, files: list[Path]) -> None:
        """Takes this rank's rows out of the parts that a commit holds, from any number of ranks.

        Raises CheckpointError for a state of another source or of other columns, and where parts are missing.
        """
        missing = self.end - self.first
        for path in files:
            with safe_open(path, "pt") as part:
                facts = part.metadata()
                if facts["digest"] != self.digest:
                    raise CheckpointError(
                        f"{path}: holds {facts['columns']} of the samples of another source ({facts['digest']}, this "
                        f"run has {self.digest}).",
                        "Restore the shards, or train in a new run.dir.",
                    )
                if facts["columns"] != ",".join(self.columns):
                    kept = ", ".join(self.columns)
                    raise CheckpointError(
                        f"{path}: holds {facts['columns']} of each sample, the recipe's weighting {kept}.",
                        "Go on with the weighting that the run began with, or train in a new run.dir.",
                    )
                stored, start = part.get_slice("values"), int(facts["first"])
                low, high = max(self.first, start), min(self.end, start + stored.get_shape()[0])
                if low < high:
                    self.values[low - self.first : high - self.first] = stored[low - start : high - start]
                    missing -= high - low
        if missing:
            raise CheckpointError(f"{missing} samples are in no part of the commit's state.", "Take an older commit.")
