"""Each view predicts the cluster that another view of the sample is in (SwAV, Caron et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from distpre.errors import RecipeError
from distpre.group import total
from distpre.objectives.contrast import shared
from distpre.schedule import Schedule
from distpre.types import Step, TermResult

LEAST = 0.005  # epsilon, so that exp((score - 1) / epsilon) is above 0 in float64


class SwappedPrediction:
    """Mean over samples and ordered pairs of views s, t of -Σ_k q_s[k] log softmax(p_t / temperature)[k] (eq. 2).

    of: views whose tower has prototypes (taps scores and held, (b, K)). The codes q_s are the scores of the global
    batch through `iterations` of Sinkhorn's algorithm at `epsilon` (section 3.1; 3 and 0.05 there): as much of each
    prototype is dealt out, and a sample gets 1 in all. What travels is K sums an iteration. There is no queue: let K be
    well below the batch, else an equal share of each prototype says nothing. hold: in so many of the stage's first
    steps prototypes get no gradient (1 epoch there, 313 steps in Nguyen et al. 2023). A sample that lacks one of the
    views counts in nothing. log: the share of the likeliest prototype in a code, and how many prototypes are predicted
    (exp of the mean prediction's entropy): 1 where all samples have become alike.
    """

    local = False
    taps = ("scores", "held")

    def __init__(self, of: list[str], temperature: Schedule, epsilon: float = 0.05, iterations: int = 3, hold: int = 0):
        if len(of) < 2:
            raise RecipeError(f"swapped_prediction.of {of} will not do.", "Name two views of a sample, or more.")
        if epsilon < LEAST:
            raise RecipeError(f"swapped_prediction.epsilon {epsilon:g} will not do.", f"It may be at least {LEAST}.")
        self.of, self.temperature, self.epsilon = of, temperature, epsilon
        self.iterations, self.hold = iterations, hold

    def __call__(self, step: Step) -> TermResult:
        batch, scores = step.batch, [self._scores(step, view) for view in self.of]
        there = torch.stack([batch.present_in(view) for view in self.of]).all(0)
        codes = [sinkhorn(s, there, self.epsilon, self.iterations) for s in scores]
        temperature = self.temperature.at(step.index, step.of)
        said = [(s / temperature).log_softmax(1) for s in scores]
        pairs = [(q, p) for i, q in enumerate(codes) for j, p in enumerate(said) if i != j]
        each = torch.stack([-(q * p).sum(1) for q, p in pairs]).mean(0)
        share = shared(batch.weight * there)
        mean = total(torch.stack([(there[:, None] * p.detach().exp()).sum(0) for p in said]).sum(0))
        mean = mean / mean.sum().clamp(min=1e-12)
        log = {
            "likeliest": (share * torch.stack([q.amax(1) for q in codes]).mean(0)).sum(),
            "predicted": torch.special.entr(mean).sum().exp(),
        }
        return TermResult((share * each).sum(), each.detach(), log)

    def _scores(self, step: Step, view: str) -> Tensor:
        taps, tap = step.embedding(view).taps, "held" if step.index < self.hold else "scores"
        if tap not in taps:
            what = f"swapped_prediction: the tower of {view!r} has no prototypes."
            raise RecipeError(what, "Give it the head `prototypes`.")
        return taps[tap].to(torch.promote_types(taps[tap].dtype, torch.float32))


@torch.no_grad()
def sinkhorn(scores: Tensor, there: Tensor, epsilon: float, iterations: int) -> Tensor:
    """(n, K) codes of this rank's samples: rows sum to 1 and, the more iterations, columns over all ranks to B / K.

    scores: (n, K) cosines; there: (n,) bool, the rest has no code and no say. Cuturi 2013's, columns first and rows
    last as in SwAV's code, in float64.
    """
    q = ((scores.double() - 1) / epsilon).exp() * there[:, None]
    for _ in range(iterations):
        q = q / total(q.sum(0)).clamp(min=torch.finfo(q.dtype).tiny)
        q = q / q.sum(1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)
    return q.to(scores.dtype)
