"""Ops on volumes as slices: two views take two different transforms, each of which does what it says."""

import numpy as np
import pytest

from distpre.errors import RecipeError
from distpre.views import volume
from distpre.views.pipeline import View
from distpre.views.volume import TRANSFORMS, CropSlices, HideSlices, OneTransform, SlicesAlong

X = np.random.default_rng(0).random((6, 9, 11), np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_two_views_take_two_different_transforms_always_and_all_pairs_come(monkeypatch):
    for number, name in enumerate(TRANSFORMS):
        monkeypatch.setitem(volume.TRANSFORMS, name, lambda x, rng, n=number: x * 0 + n)
    one, two = (View(name, "ct", [OneTransform(i)], []) for i, name in enumerate(("one", "two")))
    pairs = set()
    for ordinal in range(600):
        at = {"seed": 0, "epoch": 0, "ordinal": ordinal}
        pairs.add((int(one.at(X, **at)[0, 0, 0]), int(two.at(X, **at)[0, 0, 0])))
    assert pairs == {(a, b) for a in range(7) for b in range(7) if a != b}


def test_those_that_are_asked_for_alone_and_a_number_among_them(monkeypatch):
    for name in TRANSFORMS:
        monkeypatch.setitem(volume.TRANSFORMS, name, lambda x, rng, n=name: np.full(1, len(n)))
    assert {int(OneTransform(1, ("blur", "gamma"))(X, rng(seed))[0]) for seed in range(20)} == {4, 5}
    with pytest.raises(RecipeError, match="number 2 will not do with 2 transforms. It may be 0 to 1"):
        OneTransform(2, ("blur", "gamma"))


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("slices", [1, 6])
def test_every_transform_keeps_the_shape_changes_something_and_repeats(name, slices):
    x = X[:slices]
    said = [TRANSFORMS[name](x.copy(), rng(seed)) for seed in range(8)]
    assert all(y.shape == x.shape and np.isfinite(y).all() for y in said)
    assert any(np.abs(y - x).max() > 1e-3 for y in said)
    np.testing.assert_array_equal(said[3], TRANSFORMS[name](x.copy(), rng(3)))


def test_an_affine_map_leaves_the_middle_and_turns_what_is_off_it():
    x = np.zeros((9, 9, 9), np.float32)
    x[4, 4, 4] = 1
    for seed in range(5):
        assert np.unravel_index(volume.affine(x, rng(seed)).argmax(), x.shape) == (4, 4, 4)
    line = np.zeros((21, 21, 21), np.float32)
    line[10, 10, :] = 1
    at = volume.affine(line, rng(1))[:, :, 17:20].sum(2)
    y, z = (np.indices(at.shape).reshape(2, -1) * at.ravel()).sum(1) / at.sum()
    assert 0.2 < max(abs(y - 10), abs(z - 10)) < 9 * np.tan(np.deg2rad(15))


def test_coarser_along_one_axis_is_a_straight_line_between_its_samples():
    ramp = np.broadcast_to(np.arange(12, dtype=np.float32), (4, 5, 12))
    for seed in range(6):
        np.testing.assert_allclose(volume.anisotropy(ramp, rng(seed)), ramp, atol=1e-4)


def test_one_crop_of_all_slices():
    ramp = np.broadcast_to(np.arange(24, dtype=np.float32), (5, 24, 24))
    cut = CropSlices(12, (0.25, 0.25))(ramp, rng())
    assert cut.shape == (5, 12, 12)
    np.testing.assert_allclose(cut, np.broadcast_to(cut[0, 0], cut.shape))
    np.testing.assert_allclose(np.diff(cut[0, 0]), 1, atol=1e-5)
    assert len({CropSlices(12, (0.25, 0.25))(ramp, rng(seed))[0, 0, 0] for seed in range(9)}) > 3


def test_the_share_of_hidden_slices_is_rounded_up():
    masks = [HideSlices(0.1)(np.zeros((64, 2, 2)), rng(seed)).mask for seed in range(40)]
    assert {int((~mask).sum()) for mask in masks} == {7}
    assert (~np.stack(masks)).any(0).mean() > 0.9
    assert HideSlices(1.0)(np.zeros((4, 2, 2)), rng()).mask.sum() == 1
    with pytest.raises(ValueError, match="of a single slice none can be hidden"):
        HideSlices(0.1)(np.zeros((1, 2, 2)), rng())


def test_slices_along_an_axis():
    x = np.arange(24).reshape(1, 2, 3, 4)
    np.testing.assert_array_equal(SlicesAlong(2)(x, rng())[3], x[0, :, :, 3])
    np.testing.assert_array_equal(SlicesAlong(1)(x, rng())[1], x[0, :, 1])
    with pytest.raises(ValueError, match="has not one channel of three axes"):
        SlicesAlong(0)(x[0], rng())
