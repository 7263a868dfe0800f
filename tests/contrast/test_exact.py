"""The contrast on real gloo processes against the float64 oracle of the whole batch, loss and every gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from distpre.contrast import Block, contrast, sweep
from distpre.contrast.targets import OwnPair, SameId
from tests import dense
from tests.ranks import ranks

RULES = {"own_pair": (OwnPair(), dense.own_pair), "same_id": (SameId("class"), dense.same_id)}
WORLDS = {1: [[12], [1]], 2: [[6, 6], [9, 3]], 3: [[4, 4, 4], [7, 0, 5]], 4: [[3, 3, 3, 3], [5, 1, 4, 2]]}


def case(seed: int, size: int, scale: float, dtype: torch.dtype):
    """(x, y, scale, ids, present, weight of each sample's loss), the whole batch."""
    g = torch.Generator().manual_seed(seed)
    x, y = (F.normalize(torch.randn(size, 5, generator=g, dtype=torch.float64), dim=1) for _ in range(2))
    ids = torch.randint(max(1, size // 3), (size,), generator=g)
    present = torch.rand(size, generator=g) > 0.2
    present[0] = True
    weight = torch.rand(size, 2, generator=g, dtype=torch.float64)
    tensors = [t.to(dtype).requires_grad_() for t in (x, y, torch.tensor([scale], dtype=torch.float64))]
    return *tensors, ids, present, weight


def expected(rule: str, seed: int, size: int, scale: float, dtype: torch.dtype):
    """Loss and gradients of one float64 process, from the very values that `dtype` holds."""
    x, y, s, ids, present, weight = case(seed, size, scale, dtype)
    x, y, s = (t.detach().double().requires_grad_() for t in (x, y, s))
    rows, columns = dense.losses(x, y, s, RULES[rule][1](ids), present)
    loss = (weight[:, 0] * rows + weight[:, 1] * columns).sum()
    return [loss.detach(), *torch.autograd.grad(loss, [x, y, s])]


def found(rule: str, seed: int, sizes: list[int], scale: float, dtype: torch.dtype, tile: int):
    """This rank's loss, its rows' gradients, and its share of the scale's."""
    import torch.distributed as dist

    if len(sizes) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    rank = dist.get_rank() if len(sizes) > 1 else 0
    mine = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    x, y, s, ids, present, weight = case(seed, sum(sizes), scale, dtype)
    a, b = (t.detach()[mine].clone().requires_grad_() for t in (x, y))
    known = {"class": ids[mine]}
    sweep.TILE = tile
    out = contrast(Block(a, known, present[mine]), Block(b, known, present[mine]), s, targets=RULES[rule][0])
    weight = weight[mine].to(dtype)
    loss = (weight[:, 0] * out.row_loss + weight[:, 1] * out.column_loss).sum()
    return [loss.detach(), *torch.autograd.grad(loss, [a, b, s])]


def assert_exact(parts: list, whole: list, dtype: torch.dtype) -> None:
    got = [sum(p[0] for p in parts), *(torch.cat([p[i] for p in parts]) for i in (1, 2)), sum(p[3] for p in parts)]
    limit = 1e-6 if dtype == torch.float32 else 1e-12
    for name, a, b in zip(("loss", "rows", "columns", "scale"), got, whole, strict=True):
        error = (a.double() - b).norm() / b.norm().clamp(min=1e-2)
        assert error <= limit, f"gradient or value of {name}: relative error {error:.2e}"


@pytest.mark.cluster
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("world", [2, 3, 4, 6])
def test_loss_and_gradients_equal_one_float64_process(world, rule, dtype):
    for sizes in WORLDS.get(world, [[2] * world, [3, 0, 1, 4, 2, 2]]):
        parts = ranks(world).run(found, rule, 7, sizes, 9.0, dtype, 5)
        assert_exact(parts, expected(rule, 7, sum(sizes), 9.0, dtype), dtype)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(sorted(RULES)),
    st.integers(0, 10**6),
    st.integers(1, 17),
    st.sampled_from([0.5, 14.3, 100.0]),
    st.integers(1, 20),
)
def test_any_size_scale_and_tile_on_one_process(rule, seed, size, scale, tile):
    parts = [found(rule, seed, [size], scale, torch.float64, tile)]
    assert_exact(parts, expected(rule, seed, size, scale, torch.float64), torch.float64)


def test_scale_100_with_opposite_vectors_stays_finite():
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    scale = torch.tensor([100.0], requires_grad=True)
    out = contrast(Block(x), Block(-x.detach()), scale)
    gradients = torch.autograd.grad(out.row_loss.sum() + out.column_loss.sum(), [x, scale])
    torch.testing.assert_close(out.row_loss, torch.tensor([200.0, 200.0]))
    assert all(g.isfinite().all() for g in gradients)


def test_bf16_inputs_are_accumulated_in_fp32():
    x, y, s, ids, present, _ = case(3, 16, 20.0, torch.bfloat16)
    out = contrast(Block(x), Block(y), s)
    rows, _ = dense.losses(x.double(), y.double(), s.double(), dense.own_pair(ids), torch.ones(16, dtype=torch.bool))
    assert out.row_loss.dtype == torch.float32
    torch.testing.assert_close(out.row_loss.double(), rows, rtol=1e-5, atol=1e-5)


def test_one_way_gives_the_rows_loss_alone():
    x, y, s, ids, present, _ = case(5, 9, 12.0, torch.float64)
    both, one = contrast(Block(x), Block(y), s), contrast(Block(x), Block(y), s, both_ways=False)
    torch.testing.assert_close(both.row_loss, one.row_loss)
    assert not one.column_loss.any()
    g = torch.autograd.grad(one.row_loss.sum(), [x, y, s])
    logits = s * x @ y.T
    h = torch.autograd.grad(F.cross_entropy(logits, torch.arange(9), reduction="sum"), [x, y, s])
    for a, b in zip(g, h, strict=True):
        torch.testing.assert_close(a, b)


def test_hits_are_the_rows_whose_positive_scores_highest():
    x, y, s, ids, present, _ = case(5, 15, 12.0, torch.float64)
    out = contrast(Block(x), Block(y), s)
    cosines = x @ y.T
    assert out.row_hit.tolist() == (cosines.argmax(1) == torch.arange(15)).double().tolist()
    assert out.column_hit.tolist() == (cosines.argmax(0) == torch.arange(15)).double().tolist()


def open_clip_and_ours():
    import torch.distributed as dist
    from open_clip.loss import ClipLoss

    dist.init_process_group("gloo")
    rank, n = dist.get_rank(), dist.get_world_size()
    x, y, s, *_ = case(11, 8 * n, 14.3, torch.float64)
    mine = slice(8 * rank, 8 * rank + 8)
    a, b = (t.detach()[mine].clone().requires_grad_() for t in (x, y))
    peer = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=n)(a, b, s)
    theirs = [peer.detach(), *torch.autograd.grad(peer, [a, b, s])]
    out = contrast(Block(a), Block(b), s)
    loss = (out.row_loss.mean() + out.column_loss.mean()) / 2
    return theirs, [loss.detach(), *torch.autograd.grad(loss, [a, b, s])]


@pytest.mark.cluster
def test_loss_and_gradients_equal_open_clips_on_the_same_tensors():
    for theirs, ours in ranks(3).run(open_clip_and_ours):
        torch.testing.assert_close(ours[1:3], theirs[1:3], rtol=1e-10, atol=1e-12)
    both = ranks(3).run(open_clip_and_ours)
    for i in (0, 3):  # the loss and the scale's gradient: ranks' shares differ, their means must not
        torch.testing.assert_close(sum(o[i] for _, o in both), sum(t[i] for t, _ in both), rtol=1e-10, atol=1e-12)
