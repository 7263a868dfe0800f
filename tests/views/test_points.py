"""Point ops: what each changes, what it must not."""

import numpy as np
import pytest

from distpre.views.points import (
    DropColour,
    DropPoints,
    PointChannels,
    RotateUpright,
    ScaleShift,
    SomePoints,
    Tilt,
    UnitSphere,
    _rotated,
)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


X = _rng(1).normal(size=(500, 9)).astype(np.float32)
X[:, 3:6] /= np.linalg.norm(X[:, 3:6], axis=1, keepdims=True)
OPS = [SomePoints(100), UnitSphere(), DropPoints(), ScaleShift(), RotateUpright(), Tilt(), DropColour(1.0)]


@pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)
def test_the_same_seed_gives_the_same_points_and_the_input_is_left_alone(op):
    before = X.copy()
    out = op(X, _rng(2))
    assert (out == op(X, _rng(2))).all() and (X == before).all() and out.dtype == np.float32


def test_some_points_are_some_of_them_none_twice():
    out = SomePoints(100)(X, _rng())
    assert len(set(map(tuple, out))) == 100 and set(map(tuple, out)) <= set(map(tuple, X))
    with pytest.raises(ValueError, match="500 points where the recipe wants 501"):
        SomePoints(501)(X, _rng())


def test_the_unit_sphere_is_centred_and_touched():
    out = UnitSphere()(X, _rng())
    np.testing.assert_allclose(out[:, :3].mean(0), 0, atol=1e-6)
    assert np.linalg.norm(out[:, :3], axis=1).max() == pytest.approx(1, rel=1e-6) and (out[:, 3:] == X[:, 3:]).all()


def test_dropped_points_become_the_first_in_shares_up_to_the_most():
    shares = [(DropPoints(0.8)(X, _rng(s)) == X[:1]).all(1).mean() for s in range(200)]
    assert max(shares) < 0.87 and max(shares) > 0.7 and min(shares) < 0.1
    assert np.mean(shares) == pytest.approx(0.4, abs=0.06)


def test_scale_and_shift_are_one_for_all_points():
    out = ScaleShift([0.8, 1.25], 0.1)(X, _rng(5))
    scale = np.ptp(out[:, 0]) / np.ptp(X[:, 0])
    moved = out[:, :3] - scale * X[:, :3]
    assert 0.8 <= scale <= 1.25 and np.abs(moved).max() <= 0.1 + 1e-5 and np.ptp(moved, axis=0).max() < 1e-5


@pytest.mark.parametrize("op", [RotateUpright(), Tilt()], ids=["upright", "tilt"])
def test_rotations_keep_distances_handedness_and_turn_normals_along(op):
    out = op(X, _rng(3))
    turn = np.linalg.lstsq(X[:, :3], out[:, :3], rcond=None)[0]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(turn) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(out[:, 3:6], X[:, 3:6] @ turn, atol=1e-5)
    assert (out[:, 6:] == X[:, 6:]).all()


def test_upright_keeps_heights_and_tilt_stays_small():
    np.testing.assert_allclose(RotateUpright()(X, _rng(4))[:, 2], X[:, 2], atol=1e-6)
    quarter = _rotated(np.eye(9, dtype=np.float32)[:1], [0, 0, np.pi / 2])
    np.testing.assert_allclose(quarter[0, :3], [0, 1, 0], atol=1e-6)
    angles = []
    for seed in range(100):
        turn = np.linalg.lstsq(X[:, :3], Tilt()(X, _rng(seed))[:, :3], rcond=None)[0]
        angles.append(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
    assert max(angles) <= 0.18 * np.sqrt(3) + 0.01 and np.mean(angles) == pytest.approx(0.06 * 1.6, abs=0.02)


def test_colours_are_dropped_as_often_as_told_and_channels_are_those_named():
    grey = [(DropColour()(X, _rng(s))[:, 6:] == np.float32(0.4)).all() for s in range(400)]
    assert abs(sum(grey) - 200) < 40
    assert (PointChannels()(X, _rng()) == X[:, [0, 1, 2, 6, 7, 8]]).all()
    assert (PointChannels(["place", "normal"])(X, _rng()) == X[:, :6]).all()
