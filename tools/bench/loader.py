"""Our loader and webdataset's own pipeline in turn: the same shards, decode, crop, batch and workers.

    python -m tools.bench loader [--photos FOLDER] [--require]

The set is made of real photographs, enlarged to JPEGs of about 100 KB. Ours runs twice: with Pillow, as webdataset
does, and with the fast JPEG decoder where it is installed. Ours is a windowed permutation of the whole set, exactly
once and resumable; webdataset's is shuffled shards and a shuffle buffer.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from distpre.data import decode, manifest
from distpre.data.loader import Loader
from distpre.data.shards import stamps
from distpre.data.source import Source

SIDE, CROP = 768, 224
TARGETS = {"ours, Pillow": 1.0, "ours, fast decoder": 1.3}
PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "imgtext_grocery"


def main(argv: list[str]) -> int:
    arguments = _parsed(argv)
    with tempfile.TemporaryDirectory() as folder:
        names = write_set(arguments.photos, Path(folder), arguments.samples)
        index = index_cost(names)
        runs: dict[str, list[tuple[float, float]]] = {}
        for _ in range(arguments.rounds):  # in turn, so that a busy machine is as unkind to each
            for name, stream in contestants(names, arguments).items():
                runs.setdefault(name, []).append(timed(stream, arguments))
    rates = {name: max(rate for _, rate in its) for name, its in runs.items()}
    firsts = {name: min(first for first, _ in its) for name, its in runs.items()}
    _show(rates, firsts, index, arguments)
    missed = _missed(rates, firsts, index)
    for line in missed:
        print(f"missed: {line}")
    return int(bool(missed) and arguments.require)


def write_set(photos: Path, folder: Path, samples: int) -> list[str]:
    """Shards of 128 photographs each, with a caption beside each."""
    from webdataset import TarWriter

    found = sorted(photos.rglob("*.jpg"))
    if not found:
        raise SystemExit(f"no .jpg in {photos}; name a folder of photographs with --photos")
    names = []
    with ProcessPoolExecutor() as pool:
        jpegs = pool.map(enlarged, [(found[i % len(found)], i) for i in range(samples)], chunksize=8)
        for first in range(0, samples, 128):
            names.append(str(folder / f"photos-{first // 128:03d}.tar"))
            with TarWriter(names[-1]) as tar:
                for i in range(first, min(first + 128, samples)):
                    tar.write({"__key__": f"{i:08d}", "jpg": next(jpegs), "txt": f"photograph {i}".encode()})
    return names


def enlarged(job: tuple[Path, int]) -> bytes:
    path, number = job
    side = SIDE + number % 7 * 16
    out = io.BytesIO()
    Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC).save(out, "jpeg", quality=90)
    return out.getvalue()


def index_cost(names: list[str]) -> dict[str, float]:
    """Speed on one core of cached tars, and size beside theirs."""
    present = stamps(names)
    began = time.perf_counter()
    entries = [manifest.build(name, stamp, {"txt"}) for name, stamp in zip(names, present, strict=True)]
    seconds = time.perf_counter() - began
    size = sum(stamp.size for stamp in present)
    return {"mb_per_second": size / seconds / 1e6, "share": sum(e.index.stat().st_size for e in entries) / size}


def crop(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    top, left = (int(rng.integers(side - CROP + 1)) for side in picture.shape[:2])
    return picture[top : top + CROP, left : left + CROP].transpose(2, 0, 1)


class Crop:
    """The same crop as a view."""

    field = "image"

    def at(self, value: np.ndarray, *, seed: int, epoch: int, ordinal: int) -> np.ndarray:
        return crop(value, np.random.default_rng([seed, epoch, ordinal]))


def contestants(names: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    out = {"webdataset": theirs, "ours, Pillow": lambda n, a: ours(n, a, fast=False)}
    if decode.simplejpeg is not None:
        out["ours, fast decoder"] = lambda n, a: ours(n, a, fast=True)
    return {name: lambda make=make: make(names, arguments) for name, make in out.items()}


def ours(names: list[str], arguments: argparse.Namespace, fast: bool) -> Iterator[int]:
    decode.DECODERS["jpg"] = decode.jpeg if fast else decode.image
    source = Source.open(names, {"image": "jpg"}, {"caption": "txt"})
    loader = Loader(source, {"image": Crop()}, batch=arguments.batch, seed=0, workers=arguments.workers)
    try:
        for batch in loader.batches():
            loader.consumed(batch)
            yield len(batch)
    finally:
        loader.close()
        decode.DECODERS["jpg"] = decode.jpeg


def theirs(names: list[str], arguments: argparse.Namespace) -> Iterator[int]:
    import webdataset

    rng = np.random.default_rng(0)
    data = (
        webdataset.WebDataset(names, shardshuffle=len(names), nodesplitter=webdataset.split_by_node, empty_check=False)
        .shuffle(1000, initial=100)
        .decode("pil")
        .to_tuple("jpg", "txt")
        .map_tuple(lambda picture: torch.from_numpy(crop(np.array(picture), rng).copy()), lambda text: text)
        .batched(arguments.batch, partial=False)
        .repeat()
    )
    workers = webdataset.WebLoader(data, batch_size=None, num_workers=arguments.workers)
    for pictures, _ in workers:
        yield len(pictures)


def timed(start: Any, arguments: argparse.Namespace) -> tuple[float, float]:
    """Seconds to the first batch, and samples a second after the workers' first ones."""
    began = time.perf_counter()
    stream = start()
    next(stream)
    first = time.perf_counter() - began
    for _ in range(2 * arguments.workers):  # what they had made meanwhile
        next(stream)
    began = time.perf_counter()
    samples = sum(next(stream) for _ in range(arguments.batches))
    rate = samples / (time.perf_counter() - began)
    stream.close()
    return first, rate


def _parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench loader", description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="a folder of JPEGs")
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=20, help="timed, in each round")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--require", action="store_true", help="exit 1 where a target is missed")
    return parser.parse_args(argv)


def _show(
    rates: dict[str, float], firsts: dict[str, float], index: dict[str, float], arguments: argparse.Namespace
) -> None:
    title = f"{arguments.workers} workers, batches of {arguments.batch}, best of {arguments.rounds} rounds in turn"
    table = Table("loader", "samples/s", "ratio", "target", "first batch", title=title)
    for name, rate in rates.items():
        ratio = rate / rates["webdataset"]
        target = f"{TARGETS[name]:.1f}x" if name in TARGETS else ""
        table.add_row(name, f"{rate:.0f}", f"{ratio:.2f}x", target, f"{firsts[name]:.2f} s")
    Console().print(table)
    print(f"index: {index['mb_per_second']:.0f} MB/s on one core, {100 * index['share']:.2f} % of the tars' size")


def _missed(rates: dict[str, float], firsts: dict[str, float], index: dict[str, float]) -> list[str]:
    base = rates["webdataset"]
    ratios = {name: rates.get(name, 0) / base for name in TARGETS}
    missed = [f"{name}: {ratio:.2f}x of {TARGETS[name]}x" for name, ratio in ratios.items() if ratio < TARGETS[name]]
    late = [name for name in rates if firsts[name] > firsts["webdataset"]]
    missed += [f"{name}: first batch after {firsts[name]:.2f} s" for name in late]
    if index["mb_per_second"] < 300:
        missed.append(f"index: {index['mb_per_second']:.0f} of 300 MB/s")
    if index["share"] > 0.01:
        missed.append(f"index: {100 * index['share']:.2f} % of the tars")
    return missed
