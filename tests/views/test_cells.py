"""Grids of cells, random boxes and their overlaps; patches and their labels; what each part is put through."""

import numpy as np
import pytest

from distpre.views.cells import (
    BoxOverlaps,
    CellNumbers,
    CellsAndBoxes,
    FlipAxes,
    Patches,
    PatchLabels,
    QuarterTurns,
    ResizeVolume,
    ShiftIntensity,
)
from distpre.views.pipeline import View

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("grid", [[3, 2, 1], [2, 2, 2]])
def test_overlaps_are_the_shares_of_voxels_that_lie_in_each_cell(grid):
    """Of a volume whose every voxel is the number of its cell."""
    shape = [6 * grid[0], 5 * grid[1], 4 * grid[2]]
    number = np.ravel_multi_index([i // s for i, s in zip(np.indices(shape), (6, 5, 4), strict=True)], grid)[None]
    made = {
        name: View(name, "volume", [op], []).at(number, seed=0, epoch=1, ordinal=2)
        for name, op in {
            "parts": CellsAndBoxes(grid, 20),
            "overlap": BoxOverlaps(grid, 20),
            "place": CellNumbers(grid, 20),
        }.items()
    }
    many = int(np.prod(grid))
    assert [set(np.unique(cell)) for cell in made["parts"][:many]] == [{k} for k in range(many)]
    shares = [[(box == k).mean() for k in range(many)] for box in made["parts"][many:]]
    np.testing.assert_allclose(made["overlap"], shares, atol=1e-6)
    np.testing.assert_array_equal(made["place"], [*range(many), *np.argmax(shares, 1)])
    assert made["overlap"].dtype == np.float32 and len(np.unique(made["overlap"], axis=0)) > 5


@pytest.mark.parametrize("size,stride", [([4, 5, 2], [2, 1, 3]), ([1, 1, 1], [1, 1, 1]), ([9, 8, 7], [2, 2, 2])])
def test_a_patchs_label_is_that_of_its_middle_voxel(size, stride):
    labels = RNG.integers(0, 5, (9, 8, 7)).astype(np.uint8)
    patches = Patches(size, stride)(labels[None], RNG)
    middle = patches[:, 0, size[0] // 2, size[1] // 2, size[2] // 2]
    np.testing.assert_array_equal(PatchLabels(size, stride)(labels, RNG), middle)


def test_resizing_keeps_places_and_labels_stay_labels():
    x, y, z = np.meshgrid(*(np.arange(n) + 0.5 for n in (8, 6, 4)), indexing="ij")
    bigger = ResizeVolume([16, 12, 4])(np.stack([x, y]).astype(np.float32), RNG)
    np.testing.assert_allclose(bigger[0, 1:-1, 0, 0], (np.arange(16)[1:-1] + 0.5) / 2, rtol=1e-6)
    labels = RNG.integers(0, 2, (8, 6, 4)).astype(np.uint8) * 2
    assert set(np.unique(ResizeVolume([5, 9, 4], labels=True)(labels, RNG))) == {0, 2}
    np.testing.assert_array_equal(ResizeVolume([8, 6, 4], labels=True)(labels, RNG), labels)


def test_each_part_has_its_own_draw():
    parts = np.repeat(RNG.random((1, 1, 4, 4, 3)).astype(np.float32), 200, 0)
    for op, different in ((FlipAxes(0.5), 8), (QuarterTurns(0.5), 4)):
        out = op(parts, np.random.default_rng(1))
        assert len(np.unique(out.reshape(200, -1), axis=0)) == different
        np.testing.assert_array_equal(np.sort(out.reshape(200, -1)), np.sort(parts.reshape(200, -1)))
        same = type(op)(0.0)(parts, RNG)
        np.testing.assert_array_equal(same, parts)
    moved = ShiftIntensity(0.1, 0.5)(parts, np.random.default_rng(1)) - parts
    assert np.ptp(moved, axis=(1, 2, 3, 4)).max() < 1e-6 and 60 < (np.abs(moved[:, 0, 0, 0, 0]) > 1e-6).sum() < 140


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not divide"):
        CellsAndBoxes([3, 1, 1], 2)(np.zeros((1, 8, 8, 8)), RNG)
    with pytest.raises(ValueError, match="not square"):
        QuarterTurns()(np.zeros((2, 1, 4, 5, 4)), RNG)
