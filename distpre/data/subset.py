"""A part of a source, by ordinals: a domain, or a buffer of earlier samples. Nothing is copied but the ordinals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from distpre.data.ids import stable_hash
from distpre.data.mixture import Mixture
from distpre.data.order import Order
from distpre.data.permutation import derived, permute
from distpre.data.proof import MODULUS, Proof
from distpre.data.source import Raw, Source
from distpre.errors import DataError
from distpre.types import Sample

BUFFER = 7  # what a key is for (pairing.py has 5 and 6)
CHUNK = 1 << 20


class Subset:
    """The samples `ordinals` (8 bytes each) of a source, in its order; to the loader a source like any other."""

    def __init__(self, source: Source | Mixture | Subset, ordinals: NDArray[np.int64]):
        self.source, self.ordinals = source, np.unique(np.asarray(ordinals, np.int64))
        self.fields, self.ids, self.optional = source.fields, source.ids, source.optional

    def __len__(self) -> int:
        return len(self.ordinals)

    @property
    def digest(self) -> str:
        which = hashlib.blake2b(self.ordinals.astype("<i8").tobytes(), digest_size=16).hexdigest()
        return hashlib.blake2b(f"{self.source.digest}/{which}".encode(), digest_size=16).hexdigest()

    def order(self, seed: int, window: int) -> Order:
        """Windows follow the shards, as a source's do."""
        counts = [len(self)]
        if isinstance(self.source, Source):
            counts = np.unique(self.source.manifest.locate(self.ordinals)[0], return_counts=True)[1]
        return Order(counts, seed, window)

    def proofs(self) -> list[Proof]:
        return [Proof(self._amount(np.arange(len(self))), len(self))]

    def amounts(self, epochs: NDArray[np.int64], ordinals: NDArray[np.int64]) -> list[tuple[int, int, int, int]]:
        parts = [(int(epoch), ordinals[epochs == epoch]) for epoch in np.unique(epochs)]
        return [(0, epoch, len(its), self._amount(its)) for epoch, its in parts]

    def _amount(self, mine: NDArray[np.int64]) -> int:
        its = self.ordinals[mine]
        return sum(amount for *_, amount in self.source.amounts(np.zeros_like(its), its)) % MODULUS

    def id_columns(self, ordinals: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        return self.source.id_columns(self.ordinals[ordinals])

    def where(self, ordinal: int) -> tuple[str, int, str]:
        return self.source.where(int(self.ordinals[ordinal]))

    def raw(self, ordinal: int, only: set[str] | None = None) -> Raw:
        raw = self.source.raw(int(self.ordinals[ordinal]), only)
        return Raw(raw.key, ordinal, raw.members)

    def sample(self, raw: Raw) -> Sample:
        return self.source.sample(Raw(raw.key, int(self.ordinals[raw.ordinal]), raw.members))

    @property
    def remote(self) -> bool:
        return self.source.remote

    def fetches(self, ordinals: NDArray[np.int64]) -> list[Callable[[], None]]:
        return self.source.fetches(self.ordinals[ordinals])


def domain(source: Source, where: dict[str, list[int | str]]) -> Source | Subset:
    """The samples that have, for every id named, one of its values (a text stands for its hash, as in ids.py).

    Raises DataError naming a value that no sample has, and where no sample has them all.
    """
    if not where:
        return source
    wanted = {id: {_value(v): v for v in values} for id, values in where.items()}
    seen: dict[str, set[int]] = {id: set() for id in where}
    found = []
    for start in range(0, len(source), CHUNK):
        ordinals = np.arange(start, min(start + CHUNK, len(source)))
        columns, keep = source.id_columns(ordinals), np.ones(len(ordinals), bool)
        for id, values in wanted.items():
            keep &= np.isin(columns[id], list(values))
            seen[id] |= set(np.unique(columns[id]).tolist()) & set(values)
        found.append(ordinals[keep])
    for id, values in wanted.items():
        for value in set(values) - seen[id]:
            what = f"data: no sample of the source has the {id} {values[value]!r}."
            raise DataError(what, "`python -m tools.inspect SHARDS` shows samples with their ids.")
    ordinals = np.concatenate(found)
    if not len(ordinals):
        raise DataError(f"data: no sample of the source has all of {where}.", "Mend `where`, or leave it out.")
    return Subset(source, ordinals)


def _value(value: int | str) -> int:
    return value if isinstance(value, int) else stable_hash(value.encode())


def buffer(source: Source | Subset, size: int, seed: int, order: Order, slots: int) -> NDArray[np.int64]:
    """`size` ordinals drawn evenly from those that the first `slots` slots of the order hold.

    What a reservoir keeps of a stream without repeats (Vitter 1985) has this distribution; drawn by arithmetic there is
    nothing to carry from step to step. Raises DataError where fewer than `size` are held.
    """
    seen = np.sort(order.at(np.arange(min(slots, len(source))))[1])
    if size > len(seen):
        what = f"data: a buffer of {size} samples is larger than the {len(seen)} of its domain that were seen."
        raise DataError(what, "Lower data.replay.samples, or give it as a `share`.")
    return np.sort(seen[permute(np.arange(size), len(seen), derived(seed, BUFFER))])


def replayed(current: Source | Subset, earlier: dict[str, tuple[Source | Subset, NDArray]], weight: float) -> Mixture:
    """The current samples with those of the buffers in `weight` of the slots; the id `part` is 0 and 1 for them."""
    pool: Source | Subset | Mixture
    if len(earlier) == 1:
        [pool] = [Subset(source, ordinals) for source, ordinals in earlier.values()]
    else:
        whole = Mixture({name: (source, 1.0) for name, (source, _) in earlier.items()})
        starts = whole.ends - [len(source) for source, _ in earlier.values()]
        picks = [start + ordinals for start, (_, ordinals) in zip(starts, earlier.values(), strict=True)]
        pool = Subset(whole, np.concatenate(picks))
    rest = round(1 - weight, 9)
    return Mixture({"current": (current, rest), "replay": (pool, weight)})


def herded(embeddings: NDArray, size: int) -> NDArray[np.int64]:
    """Rows (n, d) -> `size` of them, picked one by one so that their mean stays nearest to the mean of all.

    iCaRL's exemplars (Rebuffi et al. 2017, algorithm 4); O(size · n · d).
    """
    rows = embeddings.astype(np.float64)
    mean, sum_, picked = rows.mean(0), np.zeros(rows.shape[1]), np.empty(size, np.int64)
    free = np.ones(len(rows), bool)
    for k in range(size):
        # argmin |mean - (sum + row)/(k+1)|^2, without the part that no row changes
        gap = (rows * rows).sum(1) / (k + 1) - 2 * rows @ (mean - sum_ / (k + 1))
        picked[k] = np.where(free, gap, np.inf).argmin()
        free[picked[k]] = False
        sum_ += rows[picked[k]]
    return picked
