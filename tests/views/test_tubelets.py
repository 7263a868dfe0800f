"""Tubelets: the cut against plain indexing, the hidden share, and the frame that two views agree on."""

import numpy as np
import pytest
import torch

from distpre.data.collate import collate
from distpre.views.cells import ResizeVolume
from distpre.views.pipeline import View
from distpre.views.tubelets import FlipVolume, FramePart, OneFrame, Tubelets

VOLUME = np.random.default_rng(0).integers(0, 256, (6, 8, 12)).astype(np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_tubelets_lie_frame_by_frame_row_by_row():
    cut = Tubelets([3, 4, 6])(VOLUME, rng())
    assert cut.values.shape == (8, 72) and cut.mask.all()
    for n, (t, h, w) in enumerate(np.ndindex(2, 2, 2)):
        part = VOLUME[3 * t : 3 * t + 3, 4 * h : 4 * h + 4, 6 * w : 6 * w + 6]
        np.testing.assert_allclose(cut.values[n], part.ravel() / np.float32(255), rtol=1e-6)


def test_the_hidden_share_is_drawn_anew_by_each_rng_and_never_everything():
    masks = [Tubelets([1, 2, 2], hidden=0.9)(VOLUME, rng(seed)).mask for seed in range(20)]
    assert {int(mask.sum()) for mask in masks} == {144 - 130}
    assert torch.stack(masks).any(0).float().mean() > 0.8
    assert torch.equal(masks[0], Tubelets([1, 2, 2], hidden=0.9)(VOLUME, rng(0)).mask)
    assert Tubelets([6, 8, 12], hidden=0.9)(VOLUME, rng()).mask.tolist() == [True]


def test_a_volume_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match=r"a volume \(6, 8, 12\) cannot be cut into tubelets \(4, 4, 4\)"):
        Tubelets([4, 4, 4])(VOLUME, rng())


def test_padded_rows_make_one_batch():
    made = collate([Tubelets([3, 4, 6], hidden=0.5)(VOLUME, rng(seed)) for seed in range(3)])
    assert made.values.shape == (3, 8, 72) and made.mask.sum(1).tolist() == [4, 4, 4]


def test_the_frame_and_its_part_are_of_one_draw():
    frame, part = View("f", "oct", [OneFrame()], [OneFrame("middle")]), View("p", "oct", [FramePart(2)], [])
    numbered = np.arange(6)[:, None, None] * np.ones((1, 2, 2))
    seen = set()
    for ordinal in range(30):
        at = {"seed": 1, "epoch": 0, "ordinal": ordinal}
        number = int(frame.at(numbered, **at)[0, 0, 0])
        assert part.at(numbered, **at) == number // 3
        seen.add(number)
    assert seen == set(range(6)) and frame.evaluation(numbered)[0, 0, 0] == 3


def test_resize_and_flip():
    assert ResizeVolume([3, 4, 6])(VOLUME, rng()).shape == (3, 4, 6)
    np.testing.assert_allclose(ResizeVolume([6, 8, 12])(VOLUME, rng()), VOLUME / np.float32(255), rtol=1e-6)
    flipped = [FlipVolume([0, 2])(VOLUME, rng(seed)) for seed in range(20)]
    wanted = [np.flip(VOLUME, axes) for axes in ([], [0], [2], [0, 2])]
    assert all(any((f == w).all() for w in wanted) for f in flipped)
    assert all(any((f == w).all() for f in flipped) for w in wanted)
