"""Which members of a tar make which sample.

Keys and extensions are split as webdataset splits them: the key ends at the first dot of the file's name, extensions
are lower case, neighbours with one key are one sample, `__meta__` files are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from mmap import mmap

from distpre.data.tar import members

KEY_AND_EXTENSION = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
META = re.compile(r"__[^/]*__($|/)")

WHOLE, DUPLICATE_MEMBER, DUPLICATE_KEY, SPARSE = range(4)
FLAWS = ("", "one extension twice in one sample", "the key of an earlier sample of this shard", "a sparse tar member")


@dataclass
class Record:
    """A sample as it lies in the tar: {extension: (offset, size)} of its members, and what is wrong with it."""

    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    flaw: int = WHOLE


def records(data: mmap | bytes, name: str, problems: list[str]) -> Iterator[Record]:
    """Every sample of the tar, in order. problems, DataError: as in tar.members."""
    seen: set[str] = set()
    current: Record | None = None
    for member in members(data, name, problems):
        split = KEY_AND_EXTENSION.match(member.name)
        if split is None or META.match(member.name):
            continue
        key, extension = split[1], split[2].lower()
        if current is None or current.key != key:
            if current is not None:
                yield current
            current = Record(key, flaw=DUPLICATE_KEY if key in seen else WHOLE)
            seen.add(key)
        if extension in current.members:
            current.flaw = DUPLICATE_MEMBER
        elif member.sparse:
            current.flaw = SPARSE
        current.members[extension] = (member.offset, member.size)
    if current is not None:
        yield current
