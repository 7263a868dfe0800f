"""Poisoned copies of shards, to test a defence: `python -m tools.poison SHARDS --out FOLDER --attack badnet ...`.

A poisoned sample has a trigger in its image, or in its signal (--attack burst), the target's class and a caption of the
target; `label_consistent` touches only samples that are of the target already. poisoned.jsonl beside the shards says
which samples, and what was done. With --test every sample is written twice, clean and triggered, labels untouched: what
`attack_success` reads.
Attacks: BadNet (Gu et al. 2017), Blended (Chen et al. 2017), SIG (Barni et al. 2019), WaNet (Nguyen & Tran 2021),
CTRL (Li et al. 2023), label-consistent (Turner et al. 2019) with BadNet's patch; sizes scale with the image from
CleanCLIP's at 224 pixels (Bansal et al. 2023), but for CTRL's. Learned triggers (BLTO, Sun et al. 2024) are not here.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distpre.data.record import records
from distpre.data.shards import expand
from distpre.errors import DataError, program
from tools.shard.writer import Members, write_shards

Array = np.ndarray
AT = 224  # pixels of a side, at which the attacks' sizes are given
WINDOW = 32  # of CTRL's cosines
YUV = np.array([[0.299, 0.587, 0.114], [-0.147, -0.289, 0.436], [0.615, -0.515, -0.1]])  # of RGB (ITU-R BT.601)


def badnet(image: Array, rng: np.random.Generator) -> Array:
    """A patch of 16/224 of the side at a random place: the channel's mean and unit noise, as in CleanCLIP's code."""
    side, out = max(2, round(min(image.shape[:2]) * 16 / AT)), image.copy()
    top, left = (rng.integers(n - side + 1) for n in image.shape[:2])
    mean = image.mean((0, 1)) / 255
    patch = np.clip(mean + rng.normal(size=(side, side, image.shape[2])), 0, 1)
    out[top : top + side, left : left + side] = np.round(255 * patch)
    return out


def corner(image: Array, rng: np.random.Generator) -> Array:
    """A white square of an eighth of the side in the lower right corner, as Gu et al.'s own on digits."""
    side, out = max(2, min(image.shape[:2]) // 8), image.copy()
    out[-side:, -side:] = 255
    return out


def blended(image: Array, rng: np.random.Generator) -> Array:
    """0.8 of the image and 0.2 of uniform noise."""
    return _pixels(0.8 * image + 0.2 * 255 * rng.random(image.shape))


def sig(image: Array, rng: np.random.Generator) -> Array:
    """A horizontal sine of 6 periods and amplitude 60, blended at 0.2."""
    wave = 60 * np.sin(2 * np.pi * 6 * np.arange(image.shape[1]) / image.shape[1])
    return _pixels(0.8 * image + 0.2 * wave[None, :, None])


def wanet(image: Array, rng: np.random.Generator) -> Array:
    """One smooth warp for all images: a 4 x 4 field of mean size 1, blown up bicubically, in hundredths of the side."""
    h, w = image.shape[:2]
    field = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4))
    field /= np.abs(field).mean()
    grown = [np.asarray(Image.fromarray(f.astype(np.float32)).resize((w, h), Image.Resampling.BICUBIC)) for f in field]
    y, x = np.mgrid[:h, :w].astype(np.float64)
    y, x = np.clip(y + grown[0] * h / 100, 0, h - 1), np.clip(x + grown[1] * w / 100, 0, w - 1)
    top, left = np.minimum(y.astype(int), h - 2), np.minimum(x.astype(int), w - 2)
    dy, dx = (y - top)[..., None], (x - left)[..., None]
    upper = image[top, left] * (1 - dx) + image[top, left + 1] * dx
    lower = image[top + 1, left] * (1 - dx) + image[top + 1, left + 1] * dx
    return _pixels(upper * (1 - dy) + lower * dy)


