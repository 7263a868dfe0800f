"""Ops on images: uint8 arrays (h, w) or (h, w, c) until to_tensor makes floats (c, h, w) of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Array = np.ndarray


@dataclass(frozen=True)
class Resize:
    """To size x size pixels, bicubic; the aspect ratio is not kept."""

    size: int

    def __call__(self, image: Array, rng: np.random.Generator) -> Array:
        return _resized(image, self.size)


@dataclass(frozen=True)
class CenterCrop:
    """The middle square, scaled to size x size: what CLIP evaluates on."""

    size: int

    def __call__(self, image: Array, rng: np.random.Generator) -> Array:
        h, w = image.shape[:2]
        side = min(h, w)
        top, left = (h - side) // 2, (w - side) // 2
        return _resized(image[top : top + side, left : left + side], self.size)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A crop of `scale` of the area and `ratio` of width to height, scaled to size x size (Szegedy et al. 2015)."""

    size: int
    scale: list[float] = field(default_factory=lambda: [0.9, 1.0])
    ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])

    def __call__(self, image: Array, rng: np.random.Generator) -> Array:
        h, w = image.shape[:2]
        for _ in range(10):
            area = h * w * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < height <= h and 0 < width <= w:
                top, left = rng.integers(h - height + 1), rng.integers(w - width + 1)
                return _resized(image[top : top + height, left : left + width], self.size)
        return _resized(image, self.size)


@dataclass(frozen=True)
class RandomShift:
    """By up to `pixels` in each direction; the border is repeated outwards."""

    pixels: int

    def __call__(self, image: Array, rng: np.random.Generator) -> Array:
        p = self.pixels
        padded = np.pad(image, [(p, p), (p, p), (0, 0)][: image.ndim], mode="edge")
        top, left = rng.integers(2 * p + 1, size=2)
        return padded[top : top + image.shape[0], left : left + image.shape[1]]


@dataclass(frozen=True)
class Flip:
    """Left to right, with probability p."""

    p: float = 0.5

    def __call__(self, image: Array, rng: np.random.Generator) -> Array:
        return image[:, ::-1] if rng.random() < self.p else image


@dataclass(frozen=True)
class AutoAugment:
    """A learned policy of two ops, such as shear and solarise (Cubuk et al. 2019): torchvision's, on (h, w, 3)."""

    policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet"

    def __call__(self, image: Array, rng: np.random.Generator) -> Array:
        from torchvision.transforms import AutoAugment, AutoAugmentPolicy

        with torch.random.fork_rng(devices=()):  # torchvision draws from torch's global generator
            torch.default_generator.manual_seed(int(rng.integers(2**63)))  # not a GPU's too, which costs milliseconds
            return np.asarray(AutoAugment(AutoAugmentPolicy(self.policy))(Image.fromarray(image)))


@dataclass(frozen=True)
class ToTensor:
    """uint8 or uint16 -> float32 (channels, h, w), (x / the type's largest value - mean) / std.

    Grey is repeated to `channels`, transparency is laid over white. mean and std: one for all channels or one each.
    """

    mean: list[float]
    std: list[float]
    channels: int = 3

    def __call__(self, image: Array, rng: np.random.Generator) -> Tensor:
        x = np.atleast_3d(image).astype(np.float32) / np.iinfo(image.dtype).max
        if x.shape[2] in (2, 4):
            alpha = x[..., -1:]
            x = x[..., :-1] * alpha + (1 - alpha)
        if x.shape[2] == 1:
            x = np.repeat(x, self.channels, axis=2)
        if x.shape[2] != self.channels:
            raise ValueError(f"an image of {x.shape[2]} channels where the recipe wants {self.channels}")
        x = (x - np.float32(self.mean)) / np.float32(self.std)
        return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))


@dataclass(frozen=True)
class InChannel:
    """(1, h, w) -> (of, h, w), zeros but for channel `place`: kinds of pictures with a stem each in one network."""

    place: int
    of: int

    def __call__(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        out = image.new_zeros((self.of, *image.shape[1:]))
        out[self.place] = image[0]
        return out


def _resized(image: Array, size: int) -> Array:
    if image.shape[:2] == (size, size):
        return image
    plain = image[..., 0] if image.shape[2:] == (1,) else image  # Pillow knows no (h, w, 1)
    return np.asarray(Image.fromarray(np.ascontiguousarray(plain)).resize((size, size), Image.Resampling.BICUBIC))
