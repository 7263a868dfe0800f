"""Pictures that cannot be decoded, ids that are not there, shards behind a URL: a source at its edges."""

import io

import fsspec
import numpy as np
import pytest
from PIL import Image

from distpre.data.loader import Loader
from distpre.data.source import Source
from distpre.errors import DataError
from tests.data.tars import FIELDS, IDS, numbered, tar


class Mean:
    """A view of an image: its mean."""

    field = "image"

    def at(self, value, *, seed, epoch, ordinal):
        return np.array([value.mean()])

    def evaluation(self, value):
        return np.array([value.mean()])


def png(grey):
    content = io.BytesIO()
    Image.new("L", (3, 3), grey).save(content, "png")
    return content.getvalue()


def pictures(path, count, bad):
    """A source of grey pictures whose grey is their ordinal; those of `bad` are cut in half."""
    contents = [png(i)[: 30 if i in bad else None] for i in range(count)]
    return Source.open(str(tar(path / "p.tar", [(f"k{i}.png", c) for i, c in enumerate(contents)])), {"image": "png"})


def test_an_id_that_no_sample_has_is_refused(tmp_path):
    (name,) = numbered(tmp_path, [3])
    with pytest.raises(DataError, match="id 'who' is json.who.*shard-000.tar"):
        Source.open(name, FIELDS, {"who": "json.who"})


@pytest.mark.parametrize("world_size,workers", [(1, 0), (2, 0), (3, 1)])
def test_a_bad_image_keeps_its_place_with_weight_0_and_a_line(tmp_path, world_size, workers):
    its = pictures(tmp_path, 30, bad={4, 11})
    lines, rows = [], {}
    for rank in range(world_size):
        loader = Loader(
            its, {"mean": Mean()}, batch=10, seed=1, rank=rank, world_size=world_size, workers=workers,
            quarantine=lines.append, max_bad_fraction=0.1,
        )  # fmt: skip
        stream = loader.batches()
        for _ in range(3):
            batch = next(stream)
            loader.consumed(batch)
            values = batch.views["mean"][:, 0].tolist()
            rows |= zip(batch.ordinal.tolist(), zip(batch.weight.tolist(), values, strict=True), strict=True)
        loader.close()
    assert sorted(rows) == list(range(30))
    assert {o for o, (w, _) in rows.items() if w == 0} == {4, 11}
    assert all(value == o for o, (w, value) in rows.items() if w)
    assert all(0 <= rows[o][1] < 30 and rows[o][1] not in (4, 11) for o in (4, 11))
    assert sorted((line["key"], line["ordinal"]) for line in lines) == [("k11", 11), ("k4", 4)]
    assert all(line["shard"].endswith("p.tar") and "png" in line["reason"] for line in lines)


def test_remote_shards_are_read_through_the_cache_and_without_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (name,) = numbered(tmp_path, [6])
    with open(name, "rb") as local, fsspec.open("memory://bucket/s.tar", "wb") as remote:
        remote.write(local.read())
    plain = Source.open("memory://bucket/s.tar", FIELDS, IDS)
    cached = Source.open("memory://bucket/s.tar", FIELDS, IDS, cache=str(tmp_path / "cache"))
    for its in (plain, cached):
        assert [s.fields["text"] for s in its.samples()] == [str(i) for i in range(6)]
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 1
