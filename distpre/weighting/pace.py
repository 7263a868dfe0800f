"""Self-paced selection: of the parts of all samples, those that were hardest at their last visit (OCTCube)."""

from __future__ import annotations

import torch
from torch import Tensor

from distpre.errors import RecipeError
from distpre.group import device, gathered, total
from distpre.schedule import Schedule
from distpre.types import Batch
from distpre.weighting.histogram import Histogram
from distpre.weighting.state import SampleState

HALVINGS = 60  # of the interval that a bound is looked for in


class Hardest:
    """Batch.state[its name]: (b, parts), 1 for the parts that are used in this epoch, else 0; unseen parts are used.

    of: the term whose per-sample errors (b, parts) are kept (`masked_error`, of which parts are frames of tubelets).
    After each epoch the hardest `share` of all parts of all samples that are known is chosen for the next; share: a
    number or a schedule over `epochs`. The paper calls it self-paced; its code takes the hardest, and ever fewer.
    """

    def __init__(self, of: str, parts: int, share: Schedule, epochs: int = 1):
        self.of, self.parts, self.share, self.epochs = of, parts, share, epochs
        self.columns = tuple(f"{kind}_{i}" for kind in ("error", "used") for i in range(parts))

    def weigh(self, state: SampleState, batch: Batch) -> Tensor:
        return state.read(batch.ordinal)[:, self.parts :].nan_to_num(1.0)

    def observe(self, state: SampleState, batch: Batch, errors: Tensor) -> None:
        """Keeps the errors of the samples that were read, of the parts that have one. Raises RecipeError."""
        if errors.shape[1:] != (self.parts,):
            what = f"hardest: {self.parts} parts a sample, but the term {self.of!r} tells of {tuple(errors.shape[1:])}."
            raise RecipeError(what, "Give both the same `parts`.")
        real = batch.weight > 0
        ordinals, new = batch.ordinal[real], errors.detach()[real.to(errors.device)]
        new = torch.where(new.isfinite(), new, state.read(ordinals)[:, : self.parts].to(new.device))
        state.write(self.columns[: self.parts], ordinals, new)

    def end_epoch(self, state: SampleState, epoch: int, seed: int) -> tuple[dict[str, float], Histogram | None]:
        """Chooses for epoch `epoch`; every rank calls it."""
        errors, used = state.values[:, : self.parts], state.values[:, self.parts :]
        known, share = errors.isfinite(), self.share.at(epoch, self.epochs)
        bound = hardest_bound(errors[known], share)
        used.copy_(torch.where(known, (errors >= bound).float(), torch.nan))
        counts = torch.stack([(errors[known] >= bound).sum(), known.sum()])
        chosen, of = total(counts.to(device())).tolist()
        return {"share": chosen / max(of, 1), "bound": bound}, None


def hardest_bound(values: Tensor, share: float) -> float:
    """The largest number that at least `share` of all ranks' values reach, by halving: nothing but counts is sent."""
    ends = values.double().aminmax() if len(values) else (torch.tensor(torch.inf), torch.tensor(-torch.inf))
    ends = gathered(torch.stack([end.double() for end in ends])[None].to(device()))
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    of = total(torch.tensor(float(len(values)), device=device()))
    if not low < high:
        return low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        enough = total((values >= middle).sum().double().to(device())) >= share * of
        low, high = (middle, high) if enough else (low, middle)
    return low
