"""What an open_clip model says of a sample's texts and pictures, written into copies of its shards.

    python -m tools.embed_sources "runs/data/shapes/train-000.tar" --out runs/data/openshape --model ViT-bigG-14 \
        --weights FILE --text raw=txt blip=blip.txt retrieved=retrieved.txt --templates TEMPLATES.txt \
        --plain retrieved --flag flagged=json.flagged --image thumbnail=thumb.jpg renders=render_*.jpg

A sample gains text.npz and image.npz: for each NAME=MEMBER the unit vectors (k, d) of the member's lines, or of all
pictures that MEMBER matches, in the order of their names. With templates ({} is the text) a text's vector is the mean
over them, but of --plain sources that of the text alone (OpenShape, Liu et al. 2023). A flag is the number at a key of
json. What a sample does not have is not in it, and a sample that has no text at all gets no text.npz. The view op
`one_source` draws from what this writes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distpre.data.decode import decode
from distpre.data.manifest import open_manifest
from distpre.data.reader import Reader
from distpre.data.shards import expand
from distpre.errors import DataError, program
from tools.anchors import lines
from tools.reshard import members_of
from tools.shard.writer import Members, write_shards


@dataclass(frozen=True)
class Clip:
    """texts: [text] -> (n, d), pictures: [uint8 array] -> (n, d); unit vectors. name: the model and its weights."""

    texts: Callable[[list[str]], NDArray]
    pictures: Callable[[list[NDArray]], NDArray]
    name: str


@dataclass(frozen=True)
class Wanted:
    """{source: member} of texts, of pictures, {flag: key of json}; templates of texts, and the sources without them."""

    text: dict[str, str] = field(default_factory=dict)
    image: dict[str, str] = field(default_factory=dict)
    flag: dict[str, str] = field(default_factory=dict)
    templates: tuple[str, ...] = ("{}",)
    plain: tuple[str, ...] = ()


def open_clip_model(model: str, weights: str) -> Clip:
    """Of a local checkpoint; nothing is fetched. Raises DataError where it is none of the model's."""
    import open_clip
    import torch
    import torch.nn.functional as F
    from PIL import Image

    if not Path(weights).is_file():
        raise DataError(f"--weights {weights}: there is no such file.", "Give a checkpoint of that open_clip model.")
    try:
        net, _, prepared = open_clip.create_model_and_transforms(model, pretrained=weights)
    except (RuntimeError, ValueError) as e:
        raise DataError(f"--model {model} --weights {weights}: {str(e).splitlines()[0]}") from e
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net, tokens = net.eval().to(device), open_clip.get_tokenizer(model)

    def unit(x: Any) -> NDArray:
        return F.normalize(x.float(), dim=-1).cpu().numpy()

    @torch.inference_mode()
    def texts(said: list[str]) -> NDArray:
        return unit(net.encode_text(tokens(said).to(device)))

    @torch.inference_mode()
    def pictures(seen: list[NDArray]) -> NDArray:
        return unit(net.encode_image(torch.stack([prepared(Image.fromarray(x)) for x in seen]).to(device)))

    with open(weights, "rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    return Clip(texts, pictures, f"{model} {digest}")


def embedded(clip: Clip, wanted: Wanted, members: Members) -> Members:
    """The members of a sample, with text.npz and image.npz."""
    text: dict[str, NDArray] = {}
    for source, member in wanted.text.items():
        texts = [line for line in members.get(member, b"").decode().splitlines() if line.strip()]
        templates = ("{}",) if source in wanted.plain else wanted.templates
        if texts:
            said = clip.texts([template.replace("{}", line) for line in texts for template in templates])
            mean = said.reshape(len(texts), len(templates), -1).mean(1)
            text[source] = (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)
    image: dict[str, NDArray] = {}
    for source, pattern in wanted.image.items():
        names = sorted(name for name in members if fnmatch(name, pattern))
        if names:
            image[source] = clip.pictures([decode(name, members[name]) for name in names]).astype(np.float32)
    if text:
        facts = json.loads(members.get("json", b"{}"))
        text |= {flag: np.float32(facts.get(key.removeprefix("json."), 0)) for flag, key in wanted.flag.items()}
    made = {name: _npz(arrays) for name, arrays in (("text.npz", text), ("image.npz", image)) if arrays}
    return members | made


def write(
    clip: Clip, wanted: Wanted, shards: list[str], out: str | Path, *, split: str = "train", each: int = 1000
) -> str:
    """Writes OUT/SPLIT-000.tar ...; returns a summary line."""
    manifest = open_manifest(expand(shards), set(), note=lambda text: print(text, file=sys.stderr))
    reader = Reader([e.shard for e in manifest.entries], [e.header.stamp for e in manifest.entries])
    rows = [(manifest.digest, ordinal) for ordinal in range(len(manifest))]
    make = partial(_made, clip, wanted, partial(members_of, manifest, reader))
    write_shards(out, split, rows, make, shard_samples=each, of=(clip.name, wanted))
    return f"wrote {len(rows)} samples with what the model says of them to {out}"


def _made(clip: Clip, wanted: Wanted, copy: Callable, row: tuple[str, int]) -> Members:
    return embedded(clip, wanted, copy(row))


def _npz(arrays: dict[str, NDArray]) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _pairs(words: list[str]) -> dict[str, str]:
    """NAME=MEMBER ... Raises DataError."""
    if wrong := [word for word in words if "=" not in word]:
        raise DataError(f"{wrong[0]!r} is no NAME=MEMBER.", "Write raw=txt, for example.")
    return dict(word.split("=", 1) for word in words)


@program
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.embed_sources", description=__doc__.split("\n")[0])
    parser.add_argument("shards", nargs="+", help="paths, brace lists in quotes, `::` lists")
    parser.add_argument("--out", required=True, help="folder of the new shards")
    parser.add_argument("--split", default="train", help="of the new shards: SPLIT-000.tar (default train)")
    parser.add_argument("--samples", type=int, default=1000, help="of a shard (default 1000)")
    parser.add_argument("--model", required=True, help="an open_clip model's name")
    parser.add_argument("--weights", required=True, help="its checkpoint, a local file")
    parser.add_argument("--text", nargs="*", default=[], metavar="NAME=MEMBER", help="a line a text")
    parser.add_argument("--image", nargs="*", default=[], metavar="NAME=MEMBER", help="may hold * for several")
    parser.add_argument("--flag", nargs="*", default=[], metavar="NAME=json.KEY", help="numbers beside the texts")
    parser.add_argument("--templates", help="a file with a prompt a line, {} is the text (default: the text alone)")
    parser.add_argument("--plain", nargs="*", default=[], help="texts without templates")
    a = parser.parse_args()
    templates = tuple(lines(a.templates)) if a.templates else ("{}",)
    if not templates or not all("{}" in template for template in templates):
        raise DataError(f"--templates {a.templates}: a line has no {{}}.", "Write {} where the text goes.")
    wanted = Wanted(_pairs(a.text), _pairs(a.image), _pairs(a.flag), templates, tuple(a.plain))
    if unknown := sorted(set(a.plain) - set(wanted.text)):
        raise DataError(
            f"--plain {unknown[0]}: there is no such --text.", f"There is {', '.join(wanted.text) or 'none'}."
        )
    print(write(open_clip_model(a.model, a.weights), wanted, a.shards, a.out, split=a.split, each=a.samples))
    return 0


if __name__ == "__main__":
    sys.exit(main())
