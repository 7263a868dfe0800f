"""A tower: an encoder and, where the recipe names one, a head."""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from distpre.types import Padded


class Encoder(Protocol):
    """forward(x: (b, ...) or Padded) -> (pooled (b, width), taps {name: tensor}).

    Modules hand each other tuples and dicts of tensors only: ZeRO-3 finds tensors in those and in nothing else.
    """

    width: int

    def __call__(self, x: Tensor | Padded) -> tuple[Tensor, dict[str, Tensor]]: ...


class Head(Protocol):
    """forward(pooled (b, width), taps) -> (b, d), or that and taps of its own (a decoder).

    `build(width)` makes its layers once the encoder's width is known.
    """

    width: int

    def build(self, width: int) -> None: ...

    def __call__(self, pooled: Tensor, taps: dict[str, Tensor]) -> Tensor | tuple[Tensor, dict[str, Tensor]]: ...


class Tower(nn.Module):
    """view -> unit vectors (b, d), and the encoder's and the head's taps with `pooled`, what the head was given, and
    `said`, what it made of it before that became unit vectors.
    """

    def __init__(self, encoder: Encoder, head: Head | None = None):
        super().__init__()
        self.encoder, self.head = encoder, head
        if head is not None:
            head.build(encoder.width)
        self.width = encoder.width if head is None else head.width

    def forward(self, x: Tensor | Padded) -> tuple[Tensor, dict[str, Tensor]]:
        pooled, taps = self.encoder(x)
        said = pooled if self.head is None else self.head(pooled, taps)
        vector, more = said if isinstance(said, tuple) else (said, {})
        return F.normalize(vector.float(), dim=-1), {**taps, **more, "pooled": pooled, "said": vector}
