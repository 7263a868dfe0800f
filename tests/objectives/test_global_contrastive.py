"""FastCLIP's estimator against its formula in float64, over visits that the sample state carries."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from distpre.errors import RecipeError
from distpre.objectives.global_contrastive import GlobalContrastive
from distpre.schedule import Constant, Linear
from distpre.types import Batch, Embedding, Step
from distpre.weighting.estimates import InnerEstimates
from distpre.weighting.state import SampleState

N, B, RHO = 12, 6, 1.5
VISITS = [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 9], [0, 9, 2, 8, 11, 4]]


def made(ordinals: list[int], index: int, absent: int | None, dtype: torch.dtype, scale: float) -> Step:
    g = torch.Generator().manual_seed(index)
    x, y = (F.normalize(torch.randn(B, 4, generator=g, dtype=torch.float64), dim=1).to(dtype) for _ in range(2))
    present = {"b": torch.arange(B) != (-1 if absent is None else absent)}
    batch = Batch({}, {}, torch.tensor(ordinals), torch.ones(B, dtype=dtype), present)
    student = {"a": Embedding(x.requires_grad_()), "b": Embedding(y.requires_grad_())}
    return Step(batch, student, {"s": torch.tensor([scale], dtype=dtype, requires_grad=True)}, {}, index, 10)


def brute(step: Step, u: torch.Tensor, gamma: float) -> dict[str, torch.Tensor]:
    """The paper's estimator by autograd of Σ g, weighed; u (N, 2) is moved in place. Halved, as released."""
    there = step.batch.present_in("b")
    x, y = step.student["a"].vector, step.student["b"].vector
    tau, at = 1 / step.scales["s"], step.batch.ordinal
    rows = there.nonzero().ravel().tolist()
    grow = {"a": torch.zeros_like(x), "b": torch.zeros_like(y)}
    value, by_tau = 0.0, 2 * RHO
    for k in (0, 1):
        for i in rows:
            left, right = (x, y) if k == 0 else (y, x)
            # every vector of the other side that is there is a negative, its partner may be absent
            others = [j for j in range(B) if j != i and (k == 1 or there[j])]
            g = sum(((left[i] @ right[j] - left[i] @ right[i]) / tau).exp() for j in others) / len(others)
            old = u[at[i], k]
            u[at[i], k] = g.detach() if old.isnan() else (1 - gamma) * old + gamma * g.detach()
            dx, dy, ds = torch.autograd.grad(g, [x, y, step.scales["s"]], retain_graph=True)
            below = 1e-14 + u[at[i], k]
            grow["a"] += tau.detach() * dx / below / len(rows)
            grow["b"] += tau.detach() * dy / below / len(rows)
            by_tau += (below.log() + tau.item() * ds * -(step.scales["s"].detach() ** 2) / below) / len(rows)
            value += tau.item() * below.log() / len(rows)
    by_scale = by_tau * -(tau.detach() ** 2)
    found = {"loss": value + 2 * RHO * tau.item(), "a": grow["a"], "b": grow["b"], "scale": by_scale}
    return {name: each / 2 for name, each in found.items()}


@pytest.mark.parametrize("absent", [None, 2])
def test_loss_gradients_and_estimates_over_three_visits(absent):
    gamma = Linear(1.0, 0.2)
    term = GlobalContrastive("a", "b", "u", gamma, scale="s", rho=RHO)
    weighting, u = InnerEstimates("match"), torch.full((N, 2), torch.nan, dtype=torch.float64)
    state = SampleState(N, weighting.columns, "")
    for index, ordinals in enumerate(VISITS):
        step = made(ordinals, index, absent, torch.float64, 5.0)
        step.batch.state["u"] = u.log()[step.batch.ordinal]  # in double; that the state says the same is told below
        torch.testing.assert_close(weighting.weigh(state, step.batch).double(), step.batch.state["u"], equal_nan=True)
        expect, said = brute(step, u, gamma.at(index, 10)), term(step)
        found = torch.autograd.grad(said.loss, [step.student["a"].vector, step.student["b"].vector, step.scales["s"]])
        torch.testing.assert_close(said.loss.detach(), expect["loss"].squeeze(), rtol=1e-12, atol=1e-12)
        for name, each in zip(("a", "b", "scale"), found, strict=True):
            torch.testing.assert_close(each, expect[name], rtol=1e-11, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
        torch.testing.assert_close(said.per_sample, u.log()[step.batch.ordinal], equal_nan=True)
        weighting.observe(state, step.batch, said.per_sample)


def test_nothing_overflows_at_the_smallest_temperature():
    term = GlobalContrastive("a", "b", "u", Constant(0.5), temperature=Constant(0.005))
    step = made(VISITS[0], 0, None, torch.float32, 1.0)
    step.batch.state["u"] = torch.full((B, 2), 300.0)  # exp(300) is no float32
    said = term(step)
    [gradient] = torch.autograd.grad(said.loss, step.student["a"].vector)
    assert said.loss.isfinite() and gradient.isfinite().all() and said.per_sample.isfinite().all()


@pytest.mark.parametrize("keywords", [{"scale": "s"}, {"temperature": Constant(0.1), "rho": 1.0}])
def test_rho_goes_with_a_learned_scale(keywords):
    with pytest.raises(RecipeError, match="rho"):
        GlobalContrastive("a", "b", "u", Constant(0.5), **keywords)
