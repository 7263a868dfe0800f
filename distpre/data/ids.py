"""Ids: numbers that say which samples belong together (participant, class, caption).

An id path is `ext` (that member's content) or `json.key[.key]` (a value inside the JSON member).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

MISSING = -(2**63)  # the sample does not say


def member(path: str) -> str:
    """The extension of the member that an id path reads."""
    return "json" if path.startswith("json.") else path


def value(path: str, content: bytes | None) -> int:
    """The id as a 64-bit integer, MISSING where the content does not hold it."""
    if content is None:
        return MISSING
    if path.startswith("json."):
        return _inside(path.split(".")[1:], content)
    if path.rpartition(".")[2] == "cls":
        try:
            return int(content)
        except ValueError:
            return MISSING
    return stable_hash(content)


def _inside(keys: list[str], content: bytes) -> int:
    try:
        found: Any = json.loads(content)
        for key in keys:
            found = found[key]
    except (ValueError, KeyError, TypeError):
        return MISSING
    if found is None:
        return MISSING
    if isinstance(found, int) and -(2**63) < found < 2**63:
        return int(found)
    text = found if isinstance(found, str) else json.dumps(found, sort_keys=True)
    return stable_hash(text.encode())


def stable_hash(content: bytes) -> int:
    """63 bits of BLAKE2b: the same on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") >> 1
