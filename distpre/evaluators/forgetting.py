"""What a sequence of stages does to what was learned before: pure arithmetic on tables and embeddings.

A matrix row is a model (the untrained one, then one after each stage), a column a domain; higher is better.
"""

from __future__ import annotations

from statistics import fmean

import torch
from torch import Tensor


def summary(rows: dict[str, dict[str, float]], first: str) -> dict[str, float]:
    """{model: {domain: value}} in the order of training, `first` the untrained model -> figures by name.

    A domain is learned in the stage of its name. average: the last row's mean. forgetting: mean over domains learned
    before the last stage of (best value from then on, the last row left out) - last value (Chaudhry et al. 2018,
    eq. 3). backward_transfer: mean of last - value when learned; forward_transfer: mean over domains learned after the
    first stage of value just before - untrained value (Lopez-Paz & Ranzato 2017, eqs. 3 and 4).
    A figure without domains to average over is left out.
    """
    models = list(rows)
    last, trained = rows[models[-1]], [name for name in models if name != first]
    learned = [name for name in trained if name in last]
    before = [name for name in learned if name != models[-1]]
    forgotten = [max(rows[m][d] for m in models[models.index(d) : -1]) - last[d] for d in before]
    backward = [last[d] - rows[d][d] for d in before]
    later = [d for d in learned if first in rows and models.index(d) > 1]
    forward = [rows[models[models.index(d) - 1]][d] - rows[first][d] for d in later]
    parts = {
        "average": list(last.values()),
        "forgetting": forgotten,
        "backward_transfer": backward,
        "forward_transfer": forward,
    }
    return {name: fmean(values) for name, values in parts.items() if values}


def self_angle(before: Tensor, after: Tensor) -> float:
    """Unit rows (n, d) of the same samples by two models -> degrees: mean |change| of the angle between two samples.

    0 where one is a rotation of the other (the self-angle matrices of Ni et al. 2023, section 3.2).
    """
    change = (_angles(after @ after.T) - _angles(before @ before.T)).abs()
    n = len(change)
    return float((change.sum() - change.diagonal().sum()) / max(1, n * (n - 1)))


def cross_angle(before: Tensor, after: Tensor) -> float:
    """Degrees by which a sample's embedding turned, on average (the rotation angles of Ni et al. 2023, section 3.2)."""
    return float(_angles((before * after).sum(1)).mean())


def _angles(cosines: Tensor) -> Tensor:
    return torch.rad2deg(torch.arccos(cosines.clamp(-1, 1)))
