"""Ops on bodies: rotations that are rotations, drawn evenly, one a joint; joints that are kept as they are."""

import numpy as np

from distpre.views.skeleton import KeepJoints, OnlyJoints, RepeatTo, RotateJoints, WornAt, _rotations

X = np.random.default_rng(0).normal(size=(22, 6, 40)).astype(np.float32)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_rotations_keep_lengths_and_hands_and_turn_to_every_side_alike():
    turns = _rotations(20000, _rng())
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1)
    assert np.abs(turns.mean(0)).max() < 0.02
    angle = np.arccos((turns.trace(axis1=1, axis2=2) - 1) / 2)
    assert abs(angle.mean() - (np.pi / 2 + 2 / np.pi)) < 0.02  # of the density (1 - cos) / pi


def test_a_joint_is_turned_by_one_rotation_at_all_times_and_in_both_triples():
    out = RotateJoints()(X, _rng(1))
    assert out.dtype == np.float32 and out.shape == X.shape
    for before, after in zip(X, out, strict=True):
        turn = after[:3] @ np.linalg.pinv(before[:3])
        np.testing.assert_allclose(turn @ before[:3], after[:3], atol=1e-4)
        np.testing.assert_allclose(turn @ before[3:], after[3:], atol=1e-4)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-4)
    assert not np.allclose(out[0, :3] @ np.linalg.pinv(X[0, :3]), out[1, :3] @ np.linalg.pinv(X[1, :3]), atol=0.1)


def test_one_to_five_joints_are_kept_as_they_are():
    outs = [KeepJoints(5)(X, _rng(seed)) for seed in range(500)]
    kept = np.array([(x != 0).any((1, 2)) for x in outs])
    assert all((x[k] == X[k]).all() for x, k in zip(outs, kept, strict=True))
    counts = np.bincount(kept.sum(1), minlength=6)[1:]
    assert counts.sum() == 500 and len(counts) == 5 and (abs(counts - 100) < 45).all()
    assert (abs(kept.mean(0) - 3 / 22) < 0.08).all()
    assert ((OnlyJoints([3, 8])(X, _rng()) != 0).any((1, 2)).nonzero()[0] == [3, 8]).all()


def test_a_short_motion_begins_again_and_a_long_one_ends_early():
    out = RepeatTo(100)(X, _rng())
    assert (out[..., :40] == X).all() and (out[..., 40:80] == X).all() and (out[..., 80:] == X[..., :20]).all()
    assert (RepeatTo(30)(X, _rng()) == X[..., :30]).all()


def test_a_sensor_is_worn_at_its_joint_and_nowhere_else():
    out = WornAt(joint=21)(X[0], _rng())
    assert out.shape == X.shape and out.dtype == np.float32
    assert (out[21] == X[0]).all() and not out[:21].any()
