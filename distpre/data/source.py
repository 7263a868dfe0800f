"""A source: shards, the fields that a sample takes from them, and the ids that it carries."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from distpre.data import ids as id_columns
from distpre.data.cache import Cache
from distpre.data.decode import decode
from distpre.data.index import ShardIndex
from distpre.data.manifest import Entry, Manifest, open_manifest
from distpre.data.order import Order
from distpre.data.proof import Proof
from distpre.data.reader import Reader
from distpre.data.record import FLAWS
from distpre.data.shards import expand, is_local
from distpre.errors import DataError
from distpre.types import Sample


@dataclass(frozen=True)
class Raw:
    """A sample's bytes, by field."""

    key: str
    ordinal: int
    members: dict[str, bytes]


class Unreadable(Exception):
    """A sample that cannot be had; its text is the reason."""


class Source:
    """fields: {name: extension}; ids: {name: id path (ids.py)}; optional: fields that a sample may lack."""

    def __init__(
        self,
        manifest: Manifest,
        reader: Reader,
        fields: dict[str, str],
        ids: dict[str, str],
        optional: frozenset[str] = frozenset(),
    ):
        self.manifest, self.reader, self.fields, self.ids, self.optional = manifest, reader, fields, ids, optional

    @classmethod
    def open(
        cls,
        shards: str | list[str],
        fields: dict[str, str],
        ids: dict[str, str] | None = None,
        *,
        optional: Iterable[str] = (),
        note: Callable[[str], None] = lambda text: None,
        cache: str | None = None,
        cache_bytes: int | None = None,
    ) -> Source:
        """Opens the shards' indexes, or builds them and says so through `note`.

        cache: node-local folder for remote shards. Raises DataError for missing shards, an empty list, a source without
        samples, and a field or an id that a shard's samples do not have.
        """
        ids = ids or {}
        fields = {name: extension.lower() for name, extension in fields.items()}
        names = expand(shards)
        store = Cache(cache, cache_bytes) if cache else None
        manifest = open_manifest(names, set(ids.values()), note=note, cache=store)
        if not len(manifest):
            raise DataError(f"data: shards {shards!r} hold no sample.", "Write them with `python -m tools.shard`.")
        for number, entry in enumerate(manifest.entries):
            _check_fields(entry, {name: e for name, e in fields.items() if name not in optional})
            _check_ids(entry, manifest.shard(number) if ids and entry.header.count else None, ids)
        reader = Reader(names, [e.header.stamp for e in manifest.entries], store)
        return cls(manifest, reader, fields, ids, frozenset(optional))

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def digest(self) -> str:
        """Of every byte of every shard, in order."""
        return self.manifest.digest

    def order(self, seed: int, window: int) -> Order:
        return Order(self.manifest.counts, seed, window)

    def proofs(self) -> list[Proof]:
        """One of each part that has epochs of its own; a source has one part, a mixture several."""
        return [Proof(self.manifest.hash_total, len(self))]

    def amounts(self, epochs: NDArray[np.int64], ordinals: NDArray[np.int64]) -> list[tuple[int, int, int, int]]:
        """What these slots add to the proofs: [(part, epoch, samples, sum)]."""
        parts = [(int(epoch), ordinals[epochs == epoch]) for epoch in np.unique(epochs)]
        return [(0, epoch, len(its), self.manifest.hash_sum(its)) for epoch, its in parts]

    def where(self, ordinal: int) -> tuple[str, int, str]:
        """Shard, row in it, key."""
        shard, row = self._place(ordinal)
        return self.manifest.entries[shard].shard, row, self.manifest.shard(shard).key(row)

    def id_columns(self, ordinals: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """{id: (m,)}"""
        return {name: self.manifest.column(f"id:{path}", ordinals) for name, path in self.ids.items()}

    def raw(self, ordinal: int, only: set[str] | None = None) -> Raw:
        """Its members' bytes, of all fields or `only` of some. Raises Unreadable where a needed field is missing."""
        shard, row = self._place(ordinal)
        index = self.manifest.shard(shard)
        flaw = int(index.column("flaw")[row])
        if flaw:
            raise Unreadable(FLAWS[flaw])
        members = index.members(row)
        wanted = {}
        for name, extension in self.fields.items():
            if extension not in members and name in self.optional:
                continue
            if extension not in members:
                raise Unreadable(f"no .{extension} among {', '.join('.' + e for e in members)}")
            if only is None or name in only:
                wanted[name] = members[extension]
        for name, path in self.ids.items():
            if int(index.column(f"id:{path}")[row]) == id_columns.MISSING:
                raise Unreadable(f"no {path} for the id {name}")
        if not wanted:
            raise Unreadable(f"none of {', '.join('.' + e for e in self.fields.values())}")
        try:
            return Raw(index.key(row), ordinal, self._bytes(shard, wanted))
        except OSError as e:
            raise Unreadable(f"read: {e}") from e

    def sample(self, raw: Raw) -> Sample:
        """Decoded. Raises Unreadable."""
        fields = {}
        for name, content in raw.members.items():
            try:
                fields[name] = decode(self.fields[name], content)
            except MemoryError:
                raise
            except Exception as e:
                raise Unreadable(f"decode .{self.fields[name]}: {type(e).__name__}: {e}") from e
        return Sample(raw.key, raw.ordinal, fields)

    def samples(self) -> Iterator[Sample]:
        """Every sample in manifest order. Raises Unreadable at the first bad one."""
        for ordinal in range(len(self)):
            yield self.sample(self.raw(ordinal))

    @property
    def remote(self) -> bool:
        """Whether shards come through the node's cache, and may be fetched ahead."""
        return self.reader.cache is not None and not all(map(is_local, self.reader.shards))

    def fetches(self, ordinals: NDArray[np.int64]) -> list[Callable[[], None]]:
        """What brings the shards of these samples to the node, in the samples' order."""
        shards, first = np.unique(self.manifest.locate(ordinals)[0], return_index=True)
        return [partial(self.reader.fetch, shard) for shard in shards[first.argsort()].tolist()]

    def _place(self, ordinal: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.manifest.ends, ordinal, "right"))
        return shard, ordinal - int(self.manifest.ends[shard] - self.manifest.counts[shard])

    def _bytes(self, shard: int, wanted: dict[str, tuple[int, int]]) -> dict[str, bytes]:
        """One read for all members where they lie together, as they do in a tar of samples."""
        start = min(offset for offset, _ in wanted.values())
        end = max(offset + size for offset, size in wanted.values())
        if end - start > 2 * sum(size for _, size in wanted.values()) + (1 << 16):
            return {name: self.reader.read(shard, offset, size) for name, (offset, size) in wanted.items()}
        content = self.reader.read(shard, start, end - start)
        return {name: content[offset - start : offset - start + size] for name, (offset, size) in wanted.items()}


def _check_fields(entry: Entry, fields: dict[str, str]) -> None:
    there = entry.header.extensions
    for name, extension in fields.items():
        if entry.header.count and not there.get(extension):
            listed = ", ".join(f"{e} ({n})" for e, n in sorted(there.items()))
            raise DataError(
                f"data: field {name!r} wants .{extension}, but no sample of {entry.shard} has one; it holds {listed}.",
                _nearest(extension, list(there), f"fields.{name}"),
            )


def _check_ids(entry: Entry, index: ShardIndex | None, ids: dict[str, str]) -> None:
    for name, path in ids.items():
        if index is None or (index.column(f"id:{path}") != id_columns.MISSING).any():
            continue
        raise DataError(
            f"data: id {name!r} is {path}, but no sample of {entry.shard} has it; it holds "
            f"{', '.join(entry.header.extensions)}.",
            f"Set ids.{name} to an extension, or to json.KEY of a .json member.",
        )


def _nearest(wanted: str, there: list[str], key: str) -> str:
    near = difflib.get_close_matches(wanted, there, n=1, cutoff=0.3)
    return f"Did you mean {key}: {near[0]}?" if near else f"Set {key} to one of them."
