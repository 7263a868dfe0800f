"""A shard's index: where every member of every sample lies, in one small file beside the tar.

The file is a line of JSON (what the tar is, and which columns follow) and then the columns, mapped into memory:

    key_end (n,) u4, key_text (bytes,) u1      the keys, one after another
    member_end (n,) u4                         sample i's members are member_end[i-1] : member_end[i] of
    member_offset u8, member_size u8, member_extension u2
    flaw (n,) u1                               record.FLAWS
    hash (n, 2) u8                             128 bits of (key, row), for the proof
    id:PATH (n,) i8                            an id column (ids.py)
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from mmap import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distpre.data import ids as id_columns
from distpre.data.proof import MODULUS, hash_of
from distpre.data.record import Record, records
from distpre.data.shards import Stamp

FORMAT = 1
SUFFIX = ".index"
ALIGN = 64


@dataclass(frozen=True)
class Header:
    """What is known of a shard without its columns. extensions: {extension: samples that have it}."""

    stamp: Stamp
    sha256: str
    count: int
    extensions: dict[str, int]
    ids: tuple[str, ...]
    hash_total: int
    problems: tuple[str, ...]
    columns: dict[str, tuple[str, int, int]]  # {name: (dtype, offset in the file, length)}

    def fits(self, stamp: Stamp, ids: set[str]) -> bool:
        """Whether it still describes the tar, and holds the ids that are asked for."""
        return self.stamp == stamp and ids <= set(self.ids)

    def to_json(self) -> bytes:
        plain = {
            "format": FORMAT,
            "size": self.stamp.size,
            "version": self.stamp.version,
            "sha256": self.sha256,
            "count": self.count,
            "extensions": self.extensions,
            "ids": self.ids,
            "hash_total": f"{self.hash_total:032x}",
            "problems": self.problems,
            "columns": self.columns,
        }
        return json.dumps(plain).encode() + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> Header | None:
        """None where the line is of another format, or damaged."""
        try:
            d = json.loads(line)
            if d["format"] != FORMAT:
                return None
            columns = {k: (v[0], v[1], v[2]) for k, v in d["columns"].items()}
            stamp, total = Stamp(d["size"], d["version"]), int(d["hash_total"], 16)
            sure = d["sha256"], d["count"], d["extensions"], tuple(d["ids"]), total, tuple(d["problems"])
        except (ValueError, KeyError, TypeError, IndexError):
            return None
        return cls(stamp, *sure, columns)


class ShardIndex:
    """A header and its columns; `data` is the whole file as bytes in memory, or mapped."""

    def __init__(self, header: Header, data: NDArray[np.uint8]):
        self.header, self.data = header, np.asarray(data)
        self.views: dict[str, NDArray[Any]] = {}

    def __len__(self) -> int:
        return self.header.count

    def column(self, name: str) -> NDArray[Any]:
        if name not in self.views:
            dtype, offset, length = self.header.columns[name]
            kind = np.dtype(dtype)
            self.views[name] = self.data[offset : offset + length * kind.itemsize].view(kind)
        return self.views[name]

    @cached_property
    def extensions(self) -> list[str]:
        return list(self.header.extensions)

    def key(self, row: int) -> str:
        ends = self.column("key_end")
        start = int(ends[row - 1]) if row else 0
        return self.column("key_text")[start : int(ends[row])].tobytes().decode("utf-8", "surrogateescape")

    def members(self, row: int) -> dict[str, tuple[int, int]]:
        """{extension: (offset, size)}"""
        ends = self.column("member_end")
        part = slice(int(ends[row - 1]) if row else 0, int(ends[row]))
        offsets, sizes = self.column("member_offset")[part].tolist(), self.column("member_size")[part].tolist()
        names = [self.extensions[i] for i in self.column("member_extension")[part].tolist()]
        return dict(zip(names, zip(offsets, sizes, strict=True), strict=True))

    def hashes(self) -> NDArray[np.uint64]:
        return self.column("hash").reshape(-1, 2)


def scan(data: mmap | bytes, name: str, stamp: Stamp, ids: set[str]) -> tuple[Header, list[bytes]]:
    """Reads a tar once: its header and the file's parts, to be written one after another."""
    problems: list[str] = []
    sha256 = hashlib.sha256(data).hexdigest()  # first: it brings the tar into memory
    found = list(records(data, name, problems))
    extensions: dict[str, int] = {}
    for record in found:
        for extension in record.members:
            extensions[extension] = extensions.get(extension, 0) + 1
    columns = _columns(found, list(extensions))
    columns |= {f"id:{path}": _id_column(data, found, path) for path in sorted(ids)}
    header = Header(
        stamp, sha256, len(found), extensions, tuple(sorted(ids)), _total(columns["hash"]), tuple(problems), {}
    )
    return _laid_out(header, columns)


def with_stamp(content: bytes, stamp: Stamp) -> tuple[Header, bytes] | None:
    """An index's file for the same tar at another place; None where it is no index, or one of a tar of another size."""
    line, newline, rest = content.partition(b"\n")
    header = Header.from_json(line)
    if header is None or not newline or header.stamp.size != stamp.size:
        return None
    header = replace(header, stamp=stamp)
    return header, header.to_json()[:-1].ljust(len(line)) + b"\n" + rest


def _columns(found: list[Record], extensions: list[str]) -> dict[str, NDArray]:
    number = {extension: i for i, extension in enumerate(extensions)}
    keys = [record.key.encode("utf-8", "surrogateescape") for record in found]
    places = [place for record in found for place in record.members.values()]
    return {
        "key_end": np.cumsum([len(key) for key in keys], dtype="<u4"),
        "key_text": np.frombuffer(b"".join(keys), "<u1"),
        "member_end": np.cumsum([len(record.members) for record in found], dtype="<u4"),
        "member_offset": np.array([offset for offset, _ in places], "<u8"),
        "member_size": np.array([size for _, size in places], "<u8"),
        "member_extension": np.array([number[e] for record in found for e in record.members], "<u2"),
        "flaw": np.array([record.flaw for record in found], "<u1"),
        "hash": np.array([hash_of(key, row) for row, key in enumerate(keys)], "<u8").reshape(-1),
    }


def _id_column(data: mmap | bytes, found: list[Record], path: str) -> NDArray[np.int64]:
    def content(record: Record) -> bytes | None:
        if id_columns.member(path) not in record.members:
            return None
        offset, size = record.members[id_columns.member(path)]
        return data[offset : offset + size]

    return np.array([id_columns.value(path, content(record)) for record in found], "<i8")


def _total(hashes: NDArray) -> int:
    return sum(int(a) << 64 | int(b) for a, b in hashes.reshape(-1, 2)) % MODULUS


def _laid_out(header: Header, columns: dict[str, NDArray]) -> tuple[Header, list[bytes]]:
    """Column offsets depend on the header's length, which depends on them: the header gets room to spare."""
    room = ALIGN * (4 + (len(header.to_json()) + 80 * len(columns)) // ALIGN)
    places, at = {}, room
    for name, column in columns.items():
        places[name] = (column.dtype.str, at, len(column))
        at += -(-column.nbytes // ALIGN) * ALIGN
    header = replace(header, columns=places)
    parts = [header.to_json()[:-1].ljust(room - 1) + b"\n"]
    for column in columns.values():
        parts.append(column.tobytes().ljust(-(-column.nbytes // ALIGN) * ALIGN, b"\0"))
    return header, parts
