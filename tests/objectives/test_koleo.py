"""KoLeo against its formula in float64, at any number of ranks, and what collapses or is absent."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from distpre.objectives import koleo
from distpre.objectives.koleo import KoLeo
from distpre.types import Batch, Embedding, Step
from tests.ranks import ranks

N = 11


def step(part: slice = slice(None), twins: bool = False) -> Step:
    """Two views of 11 samples, one of weight 0, one without view b."""
    g = torch.Generator().manual_seed(0)
    vectors = {v: F.normalize(torch.randn(N, 4, generator=g, dtype=torch.float64), dim=1) for v in "ab"}
    if twins:
        vectors["a"][3] = vectors["a"][8]
    weight = torch.ones(N, dtype=torch.float64)
    weight[2] = 0
    present = {"b": torch.arange(N) != 6}
    batch = Batch({}, {}, torch.arange(N)[part], weight[part], {v: p[part] for v, p in present.items()})
    student = {v: Embedding(x[part].clone().requires_grad_()) for v, x in vectors.items()}
    return Step(batch, student, {}, {}, 0, 10)


def formula(vectors: dict, out: dict) -> torch.Tensor:
    """-1/N Σ log min_j |h_i - h_j|, pair by pair, mean over views."""
    total = 0
    for view, x in vectors.items():
        there = [i for i in range(N) if i not in out[view]]
        least = [min((x[i] - x[j]).norm() for j in there if j != i) for i in there]
        total = total - sum((d + 1e-8).log() for d in least) / len(there)
    return total / len(vectors)


def gradients(term: KoLeo, at: Step) -> list[torch.Tensor]:
    loss = term(at).loss
    return [loss.detach(), *torch.autograd.grad(loss, [e.vector for e in at.student.values()])]


@pytest.mark.parametrize("tile", [3, 4096])
def test_loss_and_gradient_are_the_formulas(tile, monkeypatch):
    monkeypatch.setattr(koleo, "TILE", tile)
    at = step()
    expected = formula({v: e.vector for v, e in at.student.items()}, {"a": {2}, "b": {2, 6}})
    wanted = torch.autograd.grad(expected, [e.vector for e in at.student.values()])
    loss, *found = gradients(KoLeo(["a", "b"]), at)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def on_rank(bounds: list[int]) -> list[torch.Tensor]:
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    return gradients(KoLeo(["a", "b"]), step(slice(bounds[dist.get_rank()], bounds[dist.get_rank() + 1])))


@pytest.mark.cluster
def test_three_uneven_ranks_are_one_process():
    whole = gradients(KoLeo(["a", "b"]), step())
    every = ranks(3).run(on_rank, [0, 5, 6, N])
    torch.testing.assert_close(sum(r[0] for r in every) / 3, whole[0], rtol=1e-12, atol=0)
    for i in (1, 2):
        torch.testing.assert_close(torch.cat([r[i] for r in every]) / 3, whole[i], rtol=1e-10, atol=1e-12)


def test_equal_vectors_and_lonely_ones_give_finite_numbers():
    loss, *found = _of_one_view(step(twins=True))
    assert loss.isfinite() and all(g.isfinite().all() for g in found)
    alone, *found = _of_one_view(step(slice(4, 5)))
    assert alone == 0 and all((g == 0).all() for g in found)


def _of_one_view(at: Step) -> list[torch.Tensor]:
    loss = KoLeo(["a"])(at).loss
    return [loss.detach(), torch.autograd.grad(loss, at.student["a"].vector)[0]]


def test_descent_spreads_a_heap_of_vectors():
    x = (torch.tensor([1.0, 0, 0]) + 0.05 * torch.randn(16, 3)).double().requires_grad_()
    batch = Batch({}, {}, torch.arange(16), torch.ones(16, dtype=torch.float64))
    optimiser = torch.optim.SGD([x], lr=0.05)
    seen = []
    for index in range(200):
        unit = F.normalize(x, dim=1)
        said = KoLeo(["a"])(Step(batch, {"a": Embedding(unit)}, {}, {}, index, 200))
        seen.append(float(said.log["nearest"]))
        optimiser.zero_grad()
        said.loss.backward()
        optimiser.step()
    assert seen[-1] > 5 * seen[0]
