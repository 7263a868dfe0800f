"""Similarities other than the dot, by formula written out pair by pair; scopes smaller than the global batch."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from distpre.contrast import Block, contrast, tiles
from distpre.contrast.similarity import GatedSubspace, MaxMean
from distpre.contrast.targets import OwnPair, SameId
from tests.ranks import ranks


def gated(x, y):
    """One pair at a time: the cosine of g*x and g*y, g the row's gate."""
    return torch.stack([torch.stack([F.cosine_similarity(g * a, g * b[0], dim=0) for b in y]) for a, g in x])


def max_mean(x, y):
    def pair(a, b):
        a, b = a[a[:, -1] > 0, :-1], b[b[:, -1] > 0, :-1]
        return (a @ b.T).amax(1).mean()

    return torch.stack([torch.stack([pair(a, b) for b in y]) for a in x])


def vectors(kind: str, n: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2 if kind == "gated" else 3, 4, generator=g, dtype=torch.float64)
    if kind == "gated":
        return torch.stack([x[:, 0], x[:, 1].sigmoid()], 1)
    real = torch.rand(n, 3, 1, generator=g) > 0.3
    real[:, 0] = True
    return torch.cat([x, real.double()], 2)


KINDS = {"gated": (GatedSubspace(), gated), "max_mean": (MaxMean(), max_mean)}


def on_ranks(kind: str, sizes: list[int], layout: str):
    if len(sizes) > 1:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if len(sizes) > 1 else 0
    mine = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    x, y = (vectors(kind, sum(sizes), seed)[mine].requires_grad_() for seed in (1, 2))
    s = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    tiles.TILE = {"cpu": (2, 3)}
    out = contrast(Block(x), Block(y), s, similarity=KINDS[kind][0], layout=layout)
    loss = out.rows.loss().sum() + 2 * out.columns.loss().sum()
    return [loss.detach(), *torch.autograd.grad(loss, [x, y, s])]


@pytest.mark.cluster
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["2x2", "ring"])
def test_other_similarities_equal_the_matrix_written_out(kind, layout):
    sizes = [2, 3, 1, 3]
    parts = ranks(4).run(on_ranks, kind, sizes, layout)
    x, y = (vectors(kind, sum(sizes), seed).requires_grad_() for seed in (1, 2))
    s = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    logits, at = s * KINDS[kind][1](x, y), torch.arange(sum(sizes))
    loss = F.cross_entropy(logits, at, reduction="sum") + 2 * F.cross_entropy(logits.T, at, reduction="sum")
    whole = [loss.detach(), *torch.autograd.grad(loss, [x, y, s])]
    got = [sum(p[0] for p in parts), *(torch.cat([p[i] for p in parts]) for i in (1, 2)), sum(p[3] for p in parts)]
    if kind == "max_mean":  # the mark of a real token is not a coordinate
        whole[1:3], got[1:3] = ([g[..., :-1] for g in gs[1:3]] for gs in (whole, got))
    for a, b in zip(got, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def own_rank_only():
    dist.init_process_group("gloo")
    g = torch.Generator().manual_seed(dist.get_rank())
    x, y = (torch.randn(5, 3, generator=g, dtype=torch.float64) for _ in range(2))
    out = contrast(Block(x), Block(y), torch.ones(1, dtype=torch.float64), within="rank")
    return out.rows.loss(), F.cross_entropy(x @ y.T, torch.arange(5), reduction="none")


@pytest.mark.cluster
def test_within_a_rank_other_ranks_do_not_exist():
    for ours, theirs in ranks(2).run(own_rank_only):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rule", ["own_pair", "same_id"])
def test_within_a_sample_each_sample_is_a_contrast_of_its_own(rule):
    """(n, r, d) equals n separate contrasts, gradients and absent cells included."""
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4, 6, 3, generator=g, dtype=torch.float64).requires_grad_() for _ in range(2))
    s = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    ids, present = torch.randint(3, (4, 6), generator=g), torch.rand(4, 6, generator=g) > 0.2
    targets = OwnPair() if rule == "own_pair" else SameId("class")

    def block(v, i=slice(None)):
        return Block(v[i], {"class": ids[i]}, present[i])

    def loss(out):
        return out.rows.loss().sum() + 3 * out.columns.loss().sum()

    whole = contrast(block(x), block(y), s, targets=targets, within="sample")
    apart = [contrast(block(x, i), block(y, i), s, targets=targets, within="rank") for i in range(4)]
    torch.testing.assert_close(whole.rows.loss(), torch.stack([o.rows.loss() for o in apart]))
    torch.testing.assert_close(whole.rows.hit, torch.stack([o.rows.hit for o in apart]))
    ours = torch.autograd.grad(loss(whole), [x, y, s])
    theirs = torch.autograd.grad(sum(loss(o) for o in apart), [x, y, s])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def at_each_place(alone: bool):
    dist.init_process_group("gloo")
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(6, 4, 3, generator=g, dtype=torch.float64) for _ in range(2))
    ids, present = torch.randint(3, (6,), generator=g), torch.rand(6, generator=g) > 0.2
    mine = slice(None) if alone else slice(0, 2) if dist.get_rank() == 0 else slice(2, 6)
    s, weight = torch.tensor([2.0], dtype=torch.float64, requires_grad=True), torch.rand(6, 4, generator=g)
    x, y = (v[mine].clone().requires_grad_() for v in (x, y))
    rows, columns = (Block(v, {"class": ids[mine]}, present[mine]) for v in (x, y))
    out = contrast(rows, columns, s, targets=SameId("class"), within="place")
    loss = (weight[mine] * (out.rows.loss() + 3 * out.columns.loss())).sum()
    places = [
        contrast(
            *(Block(v[:, k], b.facts, b.present) for v, b in ((x, rows), (y, columns))), s, targets=SameId("class")
        )
        for k in range(4)
    ]
    apart = sum((weight[mine, k] * (p.rows.loss() + 3 * p.columns.loss())).sum() for k, p in enumerate(places))
    return [[v.detach(), *torch.autograd.grad(v, [x, y, s])] for v in (loss, apart)]


@pytest.mark.cluster
@pytest.mark.parametrize("world", [1, 2])
def test_at_each_place_each_place_is_a_contrast_of_all_ranks(world):
    found = ranks(world).run(at_each_place, world == 1)
    for ours, theirs in found:
        torch.testing.assert_close(ours[1:3], theirs[1:3], rtol=1e-10, atol=1e-12)
    for i in (0, 3):  # the loss, and the scale's gradient, of which ranks hold other shares
        ours, theirs = (sum(rank[way][i] for rank in found) for way in (0, 1))
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
