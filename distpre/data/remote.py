"""Shards behind a URL (anything fsspec knows): whole files and ranges, with patience."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import fsspec

T = TypeVar("T")
TRIES = 5
FIRST_PAUSE = 0.5  # seconds; doubled after each failure, and scattered so that a thousand ranks do not knock at once


def patiently(read: Callable[[], T]) -> T:
    """Tries again after a failure that may pass; FileNotFoundError and PermissionError do not."""
    for attempt in range(TRIES):
        try:
            return read()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            if attempt == TRIES - 1:
                raise
            time.sleep(FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5))
    raise AssertionError("unreachable")


def download(url: str, to: Path) -> None:
    def once() -> None:
        fs, path = fsspec.core.url_to_fs(url)
        fs.get_file(path, str(to))

    patiently(once)


def read_range(url: str, offset: int, size: int) -> bytes:
    def once() -> bytes:
        fs, path = fsspec.core.url_to_fs(url)
        return fs.cat_file(path, start=offset, end=offset + size)

    return patiently(once)


def read(url: str) -> bytes:
    def once() -> bytes:
        fs, path = fsspec.core.url_to_fs(url)
        return fs.cat_file(path)

    return patiently(once)
