"""Orders that look at ids: which samples may, or must, share a global batch.

Both hold one id a sample and the epoch's order in memory (16 bytes a sample) and are made anew for each epoch, in
O(n log n); the window does not apply. Exactly once holds as in order.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distpre.data.ids import MISSING
from distpre.data.permutation import derived, permute
from distpre.data.source import Source, Unreadable
from distpre.errors import DataError

BOUNDARY, ROUND = 5, 6  # what a key is for


class Pairing(Protocol):
    """Which samples share a global batch. Pure: the same order from the same arguments, on every rank."""

    def order(self, source: Source, seed: int, batch: int) -> Grouped: ...


class Grouped:
    """slots -> (epochs, ordinals), where `epoch` makes a whole epoch's ordinals, (size,), in memory."""

    def __init__(self, name: str, size: int, epoch: Callable[[int], NDArray[np.int64]]):
        self.name, self.size, self.make = name, size, epoch
        self.epoch = lru_cache(maxsize=2)(epoch)

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple:
        return Grouped, (self.name, self.size, self.make)

    def at(self, slots: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        epochs, places = np.divmod(np.asarray(slots, np.int64), self.size)
        ordinals = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            ordinals[here] = self.epoch(int(epoch))[places[here]]
        return epochs, ordinals


@dataclass(frozen=True)
class Apart:
    """No two samples of one global batch have the same id: one sample a participant.

    Raises DataError where that cannot be: fewer ids than the batch has slots, or an id with more samples than an epoch
    has whole batches.
    """

    id: str

    def order(self, source: Source, seed: int, batch: int) -> Grouped:
        groups = _groups(source, self.id)
        n, sizes = len(groups), np.bincount(groups)
        pieces = n // batch if n % batch == 0 else (n - 2 * (batch - 1)) // batch
        if sizes.max() > pieces:
            raise DataError(
                f"data: one {self.id} has {sizes.max()} samples, but an epoch of {n} samples has only "
                f"{max(pieces, 0)} whole batches of {batch} to keep them apart in.",
                "Take a smaller batch, or fewer samples of that id.",
            )
        if n % batch and min(len(_boundary(sizes, seed, side)) for side in (0, 1)) < batch:
            raise DataError(f"data: too few different {self.id} for a batch of {batch}.", "Take a smaller batch.")
        return Grouped(f"apart by {self.id}, batch {batch}", n, partial(_apart, groups, seed, batch))


@dataclass(frozen=True)
class Blocks:
    """`size` samples of one id stand together: M a class, or blocks of hard negatives where the id is a cluster.

    What is left of an id (count mod size) stands at the epoch's edges. Raises DataError unless the global batch is a
    multiple of size, so that no block is cut.
    """

    id: str
    size: int

    def order(self, source: Source, seed: int, batch: int) -> Grouped:
        if batch % self.size:
            raise DataError(f"data: blocks of {self.size} do not fit into a batch of {batch}.", "Take a divisor of it.")
        groups = _groups(source, self.id)
        return Grouped(f"blocks of {self.size} by {self.id}", len(groups), partial(_blocks, groups, seed, self.size))


@dataclass(frozen=True)
class Neighbours:
    """Blocks of `size` samples that look alike: a seed and some of its `among` nearest (OpenShape, Liu et al. 2023).

    field: of a vector a sample, as `python -m tools.embed` writes; near is by cosine. Seeds come in a random order and
    draw among their nearest that no seed has drawn before, anew in each epoch; what finds too few of them stands at the
    epoch's edges. Every process reads all vectors at its start and holds n · among numbers; an epoch is O(n · among).
    Raises DataError for a vector that cannot be read, and unless the global batch is a multiple of size.
    """

    field: str
    size: int
    among: int = 31

    def order(self, source: Source, seed: int, batch: int) -> Grouped:
        if batch % self.size:
            raise DataError(f"data: blocks of {self.size} do not fit into a batch of {batch}.", "Take a divisor of it.")
        near = nearest(_vectors(source, self.field), self.among)
        name = f"blocks of {self.size} of {self.among} neighbours by {self.field}"
        return Grouped(name, len(near), partial(_near, near, seed, self.size))


def _vectors(source: Source, field: str) -> NDArray[np.float32]:
    """(n, d) unit vectors."""
    if field not in source.fields:
        raise DataError(f"data: the order asks for the field {field!r}; the source has {', '.join(source.fields)}.")
    try:
        rows = [source.sample(source.raw(i, {field})).fields[field] for i in range(len(source))]
        vectors = np.stack(rows).astype(np.float32).reshape(len(rows), -1)
    except (Unreadable, ValueError) as e:
        raise DataError(f"data: the order wants a vector {field!r} of every sample: {e}.", "See tools.embed.") from e
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def nearest(vectors: NDArray, among: int) -> NDArray[np.int64]:
    """(n, among) the nearest others of each row by dot product, ties by their number; fewer where n is small."""
    found = []
    for start in range(0, len(vectors), 1024):
        near = vectors[start : start + 1024] @ vectors.T
        near[np.arange(len(near)), start + np.arange(len(near))] = -np.inf
        found.append(np.argsort(-near, axis=1, kind="stable")[:, : min(among, len(vectors) - 1)])
    return np.concatenate(found)


def _groups(source: Source, id: str) -> NDArray[np.int64]:
    """(n,) group number of each sample; a sample without the id is a group of its own."""
    if id not in source.ids:
        raise DataError(f"data: the order asks for the id {id!r}; the source has {', '.join(source.ids) or 'none'}.")
    column = source.id_columns(np.arange(len(source)))[id]
    missing = column == MISSING
    groups = np.unique(column, return_inverse=True)[1]
    return np.where(missing, groups.max() + 1 + missing.cumsum(), groups)


def _by_group(groups: NDArray, key: ArrayLike) -> tuple[NDArray, NDArray, NDArray]:
    """Ordinals sorted by group and shuffled inside it; where each group starts there; its size."""
    n = len(groups)
    order = np.lexsort((permute(np.arange(n), n, key), groups))
    sizes = np.bincount(groups)
    return order, sizes.cumsum() - sizes, sizes


def _apart(groups: NDArray, seed: int, batch: int, epoch: int) -> NDArray[np.int64]:
    """An epoch lies over `first` slots of a batch that the epoch before began, whole batches, and `last` of another.

    Whole batches: samples sorted by group are dealt out one batch after another, so a group no larger than their number
    never meets itself. The batch across a boundary takes groups drawn for that boundary, which both epochs can compute:
    some for its older part, others for its newer part.
    """
    n, start = len(groups), epoch * len(groups)
    first, last = -start % batch, (start + n) % batch
    order, starts, sizes = _by_group(groups, derived(seed, epoch, ROUND))
    head = _boundary(sizes, seed, epoch)[start % batch :][:first] if first else np.empty(0, np.int64)
    tail = _boundary(sizes, seed, epoch + 1)[:last]
    edges = order[starts[head]], order[starts[tail] + sizes[tail] - 1]
    rest = order[~np.isin(order, np.concatenate(edges))]
    left = np.bincount(groups[rest], minlength=len(sizes))
    rest = rest[np.lexsort((groups[rest], -left[groups[rest]]))]
    dealt = rest.reshape(batch, -1).T  # (whole batches, batch)
    shuffle = derived(seed, epoch, ROUND, 1 + rest).reshape(dealt.T.shape).T.argsort(1)
    return np.concatenate([edges[0], np.take_along_axis(dealt, shuffle, 1).ravel(), edges[1]])


def _boundary(sizes: NDArray, seed: int, boundary: int) -> NDArray[np.int64]:
    """Groups in the order in which the batch across this boundary takes them, one sample of each.

    A group of one sample serves every other boundary only: it cannot stand at both ends of an epoch.
    """
    groups = np.flatnonzero((sizes > 1) | _singles(sizes, seed, boundary))
    return groups[permute(np.arange(len(groups)), len(groups), derived(seed, BOUNDARY, boundary)).argsort()]


def _singles(sizes: NDArray, seed: int, boundary: int) -> NDArray[np.bool_]:
    side = derived(seed, BOUNDARY, np.arange(len(sizes))) & np.uint64(1)
    return (sizes == 1) & (side == boundary % 2)


def _blocks(groups: NDArray, seed: int, size: int, epoch: int) -> NDArray[np.int64]:
    """Left-over samples fill up the block that the epoch before began; then blocks; then the other left-overs."""
    n = len(groups)
    key = derived(seed, epoch, ROUND)
    order, starts, sizes = _by_group(groups, key)
    within = np.arange(n) - starts[groups[order]]
    whole = within < (sizes // size * size)[groups[order]]
    return _laid(order[whole].reshape(-1, size), order[~whole], key, -(epoch * n) % size)


def _near(near: NDArray, seed: int, size: int, epoch: int) -> NDArray[np.int64]:
    n, key = len(near), derived(seed, epoch, ROUND)
    rng = np.random.default_rng(int(key))
    free, blocks, left = np.ones(n, bool), [], []
    for first in permute(np.arange(n), n, key).tolist():
        if not free[first]:
            continue
        free[first] = False
        others = near[first][free[near[first]]]
        if len(others) < size - 1:
            left.append(first)
            continue
        drawn = rng.choice(others, size - 1, replace=False)
        free[drawn] = False
        blocks.append([first, *drawn])
    made = np.array(blocks, np.int64).reshape(-1, size)
    return _laid(made, np.array(left, np.int64), key, -(epoch * n) % size)


def _laid(blocks: NDArray, left: NDArray, key: ArrayLike, lead: int) -> NDArray[np.int64]:
    """Blocks in a random order; `lead` of the left-over samples, or of a block, before them, the others after."""
    blocks = blocks[permute(np.arange(len(blocks)), len(blocks), derived(key, 1))] if len(blocks) else blocks
    if len(left) < lead and len(blocks):
        blocks, left = blocks[:-1], np.concatenate([left, blocks[-1]])
    left = left[permute(np.arange(len(left)), len(left), derived(key, 2))] if len(left) else left
    return np.concatenate([left[:lead], blocks.ravel(), left[lead:]])
