"""Signal ops: what each does to values, its probability, and what it must leave alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distpre.views.pipeline import View
from distpre.views.signal import (
    ChannelPermute,
    CutOut,
    GaussianNoise,
    MagnitudeWarp,
    MaskSteps,
    MiddleSegment,
    OneSegment,
    PermuteParts,
    RandomSegment,
    TimeWarp,
    _curve,
)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


X = np.stack([np.sin(np.arange(400) / f) for f in (7.0, 11.0, 23.0)]).astype(np.float32)
OPS = [CutOut, MagnitudeWarp, GaussianNoise, ChannelPermute, TimeWarp]


@pytest.mark.parametrize("op", OPS)
def test_an_op_is_applied_as_often_as_it_was_told(op):
    wide = np.concatenate([X, X[::-1] * 2, X + 3])  # of nine channels, a permutation changes nearly always
    changed = sum((op(p=0.3)(wide, _rng(seed)) != wide).any() for seed in range(600))
    assert abs(changed - 180) < 4 * np.sqrt(600 * 0.3 * 0.7)
    assert (op(p=0.0)(wide, _rng()) == wide).all()


@pytest.mark.parametrize("op", [*(op(p=1.0) for op in OPS), RandomSegment(100)], ids=lambda op: type(op).__name__)
def test_the_same_seed_gives_the_same_signal_and_the_input_is_left_alone(op):
    before = X.copy()
    first, again = op(X, _rng(3)), op(X, _rng(3))
    assert first.dtype == np.float32 and (first == again).all() and (X == before).all()
    assert any((op(X, _rng(seed)) != first).any() for seed in range(4, 8))


@given(low=st.floats(0.05, 0.5), more=st.floats(0, 0.4), seed=st.integers(0, 1000))
def test_cut_out_empties_one_stretch_of_all_channels(low, more, seed):
    out = CutOut(1.0, [low, low + more])(X + 2, _rng(seed))
    gone = (out == 0).all(0)
    assert ((out == X + 2) | gone).all()
    assert round(400 * low) <= gone.sum() <= round(400 * (low + more)) + 1
    assert np.diff(np.flatnonzero(gone)).max(initial=1) == 1


def test_masked_steps_have_no_numbers_in_any_channel_and_the_rest_is_left():
    """Five stretches of a tenth, overlapping where they fall: 1 - 0.9^5 = 41 % away from the ends."""
    out = [MaskSteps()(X, _rng(seed)) for seed in range(200)]
    gone = np.isnan(out)
    assert (gone.all(1) == gone.any(1)).all() and ((out == X) | gone).all() and not np.isnan(X).any()
    assert (
        0.38 < gone[..., 100:300].mean() < 0.46 and 40 <= gone.all(1).sum(1).min() and gone.all(1).sum(1).max() <= 200
    )


def test_magnitude_warp_multiplies_by_a_smooth_curve_within_its_scale():
    curves = MagnitudeWarp(1.0, knots=5, scale=[0.5, 2.0])(np.ones((50, 1000)), _rng())
    assert curves.min() > 0.2 and curves.max() < 2.3 and curves.min() < 0.6 and curves.max() > 1.9
    assert np.abs(np.diff(curves, axis=1)).max() < 0.02  # of one step in a thousand
    assert np.abs(np.corrcoef(curves) - np.eye(50)).max() < 0.999  # every channel its own


def test_the_curve_passes_through_its_points_and_keeps_lines_straight_inside():
    points = np.array([[0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 0.5, 2.0, 1.5, 1.0]])
    curve = _curve(points, 401)
    np.testing.assert_allclose(curve[:, ::100], points, atol=1e-12)
    np.testing.assert_allclose(curve[0, 100:301], np.linspace(1, 3, 201), atol=1e-12)


def test_noise_is_a_share_of_each_channels_own_deviation():
    x = np.stack([np.sin(np.arange(20000) / 9), 50 * np.sin(np.arange(20000) / 9)])
    shares = (GaussianNoise(1.0, [0.03, 0.03])(x, _rng()) - x).std(1) / x.std(1)
    np.testing.assert_allclose(shares, 0.03, rtol=0.05)


def test_permuted_channels_are_the_same_channels():
    out = ChannelPermute(1.0)(X, _rng(1))
    assert sorted(map(tuple, out)) == sorted(map(tuple, X))
    orders = {tuple((out := ChannelPermute(1.0)(X, _rng(s)))[:, 5].tolist()) for s in range(100)}
    assert len(orders) == 6 and len(out) == 3


def test_permuted_parts_keep_the_channels_in_step():
    """The released code of MoRE draws each lead's order by itself, which takes their timing apart."""
    clock = np.tile(np.arange(14.0), (3, 1))
    out = [PermuteParts(1.0)(clock, _rng(seed)) for seed in range(100)]
    assert all((x == x[0]).all() and sorted(x[0]) == clock[0].tolist() and x[0, 12:].tolist() == [12, 13] for x in out)
    assert len({tuple(x[0]) for x in out}) > 20 and all((np.diff(x[0, :12].reshape(4, 3)) == 1).all() for x in out)
    assert abs(sum((PermuteParts(0.3)(X, _rng(s)) != X).any() for s in range(600)) - 180 * 23 / 24) < 45