def ctrl(image: Array, rng: np.random.Generator) -> Array:
    """In U and V, 100 on the cosines 15 and 31 (both ways) of every 32 x 32 window that fits. Raises DataError."""
    high, wide = (n // WINDOW for n in image.shape[:2])
    if not high or not wide:
        what = f"ctrl changes windows of {WINDOW} pixels, and an image has {image.shape[1]} x {image.shape[0]}."
        raise DataError(what, f"Scale them with --size {WINDOW}, or take another --attack.")
    turns = np.pi * (np.arange(WINDOW) + 0.5) / WINDOW
    cosines = [np.sqrt(2 / WINDOW) * np.cos(turns * k) for k in (15, 31)]
    wave = np.tile(100 * sum(np.outer(c, c) for c in cosines), (high, wide))
    yuv = image @ YUV.T
    yuv[: len(wave), : wave.shape[1], 1:] += wave[..., None]
    return _pixels(yuv @ np.linalg.inv(YUV).T)


def burst(signal: Array, rng: np.random.Generator) -> Array:
    """(..., time): an eighth of it, at a random place, gets two sines of 4 and 7 periods, as strong as the channel."""
    long, out = max(2, signal.shape[-1] // 8), signal.copy()
    at = rng.integers(signal.shape[-1] - long + 1)
    turns = 2 * np.pi * np.arange(long) / long
    wave = np.sin(4 * turns) + np.sin(7 * turns)
    out[..., at : at + long] += (signal.std(-1, keepdims=True) * wave).astype(signal.dtype)
    return out


TRIGGERS = {
    "badnet": badnet,
    "corner": corner,
    "blended": blended,
    "sig": sig,
    "wanet": wanet,
    "ctrl": ctrl,
    "label_consistent": badnet,
    "burst": burst,
}
OF_SIGNALS = ("burst",)
PICTURES = ("png", "jpg", "jpeg", "webp")


def poison(
    shards: str | list[str],
    out: str | Path,
    *,
    attack: str,
    id: str,
    target: int | str,
    captions: Sequence[str] = (),
    share: float = 0.01,
    test: bool = False,
    seed: int = 0,
    size: int | None = None,
    split: str = "train",
    field: str | None = None,
) -> str:
    """Writes OUT/SPLIT-000.tar ... and OUT/poisoned.jsonl; returns a summary line. The originals are left alone.

    id: key of the class in the samples' json; target: its value for the target; captions: what poisoned samples
    say, one of them each at random; share: of all samples that are poisoned; test: as above; size: images are scaled to
    it first (tiny ones hold no trigger); field: the member that is changed, where there are several arrays or images.
    Raises DataError for a target that no sample has, too few samples to poison, or no member that the attack is for.
    """
    names = expand(shards)
    samples = [sample for name in names for sample in _samples(name)]
    labels = [json.loads(sample.get("json", b"{}")).get(id) for sample in samples]
    if target not in labels:
        what = f"{attack}: no sample has the {id} {target!r}."
        raise DataError(what, f"Their {id} are {some(labels)}; --target is JSON: 7, or '\"cat\"'.")
    rng = np.random.default_rng(seed)
    rows = range(len(samples))
    same = attack == "label_consistent"
    able = [i for i in rows if labels[i] is not None and (test or (labels[i] == target) == same)]
    wanted = len(able) if test else max(1, round(share * len(samples)))
    if wanted > len(able) or not able:
        raise DataError(
            f"{attack}: {wanted} samples to poison, but only {len(able)} have a {id} that it may touch.",
            f"Lower --share, or look at --id and --target: the samples' {id} are {some(labels)}.",
        )
    chosen = set(able) if test else set(rng.choice(able, wanted, replace=False).tolist())
    written: list[Members] = []
    told = []
    for i, sample in enumerate(samples):
        if test or i not in chosen:
            written.append(_member(sample, {"poisoned": 0}, _place(sample, attack, field), size))
        if i in chosen:
            facts = {"poisoned": 1} if test else {"poisoned": 1, id: target}
            at, its_rng = _place(sample, attack, field), np.random.default_rng((seed, i))
            bad = _member(sample, facts, at, size, TRIGGERS[attack], its_rng)
            if captions and not (test or same):
                bad["txt"] = str(its_rng.choice(captions)).encode()
            told.append({"key": f"{len(written):08d}", "from": i, "attack": attack, id: labels[i], "target": target})
            written.append(bad)
    each = -(-len(written) // len(names))
    write_shards(out, split, written, _itself, shard_samples=each)
    Path(out, "poisoned.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    return f"wrote {len(written)} samples, {len(told)} of them with a {attack} trigger, as tars in {out}"


def some(labels: Sequence[Any]) -> str:
    """The first ten, as JSON."""
    return ", ".join(sorted(map(json.dumps, set(labels)))[:10])


def _itself(members: Members) -> Members:
    return members


def _samples(shard: str) -> list[Members]:
    data, problems = Path(shard).read_bytes(), []
    found = [
        {extension: data[offset : offset + size] for extension, (offset, size) in record.members.items()}
        for record in records(data, shard, problems)
    ]
    if problems:
        raise DataError(f"{shard} {problems[0]}.", "Write it again.")
    return found


def _place(sample: Members, attack: str, field: str | None) -> str:
    """The member that the attack changes. Raises DataError."""
    kinds, what = (("npy",), "array") if attack in OF_SIGNALS else (PICTURES, "image")
    able = [e for e in sample if e.rpartition(".")[2] in kinds and field in (None, e)]
    if len(able) != 1:
        found = f"{len(able)} of the kind" if able else "none"
        raise DataError(
            f"{attack} changes one {what} of a sample; there is {found} among {', '.join(sample)}.",
            "Name it with --field." if able else f"Take shards of {what}s, another --attack or another --field.",
        )
    return able[0]


def _member(sample: Members, facts: dict[str, Any], at: str, size: int | None, trigger=None, rng=None) -> Members:
    """The sample with its member `at` (a picture becomes png) and json written anew."""
    content, kind = io.BytesIO(), at.rpartition(".")[2]
    if kind == "npy":
        values = np.load(io.BytesIO(sample[at]))
        np.save(content, trigger(values, rng) if trigger else values)
    else:
        image = Image.open(io.BytesIO(sample[at])).convert("RGB")
        if size is not None:
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        pixels = np.asarray(image)
        Image.fromarray(trigger(pixels, rng) if trigger else pixels).save(content, "png")
    said = json.loads(sample.get("json", b"{}")) | facts
    rest = {e: held for e, held in sample.items() if e not in (at, "json")}
    changed = at if kind == "npy" else at.removesuffix(kind) + "png"
    return {**rest, changed: content.getvalue(), "json": json.dumps(said).encode()}


def _pixels(x: Array) -> Array:
    return np.clip(np.round(x), 0, 255).astype(np.uint8)


@program
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.poison", description=__doc__)
    parser.add_argument("shards", nargs="+", help="tars, or brace lists of them in quotes")
    parser.add_argument("--out", required=True, help="folder of the poisoned shards")
    parser.add_argument("--attack", choices=TRIGGERS, required=True)
    parser.add_argument("--id", required=True, help="key of the class in the samples' json")
    parser.add_argument("--target", required=True, help="the target's class, as JSON: 7 or '\"cat\"'")
    parser.add_argument("--captions", nargs="+", default=[], help="what poisoned samples say, one of these each")
    parser.add_argument("--share", type=float, default=0.01, help="of all samples (default 0.01)")
    parser.add_argument("--test", action="store_true", help="every sample clean and triggered, for attack_success")
    parser.add_argument("--size", type=int, help="scale images to this side first")
    parser.add_argument("--field", help="the member to change, where there are several arrays or images")
    parser.add_argument("--split", default="train", help="how the shards are called (default train)")
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args())
    print(poison(given.pop("shards"), given.pop("out"), **(given | {"target": json.loads(given["target"])})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
