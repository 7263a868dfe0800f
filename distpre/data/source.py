"""A source: shards, the fields taken from them, and the ids that their samples carry."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from braceexpand import braceexpand

from distpre.data.decode import decode
from distpre.data.manifest import ShardIndex, index_of
from distpre.errors import DataError
from distpre.types import Sample

CACHE = Path("~/.cache/distpre/shards")


class Source:
    """Samples by ordinal: shards in the order given, samples in the order of each tar.

    Picklable; files are opened in the process that reads. Nothing of a sample is held but its place.
    """

    def __init__(self, shards: list[Path], indices: list[ShardIndex], fields: dict[str, str], ids: dict[str, str]):
        self.shards, self.fields, self.ids = shards, fields, ids
        self.keys = [index.keys for index in indices]
        self.sizes = tuple(len(index) for index in indices)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)])
        wanted = sorted({*fields.values(), *(path.split(".", 1)[0] for path in ids.values())})
        self.members = {extension: i for i, extension in enumerate(wanted)}
        self.place = [_columns(index, wanted) for index in indices]
        self.digest = hashlib.sha256("\n".join(index.fingerprint for index in indices).encode()).hexdigest()[:32]
        self._files: dict[int, int] = {}
        self._process = os.getpid()

    @classmethod
    def open(
        cls,
        shards: str | list[str],
        fields: dict[str, str],
        ids: dict[str, str],
        *,
        note: Callable[[str], None],
        cache: str | None = None,
    ) -> Source:
        """Finds every shard, its index (made at first use, and said so), and every field in it.

        shards: a path or URL, a brace list, several joined by `::`, or a list of those. URLs of any fsspec file system
        are copied to `cache` once. Raises DataError naming shards or fields that are not there.
        """
        paths = [local(url, cache) for url in expanded(shards)]
        if missing := [str(p) for p in paths if not p.is_file()]:
            shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise DataError(
                f"{len(missing)} of {len(paths)} shards are missing: {shown}.",
                "Mend `shards`, or write them with python -m tools.shard.",
            )
        indices, built = [], 0
        for path in paths:
            index, new = index_of(path)
            _require(index, fields, ids, path)
            indices.append(index)
            built += new
        if built:
            note(f"indexed {built} shard(s) at first use, beside the tars: {sum(map(len, indices)):,} samples")
        return cls(paths, indices, fields, ids)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def where(self, ordinal: int) -> tuple[Path, str, int]:
        """Shard, key and offset of a sample's first member, for messages."""
        shard, row = self._find(ordinal)
        there = self.place[shard][row, :, 0]
        return self.shards[shard], str(self.keys[shard][row]), int(there[there >= 0].min(initial=0))

    def read(self, ordinal: int) -> Sample:
        """The sample, decoded. Raises whatever its decoder does, or KeyError for a member that it lacks."""
        shard, row = self._find(ordinal)
        data = {extension: self._bytes(shard, row, extension) for extension in self.members}
        fields = {name: decode(data[extension], extension) for name, extension in self.fields.items()}
        ids = {name: id_of(data, path) for name, path in self.ids.items()}
        return Sample(str(self.keys[shard][row]), ordinal, fields, ids)

    def _find(self, ordinal: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.starts, ordinal, side="right")) - 1
        return shard, ordinal - int(self.starts[shard])

    def _bytes(self, shard: int, row: int, extension: str) -> bytes:
        offset, size = self.place[shard][row, self.members[extension]].tolist()
        if offset < 0:
            raise KeyError(f"the sample has no member {extension!r}")
        data = os.pread(self._file(shard), size, offset)
        if len(data) != size:
            raise OSError(f"{len(data)} of {size} bytes could be read")
        return data

    def _file(self, shard: int) -> int:
        if self._process != os.getpid():  # a forked worker opens its own
            self._files, self._process = {}, os.getpid()
        if shard not in self._files:
            if len(self._files) >= 256:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[shard] = os.open(self.shards[shard], os.O_RDONLY)
        return self._files[shard]


def expanded(shards: str | list[str]) -> list[str]:
    """Brace lists and `::` lists, written out. Raises DataError for an empty list, and for pipe: commands."""
    patterns = [p for each in ([shards] if isinstance(shards, str) else shards) for p in each.split("::")]
    urls = [url for pattern in patterns for url in braceexpand(pattern) if url]
    if not urls:
        raise DataError(f"shards={shards!r} is an empty list.", "Name at least one tar.")
    for url in urls:
        if url.startswith("pipe:"):
            raise DataError(f"{url}: shards are never read from a command.", "Give a path or an fsspec URL.")
    return urls


def local(url: str, cache: str | None) -> Path:
    """The path of a shard on this machine; a remote one is copied to the cache first, whole or not at all."""
    if "://" not in url or url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    import fsspec

    folder = Path(cache).expanduser() if cache else CACHE.expanduser()
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{url.rpartition('/')[2]}"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=folder)
    os.close(handle)
    try:
        files, remote = fsspec.url_to_fs(url)
        files.get_file(remote, partial)
    except Exception as e:
        os.unlink(partial)
        raise DataError(f"{url}: the shard cannot be fetched ({type(e).__name__}: {e}).", "Check the URL.") from e
    os.replace(partial, path)
    return path


def id_of(data: dict[str, bytes], path: str) -> int:
    """ "txt" -> a 63-bit hash of that member; "json.a.b" -> that value, itself if it is an integer, else its hash."""
    extension, _, keys = path.partition(".")
    value: Any = data[extension]
    if keys:
        value = json.loads(value)
        for key in keys.split("."):
            value = value[key]
        if isinstance(value, int):
            return value
        value = json.dumps(value, sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "little") >> 1


def _columns(index: ShardIndex, wanted: list[str]) -> np.ndarray:
    """(n, len(wanted), 2): offset and size of each wanted member."""
    out = np.full((len(index), len(wanted), 2), -1, dtype=np.int64)
    for i, extension in enumerate(wanted):
        if extension in index.extensions:
            at = index.extensions.index(extension)
            out[:, i] = np.stack([index.offset[:, at], index.size[:, at]], 1)
    return out


def _require(index: ShardIndex, fields: dict[str, str], ids: dict[str, str], shard: Path) -> None:
    wanted = {f"fields.{k}": v for k, v in fields.items()} | {f"ids.{k}": v.split(".", 1)[0] for k, v in ids.items()}
    for name, extension in wanted.items():
        if extension not in index.extensions:
            near = difflib.get_close_matches(extension, index.extensions, 1)
            meant = f"Did you mean {near[0]!r}? " if near else ""
            raise DataError(
                f"{shard}: {name} is {extension!r}, and no sample there has such a member.",
                f"{meant}They have {', '.join(index.extensions)}.",
            )
