"""A folder of one sub-folder of pictures a class -> shards of {picture, txt, json}.

The caption is the class's folder name in a template; json holds {"class": folder name, "label": its place in the
sorted list of classes}. The held-out share is drawn by picture, in every class alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from distpre.errors import DataError
from tools.shard.image_text import PICTURES, Pair, add_writing_arguments, write
from tools.shard.writer import counted


def pairs(source: Path, template: str) -> Iterator[Pair]:
    """Every picture, classes and files by name. Raises DataError where the template has no place for the class."""
    if "{}" not in template:
        raise DataError(f"--template {template!r} has no {{}}.", "Write {} where the class's name goes.")
    classes = sorted(p for p in source.iterdir() if p.is_dir()) if source.is_dir() else []
    for label, folder in enumerate(classes):
        name = folder.name.replace("_", " ").replace("-", " ")
        for image in sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES):
            inside = image.relative_to(source).as_posix()
            yield Pair(image, template.replace("{}", name), {"class": folder.name, "label": label, "path": inside})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="the folder of class folders")
    add_writing_arguments(parser)
    parser.add_argument("--template", default="a photo of a {}", help="caption, {} is the class (a photo of a {})")


def run(arguments: argparse.Namespace) -> str:
    rows = counted(pairs(Path(arguments.source), arguments.template), arguments.source)
    return write(
        rows,
        arguments.out,
        split_by="path",
        share=arguments.held_out,
        shard_samples=arguments.shard_samples,
        workers=arguments.workers,
    )
