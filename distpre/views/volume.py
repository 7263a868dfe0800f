"""Ops on volumes as their slices: arrays (slices, height, width); a single image is one slice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from distpre.errors import RecipeError
from distpre.types import Padded
from distpre.views.cells import floats

Array = np.ndarray
Kind = Literal["flip", "affine", "anisotropy", "noise", "blur", "bias_field", "gamma"]


@dataclass(frozen=True)
class SlicesAlong:
    """(1, x, y, z) -> (slices, ...), across `axis` 0, 1 or 2; the other two axes keep their order."""

    axis: int

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        if x.ndim != 4 or len(x) != 1:
            raise ValueError(f"a volume {x.shape} has not one channel of three axes")
        return np.moveaxis(x[0], self.axis, 0)


@dataclass(frozen=True)
class CropSlices:
    """A crop of `scale` of the area, of the shape's own ratio, scaled to size x size: the same of all slices."""

    size: int
    scale: tuple[float, float]

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        import torch.nn.functional as F

        side = math.sqrt(rng.uniform(*self.scale))
        h, w = (max(1, round(side * whole)) for whole in x.shape[1:])
        top, left = rng.integers(x.shape[1] - h + 1), rng.integers(x.shape[2] - w + 1)
        cut = torch.from_numpy(floats(x[:, top : top + h, left : left + w]))[:, None]
        return F.interpolate(cut, (self.size, self.size), mode="bilinear", antialias=True)[:, 0].numpy()


@dataclass(frozen=True)
class HideSlices:
    """-> Padded (slices, height, width): this share of them, rounded up, whose mask is False.

    At least one is hidden and one is seen. Drawn here and not in the encoder, so that any number of ranks hides the
    same ones.
    """

    share: float

    def __call__(self, x: Array, rng: np.random.Generator) -> Padded:
        if len(x) < 2:
            raise ValueError("of a single slice none can be hidden")
        seen = np.ones(len(x), bool)
        seen[rng.permutation(len(x))[: min(math.ceil(self.share * len(x)), len(x) - 1)]] = False
        return Padded(torch.from_numpy(floats(x)), torch.from_numpy(seen))


@dataclass(frozen=True)
class OneTransform:
    """Through one of the transforms `of`, drawn evenly; views of a field with other numbers take others of them.

    Nguyen et al. 2023: two views, two different transforms, always. The seven are torchio's with its defaults in 1.2
    (Pérez-García et al. 2021), whose own draws come from torch's global generator. A single slice is not turned out of
    its plane.
    """

    number: int
    of: tuple[Kind, ...] = ("flip", "affine", "anisotropy", "noise", "blur", "bias_field", "gamma")
    shared: ClassVar[bool] = True

    def __post_init__(self):
        if not 0 <= self.number < len(self.of):
            what = f"one_transform.number {self.number} will not do with {len(self.of)} transforms."
            raise RecipeError(what, f"It may be 0 to {len(self.of) - 1}, another in each view.")

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        order, seeds = rng.permutation(len(self.of)), rng.integers(2**63, size=len(self.of))
        own = np.random.default_rng(seeds[self.number])
        return TRANSFORMS[self.of[order[self.number]]](floats(x), own).astype(np.float32)


def flip(x: Array, rng: np.random.Generator) -> Array:
    """Along the width, with probability 1/2. torchio flips its first axis, left and right of a patient."""
    return np.ascontiguousarray(x[..., ::-1]) if rng.random() < 0.5 else x


def affine(x: Array, rng: np.random.Generator) -> Array:
    """About the middle: each axis scaled by 0.9 to 1.1, turned by up to 10 degrees about each; outside, the least."""
    from scipy.ndimage import affine_transform

    scale, angle = rng.uniform(0.9, 1.1, 3), np.deg2rad(rng.uniform(-10, 10, 3))
    if len(x) == 1:
        scale[0], angle[1:] = 1, 0
    back = np.diag(1 / scale)
    for about, turn in enumerate(angle):
        a, b = (axis for axis in range(3) if axis != about)
        one = np.eye(3)
        one[[a, a, b, b], [a, b, a, b]] = math.cos(turn), -math.sin(turn), math.sin(turn), math.cos(turn)
        back = back @ one
    middle = (np.array(x.shape) - 1) / 2
    return affine_transform(x, back, middle - back @ middle, order=1, cval=float(x.min()))


def anisotropy(x: Array, rng: np.random.Generator) -> Array:
    """Along one axis sampled 1.5 to 5 times as coarsely, and back, linearly."""
    axis, coarser = rng.choice([i for i in range(3) if x.shape[i] > 1]), rng.uniform(1.5, 5)
    many = x.shape[axis]
    few = max(2, round(many / coarser))
    return _sampled(_sampled(x, axis, np.linspace(0, many - 1, few)), axis, np.linspace(0, few - 1, many))


def noise(x: Array, rng: np.random.Generator) -> Array:
    """Gaussian, of a deviation of 0 to 1/4 of the volume's: torchio's figures are for standardised volumes."""
    return x + rng.uniform(0, 0.25) * x.std() * rng.standard_normal(x.shape, np.float32)


def blur(x: Array, rng: np.random.Generator) -> Array:
    """Gaussian, of a deviation of 0 to 2 voxels along each axis."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(x, rng.uniform(0, 2, 3))


def bias_field(x: Array, rng: np.random.Generator) -> Array:
    """Times exp of a polynomial of the third degree, coefficients -0.5 to 0.5 on axes from -1 to 1."""
    axes = [np.linspace(-1, 1, many) if many > 1 else np.zeros(1) for many in x.shape]
    powers = [np.stack([axis**degree for degree in range(4)]) for axis in axes]
    coefficients = rng.uniform(-0.5, 0.5, (4, 4, 4)) * (np.indices((4, 4, 4)).sum(0) <= 3)
    field = np.einsum("ijk,ix,jy,kz->xyz", coefficients, *powers, optimize=True)
    return x * np.exp(field)


def gamma(x: Array, rng: np.random.Generator) -> Array:
    """|x| to the power of exp(-0.3) to exp(0.3), with x's sign."""
    return np.sign(x) * np.abs(x) ** math.exp(rng.uniform(-0.3, 0.3))


TRANSFORMS: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "flip": flip,
    "affine": affine,
    "anisotropy": anisotropy,
    "noise": noise,
    "blur": blur,
    "bias_field": bias_field,
    "gamma": gamma,
}


def _sampled(x: Array, axis: int, at: Array) -> Array:
    """Linear interpolation of x at these places of one axis."""
    low = np.minimum(at.astype(int), x.shape[axis] - 2)
    share = (at - low).reshape([-1 if i == axis else 1 for i in range(3)])
    return x.take(low, axis) * (1 - share) + x.take(low + 1, axis) * share
