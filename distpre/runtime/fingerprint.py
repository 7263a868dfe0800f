"""Size and SHA-256 of files: taken when a commit is written, compared before it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

Progress = Callable[[int], object]
PIECE = 1 << 22  # bytes read at a time


def share(sizes: Mapping[str, int], rank: int, world_size: int) -> list[str]:
    """The files that are this rank's to read: each file is one rank's, and the large ones are dealt first."""
    return sorted(sizes, key=lambda name: (-sizes[name], name))[rank::world_size]


def sha256(file: Path, progress: Progress = lambda n: None) -> str:
    """progress: is told how many bytes more were read."""
    digest = hashlib.sha256()
    with open(file, "rb", buffering=0) as f:
        while piece := f.read(PIECE):
            digest.update(piece)
            progress(len(piece))
    return digest.hexdigest()


def size_fault(file: Path, size: int) -> str | None:
    """What is wrong with the file's size, if something is."""
    try:
        found = file.stat().st_size
    except FileNotFoundError:
        return "is missing"
    except OSError as e:
        return f"cannot be read ({e.strerror})"
    return None if found == size else f"has {found:,} bytes instead of {size:,}"


def fault(file: Path, size: int, digest: str, progress: Progress = lambda n: None) -> str | None:
    """What is wrong with the file, if something is."""
    if wrong := size_fault(file, size):
        return wrong
    try:
        return None if sha256(file, progress) == digest else "holds other bytes than were written (SHA-256)"
    except OSError as e:
        return f"cannot be read ({e.strerror})"
