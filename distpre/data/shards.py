"""Names of shards: brace lists, `::` lists, paths and fsspec URLs; and what the file system says of each."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import fsspec

from distpre.errors import DataError


def expand(shards: str | list[str]) -> list[str]:
    """ "a-{000..003}.tar::{b,c}.tar" -> six names, in order. Raises DataError where a list names nothing."""
    listed = shards.split("::") if isinstance(shards, str) else [part for s in shards for part in s.split("::")]
    names = [name for part in listed for name in _braces(part.strip())]
    if not names or not all(names):
        raise DataError(f"data: shards {shards!r} name no shard.", "Write a path, a brace list or a list of them.")
    for name in names:
        if name.startswith("pipe:"):
            raise DataError(f"data: {name!r}: `pipe:` shards run shell commands and are refused.", "Use an fsspec URL.")
    return names


def _braces(text: str) -> list[str]:
    """As a shell expands them, nested ones too."""
    start = text.find("{")
    depth, cuts = 0, [start]
    for i in range(max(start, 0), len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if text[i] == "," and depth == 1:
            cuts.append(i)
        if text[i] == "}" and depth == 0:
            choices = [text[a + 1 : z] for a, z in zip(cuts, [*cuts[1:], i], strict=True)]
            tails = _braces(text[i + 1 :])
            listed = [name for choice in _choices(choices, text) for name in _braces(choice)]
            return [text[:start] + name + tail for name in listed for tail in tails]
    return [text]


def _choices(choices: list[str], text: str) -> list[str]:
    inside = ",".join(choices)
    span = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if span is None:
        if not all(choices):
            raise DataError(f"data: {{{inside}}} in {text!r} is an empty brace list.", "Write {000..003} or {a,b}.")
        return choices
    first, last = int(span[1]), int(span[2])
    if last < first:
        raise DataError(f"data: {{{inside}}} in {text!r} is an empty range.", "Write the smaller number first.")
    width = max(len(span[1]), len(span[2])) if span[1].startswith("0") else 0
    return [f"{i:0{width}d}" for i in range(first, last + 1)]


@dataclass(frozen=True)
class Stamp:
    """What tells one state of a file from the next without reading it: size in bytes, and mtime, etag or the like."""

    size: int
    version: str


def is_local(name: str) -> bool:
    return "://" not in name or name.startswith(("file://", "local://"))


def local_path(name: str) -> str:
    return name.split("://", 1)[-1]


def stamp(name: str) -> Stamp | None:
    """None where there is no such file."""
    try:
        if is_local(name):
            info = os.stat(local_path(name))
            return Stamp(info.st_size, str(info.st_mtime_ns))
        fs, path = fsspec.core.url_to_fs(name)
        info = fs.info(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise DataError(f"data: {name} cannot be reached: {e}", "Check the address and the credentials.") from e
    facts = [str(info[k]) for k in ("ETag", "etag", "mtime", "LastModified", "created") if info.get(k)]
    return Stamp(int(info["size"] or 0), facts[0] if facts else "")


def stamps(names: list[str]) -> list[Stamp]:
    """Of every shard. Raises DataError naming those that are not there."""
    found = [stamp(name) for name in names]
    missing = [name for name, s in zip(names, found, strict=True) if s is None]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise DataError(f"data: {len(missing)} of {len(names)} shards are not there: {shown}.", "Check their path.")
    return [s for s in found if s is not None]
