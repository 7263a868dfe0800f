"""Bytes of a shard by offset: local files directly, remote ones through the node's cache or by range."""

from __future__ import annotations

import os
from collections import OrderedDict

from distpre.data.cache import Cache
from distpre.data.remote import read_range
from distpre.data.shards import Stamp, is_local, local_path

OPEN_FILES = 128


class Reader:
    """shards: names; stamps: what they were when they were indexed. Holds up to OPEN_FILES of them open."""

    def __init__(self, shards: list[str], stamps: list[Stamp], cache: Cache | None = None):
        self.shards, self.stamps, self.cache = shards, stamps, cache
        self.open: OrderedDict[int, int] = OrderedDict()

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """Raises OSError where the shard has fewer bytes, or cannot be read."""
        file = self._file(shard)
        content = read_range(self.shards[shard], offset, size) if file is None else os.pread(file, size, offset)
        if len(content) != size:
            raise OSError(f"cut off: {len(content)} bytes of {size} at {offset}")
        return content

    def fetch(self, shard: int) -> None:
        """Brings a remote shard to the node ahead of its use."""
        if self.cache is not None and not is_local(self.shards[shard]):
            self.cache.fetch(self.shards[shard], self.stamps[shard])

    def _file(self, shard: int) -> int | None:
        if shard in self.open:
            self.open.move_to_end(shard)
            return self.open[shard]
        name = self.shards[shard]
        if is_local(name):
            path = local_path(name)
        elif self.cache is None or (kept := self.cache.fetch(name, self.stamps[shard])) is None:
            return None
        else:
            path = str(kept)
        self.open[shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if len(self.open) > OPEN_FILES:
            os.close(self.open.popitem(last=False)[1])
        return self.open[shard]

    def close(self) -> None:
        while self.open:
            os.close(self.open.popitem()[1])

    def __reduce__(self) -> tuple:
        return Reader, (self.shards, self.stamps, self.cache)
