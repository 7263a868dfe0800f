"""Several sources by weight, each passed over exactly once in its own epochs.

Slots are dealt in cycles. With weights 2 : 1 a cycle has three slots, two for the first source and one for the second,
in an order that a keyed permutation shuffles anew in each cycle. How many slots a source had before slot s is therefore
arithmetic, and a mixture has no cursors to keep.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distpre.data.order import Order
from distpre.data.permutation import derived, permute
from distpre.data.proof import Proof
from distpre.data.source import Raw, Source
from distpre.errors import DataError
from distpre.types import Sample

CYCLES = 4  # what a key is for (order.py and assemble.py have 1 to 3)
LONGEST_CYCLE = 10_000
PART = "part"


class Mixture:
    """Sources as one: ordinals count through them in their order. parts: {name: (source, weight)}.

    Raises DataError where sources differ in the names of their fields or ids, or weights are not positive.
    """

    def __init__(self, parts: dict[str, tuple[Source, float]]):
        self.names, self.parts = list(parts), [source for source, _ in parts.values()]
        self.quotas = quotas({name: weight for name, (_, weight) in parts.items()})
        self.fields, self.ids = self.parts[0].fields, self.parts[0].ids
        self.optional = frozenset[str]().union(*(source.optional for source in self.parts))
        for name, source in zip(self.names, self.parts, strict=True):
            if set(source.fields) != set(self.fields) or set(source.ids) != set(self.ids):
                raise DataError(
                    f"data: source {name!r} has fields {sorted(source.fields)} and ids {sorted(source.ids)}, source "
                    f"{self.names[0]!r} has {sorted(self.fields)} and {sorted(self.ids)}.",
                    "Sources of a mixture need the same names; their extensions may differ.",
                )
        self.ends = np.cumsum([len(source) for source in self.parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def digest(self) -> str:
        each = [f"{source.digest}:{quota}" for source, quota in zip(self.parts, self.quotas, strict=True)]
        return hashlib.blake2b(",".join(each).encode(), digest_size=16).hexdigest()

    def order(self, seed: int, window: int) -> MixtureOrder:
        orders = [source.order(int(derived(seed, i) >> np.uint64(1)), window) for i, source in enumerate(self.parts)]
        return MixtureOrder(orders, self.quotas, seed)

    def proofs(self) -> list[Proof]:
        return [proof for source in self.parts for proof in source.proofs()]

    def amounts(self, epochs: NDArray[np.int64], ordinals: NDArray[np.int64]) -> list[tuple[int, int, int, int]]:
        out = []
        for part, (source, end) in enumerate(zip(self.parts, self.ends, strict=True)):
            here = (ordinals >= end - len(source)) & (ordinals < end)
            inside = source.amounts(epochs[here], ordinals[here] - (end - len(source)))
            out += [(part, epoch, samples, amount) for _, epoch, samples, amount in inside]
        return out

    def id_columns(self, ordinals: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """The sources' ids, and `part`: which source it is."""
        columns = {name: np.empty(len(ordinals), np.int64) for name in (*self.ids, PART)}
        for part, (source, end) in enumerate(zip(self.parts, self.ends, strict=True)):
            here = (ordinals >= end - len(source)) & (ordinals < end)
            for name, column in source.id_columns(ordinals[here] - (end - len(source))).items():
                columns[name][here] = column
            columns[PART][here] = part
        return columns

    def where(self, ordinal: int) -> tuple[str, int, str]:
        source, inside = self._of(ordinal)
        return source.where(inside)

    def raw(self, ordinal: int, only: set[str] | None = None) -> Raw:
        source, inside = self._of(ordinal)
        raw = source.raw(inside, only)
        return Raw(raw.key, ordinal, raw.members)

    def sample(self, raw: Raw) -> Sample:
        source, inside = self._of(raw.ordinal)
        return source.sample(Raw(raw.key, inside, raw.members))

    @property
    def remote(self) -> bool:
        return any(source.remote for source in self.parts)

    def fetches(self, ordinals: NDArray[np.int64]) -> list[Callable[[], None]]:
        out = []
        for source, end in zip(self.parts, self.ends, strict=True):
            here = (ordinals >= end - len(source)) & (ordinals < end)
            out += source.fetches(ordinals[here] - (end - len(source))) if source.remote else []
        return out

    def _of(self, ordinal: int) -> tuple[Source, int]:
        part = int(np.searchsorted(self.ends, ordinal, "right"))
        return self.parts[part], ordinal - int(self.ends[part] - len(self.parts[part]))


class MixtureOrder:
    """slots -> (epochs of their source, ordinals of the mixture). quotas: slots of each source in a cycle."""

    def __init__(self, orders: list[Order], quotas: list[int], seed: int):
        self.orders, self.quotas, self.seed = orders, quotas, seed
        self.first = np.cumsum([0] + [len(order) for order in orders])
        self.dealt = np.repeat(np.arange(len(orders)), quotas)  # a cycle, unshuffled

    def __str__(self) -> str:
        return f"mixture {':'.join(map(str, self.quotas))}, {self.orders[0]}"

    def at(self, slots: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        sources, draws = self.draws(np.asarray(slots, np.int64))
        epochs, ordinals = np.empty_like(draws), np.empty_like(draws)
        for source, order in enumerate(self.orders):
            here = sources == source
            epochs[here], inside = order.at(draws[here])
            ordinals[here] = inside + self.first[source]
        return epochs, ordinals

    def draws(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """slots (m,) -> which source (m,), and the how-manieth sample of it (m,)."""
        length = len(self.dealt)
        cycles, inside = np.divmod(slots, length)
        unique, row = np.unique(cycles, return_inverse=True)
        shuffled = permute(np.arange(length)[None, :], length, derived(self.seed, CYCLES, unique)[:, None])
        sources = self.dealt[shuffled]  # (cycles, length)
        earlier = np.zeros_like(sources)
        for source in range(len(self.orders)):
            mine = sources == source
            earlier[mine] = (mine.cumsum(1) - 1)[mine]
        source = sources[row, inside]
        return source, cycles * np.asarray(self.quotas)[source] + earlier[row, inside]


def quotas(weights: dict[str, float]) -> list[int]:
    """The smallest whole numbers in the weights' ratio. Raises DataError where that needs too long a cycle."""
    for name, weight in weights.items():
        if not weight > 0:
            raise DataError(f"data: source {name!r} has weight {weight}.", "Give it a positive one, or leave it out.")
    exact = [Fraction(str(weight)) for weight in weights.values()]
    common = math.lcm(*(f.denominator for f in exact))
    whole = [int(f * common) for f in exact]
    whole = [w // math.gcd(*whole) for w in whole]
    if sum(whole) > LONGEST_CYCLE:
        raise DataError(f"data: the weights {weights} need a cycle of {sum(whole)} slots.", "Round them.")
    return whole
