"""What a weighting has to show after an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

from numpy.typing import NDArray

BINS = 60


@dataclass(frozen=True)
class Histogram:
    """Samples by a number of theirs: counts (n,) between edges (n + 1,).

    of: what the number is; curves: {name: (n,) counts that a model expects there}.
    """

    of: str
    edges: NDArray
    counts: NDArray
    curves: dict[str, NDArray] = field(default_factory=dict)
