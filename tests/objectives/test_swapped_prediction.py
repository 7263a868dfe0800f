"""Swapped prediction against a dense loop in float64, at any number of ranks; codes that share prototypes out."""

from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from distpre.errors import RecipeError
from distpre.objectives.swapped_prediction import SwappedPrediction, sinkhorn
from distpre.schedule import Constant
from tests.objectives.steps import assert_same_at_any_world, gradients, step
from tests.ranks import ranks

TAU = Constant(0.1)


def dense_codes(scores: torch.Tensor, iterations: int = 3) -> torch.Tensor:
    """SwAV's distributed_sinkhorn on one process, (K, B) as there."""
    q = (scores / 0.05).exp().T
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(1, keepdim=True) / len(q)
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


@pytest.mark.cluster
@pytest.mark.parametrize("world", [1, 2, 3])
def test_any_number_of_ranks_gives_the_same(world):
    assert_same_at_any_world(partial(SwappedPrediction, ["a", "b"], TAU), ["a", "b"], world)


def test_loss_and_gradient_are_those_of_a_dense_loop():
    s = step(11, ["a", "b"])
    s.batch.weight[3] = 0
    there = s.batch.present["a"] & s.batch.present["b"] & (s.batch.weight > 0)
    p, q = (s.student[v].taps["scores"][there] for v in "ab")
    codes = [dense_codes(x.detach()) for x in (p, q)]
    each = -(codes[0] * F.log_softmax(q / 0.1, 1)).sum(1) / 2 - (codes[1] * F.log_softmax(p / 0.1, 1)).sum(1) / 2
    wanted = torch.autograd.grad(each.mean(), [s.student[v].vector for v in "ab"], retain_graph=True)
    found = gradients(SwappedPrediction(["a", "b"], TAU), s)
    torch.testing.assert_close(found["loss"], each.mean().detach(), rtol=1e-12, atol=0)
    for v, gradient in zip("ab", wanted, strict=True):
        torch.testing.assert_close(found[v], gradient, rtol=1e-10, atol=1e-14)
        assert (found[v][~there] == 0).all()


def codes_on_rank(bounds: list[int], iterations: int) -> torch.Tensor:
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    mine = slice(bounds[dist.get_rank()], bounds[dist.get_rank() + 1])
    return sinkhorn(many_scores()[mine], torch.ones(24, dtype=torch.bool)[mine], 0.05, iterations)


def many_scores() -> torch.Tensor:
    """All samples like prototype 0 best, by a little."""
    g = torch.Generator().manual_seed(0)
    x = F.normalize(torch.randn(24, 5, generator=g, dtype=torch.float64) + torch.tensor([1.0, 0, 0, 0, 0]), dim=1)
    return x @ torch.eye(5, dtype=torch.float64)[:4].T


@pytest.mark.cluster
def test_rows_sum_to_one_and_columns_of_all_ranks_to_an_equal_share():
    parts = ranks(3).run(codes_on_rank, [0, 11, 12, 24], 100)
    q = torch.cat(parts)
    torch.testing.assert_close(q.sum(1), torch.ones(24, dtype=q.dtype))
    torch.testing.assert_close(q.sum(0), torch.full((4,), 24 / 4, dtype=q.dtype), rtol=1e-6, atol=0)
    assert (many_scores() / 0.05).softmax(1).sum(0)[0] > 12  # without sharing out the first takes most
    torch.testing.assert_close(torch.cat(ranks(3).run(codes_on_rank, [0, 11, 12, 24], 3)), dense_codes(many_scores()))


def test_prototypes_that_are_held_get_no_gradient_and_vectors_do():
    from distpre.towers.heads.prototypes import Prototypes

    torch.manual_seed(0)
    head, x = Prototypes(3), {v: torch.randn(8, 4, requires_grad=True) for v in "ab"}
    head.build(4)
    moved = []
    for index in (1, 2):
        s = step(8, ["a", "b"], index=index)
        s.batch.present.clear()
        for v in "ab":
            s.student[v].taps.update(head(x[v], {})[1])
        loss = SwappedPrediction(["a", "b"], TAU, hold=2)(s).loss
        centres, vectors = torch.autograd.grad(loss, [head.centres, x["a"]], allow_unused=True)
        moved.append(centres is not None and bool(centres.abs().sum() > 0))
        assert vectors.abs().sum() > 0
    assert moved == [False, True]


def test_figures_tell_a_collapse():
    s = step(12, ["a", "b"])
    healthy = float(SwappedPrediction(["a", "b"], TAU)(s).log["predicted"])
    for v in "ab":
        s.student[v].taps["scores"] = torch.eye(6, dtype=torch.float64)[:1].expand(12, -1)
    assert float(SwappedPrediction(["a", "b"], TAU)(s).log["predicted"]) < 1.01 < healthy


def test_what_cannot_be_is_refused():
    with pytest.raises(RecipeError, match=r"of \['a'\] will not do"):
        SwappedPrediction(["a"], TAU)
    with pytest.raises(RecipeError, match="epsilon 0.001 will not do. It may be at least 0.005"):
        SwappedPrediction(["a", "b"], TAU, epsilon=0.001)
    s = step(4, ["a", "b"])
    del s.student["b"].taps["scores"]
    with pytest.raises(RecipeError, match="the tower of 'b' has no prototypes"):
        SwappedPrediction(["a", "b"], TAU)(s)
