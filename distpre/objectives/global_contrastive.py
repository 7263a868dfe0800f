"""Global contrastive loss: negatives of the whole data set, by a moving mean a sample (SogCLR, FastCLIP).

SogCLR: Yuan et al., ICML 2022. FastCLIP: Wei et al. 2024, arXiv 2407.01445, algorithm 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distpre.contrast import Direction, contrast
from distpre.errors import RecipeError
from distpre.group import total
from distpre.objectives.contrast import Scaling, block, figures, shared
from distpre.schedule import Schedule
from distpre.types import Step, TermResult


class GlobalContrastive:
    """τ/2 · mean_i [log(ε + u_1i) + log(ε + u_2i)] + ρτ, with FastCLIP's gradient (Wei et al. 2024).

    g_1i = mean_{j ≠ i} exp((<x_i, y_j> - <x_i, y_i>) / τ) over the global batch, g_2i likewise over rows; u <- (1-γ) u
    + γ g, and g at the first visit. Embeddings get τ/2 · mean_i Σ_k ∇g_ki / (ε + u_ki): where u is g, that of the
    logarithm; else each sample by its g/u. A learned τ gets in addition the derivative of the factor τ.

    rows, columns: names of views. estimates: the name of a `weighting`, `inner_estimates` of this term. gamma: γ in
    (0, 1]. temperature: τ (GCL: SogCLR with a constant gamma, FastCLIP-v1 with a falling one); or scale: a learned 1/τ
    with rho (RGCL-g: FastCLIP-v3). Half of the paper's loss, as released. Logarithms of u are kept, so that no τ
    overflows. per_sample: (b, 2), log u.
    """

    local = False

    def __init__(
        self,
        rows: str,
        columns: str,
        estimates: str,
        gamma: Schedule,
        scale: str | None = None,
        temperature: Schedule | None = None,
        rho: float = 0.0,
        epsilon: float = 1e-14,
        layout: str = "auto",
    ):
        if (scale is not None) != (rho > 0):
            what = f"global_contrastive.rho {rho:g} will not do with {'a learned scale' if scale else 'a temperature'}."
            raise RecipeError(
                what, "A learned scale needs rho above 0, else it only shrinks; a temperature takes none."
            )
        self.rows, self.columns, self.estimates, self.gamma = rows, columns, estimates, gamma
        self.scaling, self.rho, self.epsilon, self.layout = Scaling(scale, temperature), rho, epsilon, layout
        self.gathers = [rows]

    def __call__(self, step: Step) -> TermResult:
        rows, columns = block(step, self.rows, {}), block(step, self.columns, {})
        scale, _ = self.scaling.at(step)
        out = contrast(rows, columns, scale, layout=self.layout)
        log_g = torch.stack([_log_g(out.rows, columns.there()), _log_g(out.columns, rows.there())], 1)
        known, gamma = step.batch.state[self.estimates].to(log_g), self.gamma.at(step.index, step.of)
        log_u = moved(known, log_g.detach(), gamma)
        below = torch.logaddexp(log_u, log_u.new_tensor(math.log(self.epsilon)))
        ratio = (log_g.detach() - below).exp()
        # The value is log(ε + u), the derivative g/(ε + u) · ∇log g = ∇g/(ε + u).
        each = (below + ratio * (log_g - log_g.detach())).mean(1)
        there = rows.there() & columns.there()
        share = shared(step.batch.weight * there)
        log = {"scale": scale.detach().squeeze(), "gamma": gamma, "ratio": (share * ratio.mean(1)).sum()}
        return TermResult(
            (share * (each + self.rho)).sum() / scale.squeeze(),
            torch.where(there[:, None], log_u, known),
            log | figures(out, share, scale),
        )


def moved(log_u: Tensor, log_g: Tensor, gamma: float) -> Tensor:
    """log((1 - γ) u + γ g); log g where u is NaN, not known yet."""
    old, new = torch.tensor([1 - gamma, gamma], dtype=log_g.dtype, device=log_g.device).log()
    return torch.where(log_u.isnan(), log_g, torch.logaddexp(log_u + old, log_g + new))


def _log_g(direction: Direction, others: Tensor) -> Tensor:
    """(n,) log of the mean over the negatives of exp(logit - own logit); others: (m,) bool, this rank's that are there.

    0 for a sample that is absent, or has no negative."""
    count = total(others.sum()) - 1
    return direction.loss(positives_below=False) - count.clamp(min=1).to(direction.target.dtype).log()
