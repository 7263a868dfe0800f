"""The contrast on real gloo processes against the whole batch's float64 oracle: every form, layout and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from distpre.contrast import Block, contrast, tiles
from distpre.contrast.layout import plans
from tests.contrast.forms import FORMS, Case, assert_exact, expected, found
from tests.ranks import ranks

SIZES = {2: [9, 3], 3: [7, 0, 5], 4: [3, 3, 3, 3], 6: [3, 0, 1, 4, 2, 2]}
DTYPES = {"fp32": torch.float32, "fp64": torch.float64}


def on_ranks(
    sizes: list[int], dtype: torch.dtype, names: list[str], layouts: list[str], seed: int, tile: int, keep: int
):
    """{(form, layout): this rank's found()} of the same case."""
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    rank = dist.get_rank()
    mine = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    case = Case.make(seed, sum(sizes), 9.0, dtype)
    tiles.TILE = {"cpu": (tile, tile + 1)}
    return {(f, way): found(f, case, mine, layout=way, keep_bytes=keep) for f in names for way in layouts}


def assert_all(parts: list[dict], sizes: list[int], dtype: torch.dtype, seed: int) -> None:
    case = Case.make(seed, sum(sizes), 9.0, dtype)
    for name, layout in parts[0]:
        whole = expected(name, case)
        assert_exact(f"{name} as {layout} of {sizes}", [p[name, layout] for p in parts], whole, case)


@pytest.mark.cluster
@pytest.mark.parametrize("world, dtype", [(n, dtype) for n in SIZES for dtype in DTYPES if (n, dtype) != (6, "fp32")])
def test_every_form_and_layout_equals_one_float64_process(world, dtype):
    layouts = [plan.name for plan in plans(world)]
    parts = ranks(world).run(on_ranks, SIZES[world], DTYPES[dtype], list(FORMS), layouts, 7, 3, 0)
    assert_all(parts, SIZES[world], DTYPES[dtype], 7)


@pytest.mark.cluster
@settings(max_examples=12)
@given(st.data())
def test_any_sizes_tile_layout_and_budget_on_any_ranks(data):
    world = data.draw(st.sampled_from([2, 3, 4, 6]))
    sizes = data.draw(st.lists(st.integers(0, 7), min_size=world, max_size=world).filter(any))
    names = data.draw(st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=4, unique=True))
    layout = data.draw(st.sampled_from([plan.name for plan in plans(world)]))
    seed, tile, keep = (
        data.draw(st.integers(0, 999)),
        data.draw(st.integers(1, 9)),
        data.draw(st.sampled_from([0, 2**20])),
    )
    parts = ranks(world).run(on_ranks, sizes, torch.float64, names, [layout], seed, tile, keep)
    assert_all(parts, sizes, torch.float64, seed)


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(FORMS)),
    st.integers(0, 10**6),
    st.integers(1, 17),
    st.sampled_from([0.5, 14.3, 100.0]),
    st.integers(1, 20),
    st.sampled_from([0, 2**20]),
)
def test_any_size_scale_tile_and_budget_on_one_process(name, seed, size, scale, tile, keep):
    case, before = Case.make(seed, size, scale, torch.float64), tiles.TILE
    tiles.TILE = {"cpu": (tile, 21 - tile)}
    try:
        assert_exact(name, [found(name, case, slice(None), keep_bytes=keep)], expected(name, case), case)
    finally:
        tiles.TILE = before


def test_scale_100_with_opposite_vectors_stays_finite():
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    scale = torch.tensor([100.0], requires_grad=True)
    out = contrast(Block(x), Block(-x.detach()), scale)
    loss = out.rows.loss() + out.columns.loss()
    gradients = torch.autograd.grad(loss.sum(), [x, scale])
    torch.testing.assert_close(out.rows.loss(), torch.tensor([200.0, 200.0]))
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("spread", [1.0, 100.0, 400.0])
def test_logits_too_far_apart_for_one_exponential_take_two(spread):
    """Rows whose logits differ by more than fp32's exponent range within one tile."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 4, generator=g), torch.randn(12, 4, generator=g)
    x[:6] *= spread
    both = [t.requires_grad_() for t in (x, y)]
    out = contrast(Block(x), Block(y), torch.ones(1))
    ours = torch.autograd.grad((out.rows.loss() + out.columns.loss()).sum(), both)
    logits, at = x.double() @ y.double().T, torch.arange(12)
    theirs = torch.autograd.grad(
        F.cross_entropy(logits, at, reduction="sum") + F.cross_entropy(logits.T, at, reduction="sum"), both
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_bf16_inputs_are_accumulated_in_fp32_and_autocast_changes_nothing():
    case = Case.make(3, 16, 20.0, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = contrast(Block(case.x), Block(case.y), case.scale)
    logits = case.scale.double() * case.x.double() @ case.y.double().T
    assert out.rows.loss().dtype == torch.float32
    expect = F.cross_entropy(logits, torch.arange(16), reduction="none")
    torch.testing.assert_close(out.rows.loss().double(), expect, rtol=1e-5, atol=1e-5)


def test_one_way_has_no_columns_and_the_rows_of_both_ways():
    case = Case.make(5, 9, 12.0, torch.float64)
    x, y, s = (t.requires_grad_() for t in (case.x, case.y, case.scale))
    both, one = contrast(Block(x), Block(y), s), contrast(Block(x), Block(y), s, both_ways=False)
    assert one.columns is None
    torch.testing.assert_close(both.rows.loss(), one.rows.loss())
    g = torch.autograd.grad(one.rows.loss().sum(), [x, y, s])
    h = torch.autograd.grad(F.cross_entropy(s * x @ y.T, torch.arange(9), reduction="sum"), [x, y, s])
    for a, b in zip(g, h, strict=True):
        torch.testing.assert_close(a, b)


def test_figures_of_the_sweep_are_those_of_the_matrix():
    case = Case.make(5, 15, 12.0, torch.float64)
    out = contrast(Block(case.x), Block(case.y), case.scale)
    logits, own = case.scale * case.x @ case.y.T, torch.eye(15, dtype=torch.bool)
    assert out.rows.hit.tolist() == (logits.argmax(1) == torch.arange(15)).double().tolist()
    assert out.columns.hit.tolist() == (logits.argmax(0) == torch.arange(15)).double().tolist()
    torch.testing.assert_close(out.rows.best, logits.diagonal())
    torch.testing.assert_close(out.rows.hardest, logits.masked_fill(own, -torch.inf).amax(1))
    torch.testing.assert_close(out.columns.hardest, logits.masked_fill(own, -torch.inf).amax(0))


def test_frozen_columns_get_no_gradient_and_change_no_other():
    case = Case.make(5, 9, 12.0, torch.float64)
    x = case.x.requires_grad_()
    free = contrast(Block(x), Block(case.y.clone().requires_grad_()), case.scale)
    frozen = contrast(Block(x), Block(case.y), case.scale)
    a, b = (torch.autograd.grad((o.rows.loss() + o.columns.loss()).sum(), x)[0] for o in (free, frozen))
    torch.testing.assert_close(a, b)


def test_a_layout_that_the_ranks_cannot_have_is_refused():
    case = Case.make(5, 4, 12.0, torch.float64)
    with pytest.raises(ValueError, match="layout '3x2': 1 ranks can be 1x1, ring"):
        contrast(Block(case.x), Block(case.y), case.scale, layout="3x2")
