"""The Noto emoji with their names and keywords -> image-text shards.

SOURCE holds emoji_u<code points>.png files, `names_data-by-emoji.json` ({emoji: {name, group, ...}}) and
`keywords_emoji-en-US.json` ({emoji: [keyword, ...]}), anywhere below it. The caption is the name and the keywords.
Skin-tone variants carry their base's name and stay on its side of the split.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from distpre.errors import DataError
from tools.shard.image_text import Pair, add_writing_arguments, add_wrong_argument, write
from tools.shard.writer import counted

SKIN_TONES = {f"1f3f{digit}" for digit in "bcdef"}
INVISIBLE = "\ufe0f"  # the variation selector, which file names leave out


def pairs(source: Path) -> Iterator[Pair]:
    """Every image whose emoji has a name, in the order of file names."""
    names, keywords = _json(source, "names_data-by-emoji.json"), _json(source, "keywords_emoji-en-US.json")
    known = {_codes(emoji): (emoji, facts) for emoji, facts in names.items()}
    for image in sorted(source.rglob("emoji_u*.png")):
        codes = tuple(image.stem.removeprefix("emoji_u").split("_"))
        base = tuple(code for code in codes if code not in SKIN_TONES)
        if base not in known:
            continue
        emoji, facts = known[base]
        words = [w.replace("_", " ") for w in keywords.get(emoji, [])]
        caption = ", ".join(dict.fromkeys([facts["name"], *words]))
        yield Pair(image, caption, {"name": facts["name"], "group": facts["group"], "base": "_".join(base)})


def _codes(emoji: str) -> tuple[str, ...]:
    return tuple(f"{ord(c):04x}" for c in emoji if c != INVISIBLE)


def _json(source: Path, name: str) -> dict:
    found = next(iter(sorted(source.rglob(name))), None)
    if found is None:
        raise DataError(f"{source}: there is no {name} below it.", "Name the folder of images and JSON files.")
    return json.loads(found.read_text(encoding="utf-8"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="the folder of images and JSON files")
    add_writing_arguments(parser)
    add_wrong_argument(parser)


def run(arguments: argparse.Namespace) -> str:
    rows = counted(pairs(Path(arguments.source)), arguments.source)
    return write(
        rows,
        arguments.out,
        split_by="base",
        share=arguments.held_out,
        shard_samples=arguments.shard_samples,
        workers=arguments.workers,
        wrong=arguments.wrong,
    )
