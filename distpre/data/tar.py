"""One pass over a WebDataset tar: which members make which sample, and where they lie.

Keys and extensions are split as webdataset splits them: the key ends at the first dot of the file's name, extensions
are lower case, neighbours with one key are one sample, `__meta__` files are skipped.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from distpre.errors import DataError

KEY_AND_EXTENSION = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
META = re.compile(r"__[^/]*__($|/)")
BLOCK = tarfile.BLOCKSIZE

WHOLE, DUPLICATE_MEMBER, DUPLICATE_KEY, SPARSE = range(4)
FLAWS = ("", "one extension twice in one sample", "the key of an earlier sample of this shard", "a sparse tar member")


@dataclass
class Record:
    """A sample as it lies in the tar: {extension: (offset, size)} of its members, and what is wrong with it."""

    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    flaw: int = WHOLE


def records(file: BinaryIO, name: str, problems: list[str]) -> Iterator[Record]:
    """Every sample of the tar, in order; how the tar itself is damaged is appended to `problems`."""
    seen: set[str] = set()
    current: Record | None = None
    for member in _members(file, name, problems):
        split = KEY_AND_EXTENSION.match(member.name)
        if not member.isreg() or META.match(member.name) or split is None:
            continue
        key, extension = split[1], split[2].lower()
        if current is None or current.key != key:
            if current is not None:
                yield current
            current = Record(key, flaw=DUPLICATE_KEY if key in seen else WHOLE)
            seen.add(key)
        if extension in current.members:
            current.flaw = DUPLICATE_MEMBER
        elif member.issparse():
            current.flaw = SPARSE
        current.members[extension] = (member.offset_data, member.size)
    if current is not None:
        yield current


def _members(file: BinaryIO, name: str, problems: list[str]) -> Iterator[tarfile.TarInfo]:
    """The tar's members; tarfile alone would end silently at a damaged header."""
    magic = file.read(6)
    if not magic:
        raise DataError(f"data: {name} is empty (0 bytes).", "Write it again, or leave it out of `shards`.")
    if magic.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise DataError(f"data: {name} is compressed; samples are read by offset.", "Decompress it to a plain .tar.")
    file.seek(0)
    try:
        tar = tarfile.open(fileobj=file, mode="r:")
    except tarfile.ReadError as e:
        raise DataError(f"data: {name} is not a tar: {e}.", "Write it again, or leave it out of `shards`.") from e
    with tar:
        try:
            while (member := tar.next()) is not None:
                yield member
                tar.members.clear()  # tarfile would keep them all
        except tarfile.TarError as e:
            problems.append(f"is cut off at byte {tar.offset}: {e}")
            return
        file.seek(tar.offset)
        mark = file.read(BLOCK)
        if len(mark) < BLOCK:
            problems.append(f"has no end mark: it was cut off at byte {tar.offset}, or its writer was")
        elif any(mark):
            problems.append(f"holds something that is no tar header at byte {tar.offset}; what follows cannot be read")
