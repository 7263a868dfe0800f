"""Image ops: shapes for every kind of picture, and what each does to pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distpre.views.image import AutoAugment, CenterCrop, Flip, RandomResizedCrop, RandomShift, Resize, ToTensor


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _picture(*shape: int) -> np.ndarray:
    return _rng(1).integers(256, size=shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 2), (20, 30, 3), (20, 30, 4), (1, 1), (3, 200, 3)])
@pytest.mark.parametrize("op", [Resize(16), CenterCrop(16), RandomResizedCrop(16, scale=[0.1, 1.0])])
def test_every_kind_of_picture_becomes_a_square_of_three_channels(op, shape):
    tensor = ToTensor([0.5], [0.5])(op(_picture(*shape), _rng()), _rng())
    assert tensor.shape == (3, 16, 16) and tensor.dtype == torch.float32 and tensor.isfinite().all()


def test_center_crop_keeps_the_middle_and_drops_the_ends():
    picture = np.zeros((10, 30), np.uint8)
    picture[:, 10:20] = _picture(10, 10)
    assert (CenterCrop(10)(picture, _rng()) == picture[:, 10:20]).all()


def test_random_resized_crop_of_the_whole_area_is_a_resize():
    picture = _picture(24, 24, 3)
    whole = RandomResizedCrop(12, scale=[1.0, 1.0], ratio=[1.0, 1.0])
    assert (whole(picture, _rng()) == Resize(12)(picture, _rng())).all()


def test_random_resized_crop_takes_the_share_of_the_area_it_was_told():
    """A ramp's range tells how wide a crop of it was."""
    ramp = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    op = RandomResizedCrop(200, scale=[0.25, 0.25], ratio=[1.0, 1.0])
    crops = [op(ramp, _rng(seed)) for seed in range(30)]
    assert all(abs(int(c.max()) - int(c.min()) - 99) <= 1 for c in crops)
    assert len({int(c.min()) for c in crops}) > 10


@given(pixels=st.integers(0, 4), seed=st.integers(0, 1000))
def test_random_shift_moves_by_no_more_than_its_pixels_and_repeats_the_border(pixels, seed):
    picture = _picture(9, 9, 3)
    moved = RandomShift(pixels)(picture, _rng(seed))
    index = np.arange(9)
    shifts = range(-pixels, pixels + 1)
    assert any(
        (moved == picture[np.clip(index + y, 0, 8)][:, np.clip(index + x, 0, 8)]).all() for y in shifts for x in shifts
    )


def test_random_shift_goes_all_ways():
    picture = np.zeros((9, 9), np.uint8)
    picture[4, 4] = 1
    places = {tuple(np.argwhere(RandomShift(1)(picture, _rng(seed)))[0]) for seed in range(200)}
    assert places == {(y, x) for y in (3, 4, 5) for x in (3, 4, 5)}


def test_flip_mirrors_left_and_right_half_of_the_time():
    picture = _picture(4, 6, 3)
    flipped = [(Flip()(picture, _rng(seed)) == picture[:, ::-1]).all() for seed in range(400)]
    assert 150 < sum(flipped) < 250
    assert (Flip(p=1.0)(picture, _rng()) == np.fliplr(picture)).all()
    assert (Flip(p=0.0)(picture, _rng()) == picture).all()


def test_to_tensor_normalises_each_channel_by_its_own_figures():
    picture, mean, std = _picture(5, 7, 3), [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    tensor = ToTensor(mean, std)(picture, _rng())
    for c in range(3):
        np.testing.assert_allclose(tensor[c].numpy(), (picture[..., c] / 255 - mean[c]) / std[c], rtol=1e-5, atol=1e-6)


def test_transparent_pixels_are_white_and_opaque_ones_are_kept():
    picture = _picture(2, 2, 4)
    picture[0, :, 3], picture[1, :, 3] = 0, 255
    tensor = ToTensor([0.0], [1.0])(picture, _rng())
    assert (tensor[:, 0] == 1).all()
    np.testing.assert_allclose(tensor[:, 1].numpy(), picture[1, :, :3].T / 255, rtol=1e-6)


def test_sixteen_bit_grey_has_the_range_of_eight_bit_grey():
    wide = np.array([[0, 65535]], np.uint16)
    assert ToTensor([0.0], [1.0], channels=1)(wide, _rng()).tolist() == [[[0.0, 1.0]]]


def test_colours_do_not_silently_become_grey():
    with pytest.raises(ValueError, match="3 channels where the recipe wants 1"):
        ToTensor([0.5], [0.5], channels=1)(_picture(4, 4, 3), _rng())


def test_the_same_seed_gives_the_same_pixels_and_the_input_is_left_alone():
    picture = _picture(24, 24, 3)
    before = picture.copy()
    for op in (RandomResizedCrop(12, scale=[0.2, 1.0]), RandomShift(3), Flip()):
        assert (op(picture, _rng(4)) == op(picture, _rng(4))).all()
    ToTensor([0.5], [0.5])(picture, _rng()).zero_()
    assert (picture == before).all()


def test_auto_augment_draws_from_the_views_rng_alone():
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    before = torch.get_rng_state()
    made = [AutoAugment()(image, np.random.default_rng(i)) for i in (0, 0, 1, 2, 3)]
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(made[0], made[1]) and all(m.shape == image.shape and m.dtype == np.uint8 for m in made)
    assert len({m.tobytes() for m in made}) > 2
