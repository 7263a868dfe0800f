"""Texts of classes through an open_clip text tower -> a file of anchors, once a set of classes.

    python -m tools.anchors ViT-B-16 open_clip_model.safetensors --classes classes.txt --out anchors.safetensors

A class's anchor is the unit vector of the mean, over the templates, of the unit vectors of its texts (CLIP, Radford et
al. 2021, section 3.1.4; CLIP2Scene with 85 templates). A line of the files of classes and templates is one of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from distpre.anchors import Anchors
from distpre.errors import DataError, program

TEMPLATES = ("a photo of a {}.", "a {} in the scene.")


def anchors(embed: Callable[[list[str]], Tensor], classes: list[str], templates: list[str]) -> Anchors:
    """embed: texts -> (n, d). Raises DataError for a template without {}, and for no class or one twice."""
    if wrong := [template for template in templates if "{}" not in template]:
        raise DataError(f"the template {wrong[0]!r} has no {{}}.", "Write {} where the class goes.")
    if not classes or not templates or len(set(classes)) < len(classes):
        raise DataError(f"{len(classes)} classes and {len(templates)} templates.", "Give some of each, no class twice.")
    each = [F.normalize(embed([t.replace("{}", c) for t in templates]).float(), dim=1).mean(0) for c in classes]
    return Anchors(F.normalize(torch.stack(each), dim=1), tuple(classes))


def embedder(model: str, weights: str) -> Callable[[list[str]], Tensor]:
    from distpre.towers.encoders.open_clip import OpenClipText
    from distpre.views.text import OpenClipTokenizer

    tower, tokenizer = OpenClipText(model, weights=weights).eval(), OpenClipTokenizer(model=model)

    @torch.no_grad()
    def embed(texts: list[str]) -> Tensor:
        return tower(torch.stack([torch.from_numpy(tokenizer(text)) for text in texts]))[0]

    return embed


def lines(path: str) -> list[str]:
    """Raises DataError."""
    try:
        return [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path} cannot be read: {e}.", "Give a text file, one a line.") from e


@program
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.anchors", description=__doc__.split("\n")[0])
    parser.add_argument("model", help="of open_clip, by name")
    parser.add_argument("weights", help="a local open_clip checkpoint of it")
    parser.add_argument("--classes", required=True, help="a file, one a line; labels are the lines' numbers from 0")
    parser.add_argument("--templates", help=f"a file, one a line (default: {' / '.join(TEMPLATES)})")
    parser.add_argument("--out", required=True, help="the file to write")
    a = parser.parse_args(argv)
    classes, templates = lines(a.classes), lines(a.templates) if a.templates else list(TEMPLATES)
    made = anchors(embedder(a.model, a.weights), classes, templates)
    made.write(a.out)
    print(f"wrote {len(classes)} anchors of width {made.vectors.shape[1]}, each of {len(templates)} texts, to {a.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
