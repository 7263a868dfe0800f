"""Ops on signals: arrays (channels, time), float32 in and out; each draws from its rng alone and returns a new array.

Abbaspourazad et al. 2024 (wearable foundation models): each op is applied with its own probability, independently. The
paper gives the probabilities (PPG: cut-out 0.4, magnitude warp 0.25, noise 0.25, channel permute 0.25, time warp 0.15;
ECG: 0.8, 0.5, 0.5, none, 0.3) and no strengths: the defaults here are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class CutOut:
    """With probability p, one stretch of `share` of the time becomes 0 in every channel."""

    p: float
    share: list[float] = field(default_factory=lambda: [0.1, 0.2])

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        if rng.random() >= self.p:
            return x
        length = round(x.shape[1] * rng.uniform(*self.share))
        start = rng.integers(x.shape[1] - length + 1)
        out = x.copy()
        out[:, start : start + length] = 0
        return out


@dataclass(frozen=True)
class MaskSteps:
    """`count` stretches of `share` of the time, anywhere, overlaps allowed, are masked in every channel: no numbers.

    For an encoder that takes NaN as masked (dilated1d): 5 stretches of a tenth are TS2Vec's "continuous" mask.
    """

    count: int = 5
    share: float = 0.1

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        length = max(1, int(self.share * x.shape[1]))
        out = x.copy()
        for start in rng.integers(x.shape[1] - length + 1, size=self.count):
            out[:, start : start + length] = np.nan
        return out


@dataclass(frozen=True)
class MagnitudeWarp:
    """With probability p, each channel is multiplied by a curve through `knots` even points drawn from `scale`.

    The curve is piecewise cubic (Catmull-Rom), so it is smooth and passes through its points.
    """

    p: float
    knots: int = 5
    scale: list[float] = field(default_factory=lambda: [0.5, 2.0])

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        if rng.random() >= self.p:
            return x
        points = rng.uniform(*self.scale, (len(x), self.knots))
        return (x * _curve(points, x.shape[1])).astype(x.dtype)


@dataclass(frozen=True)
class GaussianNoise:
    """With probability p, white noise; its deviation is `level` of each channel's own."""

    p: float
    level: list[float] = field(default_factory=lambda: [0.01, 0.05])

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        if rng.random() >= self.p:
            return x
        deviation = rng.uniform(*self.level) * x.std(1, keepdims=True)
        return (x + deviation * rng.standard_normal(x.shape)).astype(x.dtype)


@dataclass(frozen=True)
class ChannelPermute:
    """With probability p, the channels change places."""

    p: float

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        return x[rng.permutation(len(x))] if rng.random() < self.p else x


@dataclass(frozen=True)
class TimeWarp:
    """With probability p, time runs unevenly: `knots` inner points move by up to `shift` of the length, ends stay.

    Time never runs backwards: a point stays between its neighbours' places.
    """

    p: float
    knots: int = 4
    shift: float = 0.1

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        if rng.random() >= self.p:
            return x
        n = x.shape[1]
        even = np.linspace(0, n - 1, self.knots + 2)
        reach = min(self.shift * (n - 1), 0.49 * (even[1] - even[0]))
        moved = even.copy()
        moved[1:-1] += rng.uniform(-reach, reach, self.knots)
        at = np.interp(np.arange(n), even, moved)
        return np.stack([np.interp(at, np.arange(n), channel) for channel in x]).astype(x.dtype)


@dataclass(frozen=True)
class PermuteParts:
    """With probability p, the signal is cut into `parts` equal ones and they change places, alike in every channel.

    What does not divide stays at the end. MoRE (2024); its released code draws an order for each channel.
    """

    p: float
    parts: int = 4

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        if rng.random() >= self.p:
            return x
        length = x.shape[1] // self.parts
        parts = [x[:, i * length : (i + 1) * length] for i in rng.permutation(self.parts)]
        return np.concatenate([*parts, x[:, self.parts * length :]], axis=1)


@dataclass(frozen=True)
class OneSegment:
    """(segments, channels, time) -> (channels, time): of a random order of the segments, the one at `place`.

    The order is the same in all views of the field: places 0 and 1 are two different segments of a participant, each
    pair as likely as any other; place 0 twice is one segment seen in two ways.
    """

    place: int
    shared: ClassVar[bool] = True

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        if x.ndim != 3 or len(x) <= self.place:
            raise ValueError(f"an array {x.shape} has no segment {self.place}; shards: tools.shard signals --together")
        return x[rng.permutation(len(x))[self.place]]


@dataclass(frozen=True)
class RandomSegment:
    """`samples` neighbouring time steps from anywhere: of one place in every channel."""

    samples: int

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        start = rng.integers(_room(x, self.samples) + 1)
        return x[:, start : start + self.samples]


@dataclass(frozen=True)
class MiddleSegment:
    """The `samples` time steps in the middle: for evaluation."""

    samples: int

    def __call__(self, x: Array, rng: Any) -> Array:
        start = _room(x, self.samples) // 2
        return x[:, start : start + self.samples]


def _room(x: Array, samples: int) -> int:
    if x.shape[1] < samples:
        raise ValueError(f"a signal of {x.shape[1]} time steps where the recipe wants {samples}")
    return x.shape[1] - samples


def _curve(points: Array, n: int) -> Array:
    """(c, n) values of the Catmull-Rom splines through points (c, k) at even places; ends are repeated."""
    k = points.shape[1]
    padded = np.pad(points, [(0, 0), (1, 1)], mode="edge")
    at = np.linspace(0, k - 1, n)
    i = np.minimum(at.astype(int), k - 2)
    t = at - i
    a, b, c, d = (padded[:, i + j] for j in range(4))
    return b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
