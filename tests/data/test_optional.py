"""A field that samples may lack: the view is absent there, the sample is not bad, every rank agrees on the shapes."""

import io
from pathlib import Path

import numpy as np
import pytest

from distpre.data.loader import Loader
from distpre.data.source import Source
from distpre.errors import DataError
from tests.data.tars import tar


class Field:
    def __init__(self, field: str):
        self.field = field

    def at(self, value, *, seed, epoch, ordinal):
        return value.astype(np.float32)

    def evaluation(self, value):
        return value.astype(np.float32)


def npy(value: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, value)
    return out.getvalue()


def shard(folder: Path, with_depth: list[bool], with_oct: bool = True) -> str:
    members = []
    for n, there in enumerate(with_depth):
        members += [(f"{n:03d}.oct.npy", npy(np.full((2, 3), n)))] if with_oct else [(f"{n:03d}.txt", b"x")]
        members += [(f"{n:03d}.depth.npy", npy(np.full(4, n)))] if there else []
    return str(tar(folder / "shard.tar", members))


FIELDS = {"oct": "oct.npy", "depth": "depth.npy"}
VIEWS = {"oct": Field("oct"), "depth": Field("depth")}


def test_a_sample_without_the_field_is_absent_from_its_view_and_counts_elsewhere(tmp_path):
    there = [False, False, True, True, False, True, True, False]
    source = Source.open(shard(tmp_path, there), FIELDS, optional=["depth"])
    seen = {}
    for rank in range(2):
        loader = Loader(source, VIEWS, batch=4, seed=1, rank=rank, world_size=2)
        stream = loader.batches()
        for _ in range(2):
            batch = next(stream)
            assert set(batch.present) == {"depth"} and batch.weight.tolist() == [1.0, 1.0]
            for i, n in enumerate(batch.ordinal.tolist()):
                assert (batch.views["oct"][i] == n).all()
                assert (batch.views["depth"][i] == (n if there[n] else 0)).all()
                assert batch.present_in("oct")[i]
                seen[n] = bool(batch.present_in("depth")[i])
            loader.consumed(batch)
    assert seen == dict(enumerate(there))


def test_a_needed_field_is_still_needed(tmp_path):
    source = Source.open(shard(tmp_path, [True, False, True, True]), FIELDS)
    loader = Loader(source, VIEWS, batch=4, seed=1, max_bad_fraction=1.0)
    batch = next(loader.batches())
    assert sorted(batch.weight.tolist()) == [0.0, 1.0, 1.0, 1.0] and not batch.present


def test_a_field_that_no_sample_has_is_told(tmp_path):
    source = Source.open(shard(tmp_path, [False] * 4), FIELDS, optional=["depth"])
    with pytest.raises(DataError, match="none of the first 80 samples has the field 'depth' of views.depth"):
        next(Loader(source, VIEWS, batch=2, seed=1).batches())
