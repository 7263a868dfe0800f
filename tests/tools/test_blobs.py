"""The blobs: a shape in every slice, and a pattern that is in the order of the slices alone."""

import numpy as np
import pytest

from distpre.data.source import Source
from distpre.errors import DataError
from tools.shard.blobs import PATTERNS, Row, drawn, radii, write


def test_patterns_are_orders_of_the_same_radii():
    every = [radii(pattern, 16) for pattern in range(PATTERNS)]
    for one in every:
        np.testing.assert_array_equal(np.sort(one), every[0])
    assert len({tuple(one) for one in every}) == PATTERNS
    rising, falling, hill, valley = every
    assert (np.diff(rising) > 0).all() and (falling == rising[::-1]).all()
    assert hill.argmax() in (7, 8) and valley.argmin() in (7, 8)


def test_a_blob_is_as_large_as_its_pattern_says():
    for volume in range(12):
        x, _, pattern = drawn(Row(0, volume, 16, 24))
        bright = (x > np.percentile(x, 5) + 50).sum((1, 2))
        assert np.corrcoef(bright, radii(pattern, 16))[0, 1] > 0.95


def test_shards_hold_volumes_with_both_labels_and_no_volume_twice(tmp_path):
    assert write(str(tmp_path), train=40, test=20, slices=8, side=12).startswith("wrote 40 made-up volumes")
    seen = set()
    for split, count in (("train", 40), ("test", 20)):
        source = Source.open(str(tmp_path / f"{split}-000.tar"), {"volume": "volume.npy", "said": "json"}, {})
        samples = [sample.fields for sample in source.samples()]
        assert len(samples) == count and {s["volume"].shape for s in samples} == {(8, 12, 12)}
        assert {s["said"]["shape"] for s in samples} == {s["said"]["pattern"] for s in samples} == set(range(4))
        seen |= {s["volume"].tobytes() for s in samples}
    assert len(seen) == 60
    with pytest.raises(DataError, match="3 slices of 24 x 24 show no pattern"):
        write(str(tmp_path), slices=3)