@given(knots=st.integers(1, 12), shift=st.floats(0.01, 0.9), seed=st.integers(0, 1000))
def test_warped_time_never_runs_backwards_and_keeps_its_ends(knots, shift, seed):
    clock = np.tile(np.arange(400.0), (2, 1))
    out = TimeWarp(1.0, knots, shift)(clock, _rng(seed))
    assert (np.diff(out[0]) > 0).all() and (out[0] == out[1]).all()
    assert out[0, 0] == 0 and out[0, -1] == 399
    assert 0 < np.abs(out - clock).max() <= shift * 399 + 1e-9


def test_two_views_of_a_participant_are_two_different_segments_each_pair_alike():
    """Abbaspourazad et al. 2024: a positive pair is two segments drawn at random, augmented independently."""
    segments = np.arange(4.0)[:, None, None] * np.ones((1, 1, 6))
    noisy = GaussianNoise(1.0, [1.0, 1.0])  # of constant channels: nothing, but it draws
    views = [View(name, "x", [OneSegment(i), noisy, MiddleSegment(2)], []) for i, name in enumerate("ab")]
    pairs = Counter(
        tuple(int(v.at(segments, seed=1, epoch=e, ordinal=o)[0, 0]) for v in views)
        for e in range(40)
        for o in range(60)
    )
    assert set(pairs) == {(i, j) for i in range(4) for j in range(4) if i != j}
    assert all(abs(count - 200) < 4 * np.sqrt(200) for count in pairs.values())
    same = [View(name, "x", [OneSegment(0), RandomSegment(2)], []) for name in "ab"]
    inside = segments + np.arange(6.0) / 10
    seen = [[v.at(inside, seed=1, epoch=0, ordinal=o) for v in same] for o in range(50)]
    assert all((a // 1 == b // 1).all() for a, b in seen) and any((a != b).any() for a, b in seen)
    with pytest.raises(ValueError, match="has no segment 4"):
        OneSegment(4)(segments, _rng())


def test_segments_lie_inside_at_every_place_and_in_the_middle():
    clock = np.arange(12.0)[None].repeat(2, 0)
    starts = {int(RandomSegment(9)(clock, _rng(seed))[0, 0]) for seed in range(60)}
    assert starts == {0, 1, 2, 3}
    assert MiddleSegment(4)(clock, None)[1].tolist() == [4, 5, 6, 7]
    with pytest.raises(ValueError, match="12 time steps where the recipe wants 13"):
        RandomSegment(13)(clock, _rng())
