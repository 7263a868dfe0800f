"""What is wrong with the shards is said before training, or survived and written down."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from distpre.data.loader import Loader
from distpre.data.source import Source
from distpre.errors import DataError
from tests.data.tars import FIELDS, IDS, VIEWS, numbered, source, tar


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


@pytest.mark.parametrize(
    "shards,says",
    [
        ("{folder}/no-00{{0..2}}.tar", "3 of 3 shards are not there: .*no-000.tar"),
        ("pipe:cat x.tar", "pipe:"),
        ("", "name no shard"),
        ([], "name no shard"),
        ("a-{{3..1}}.tar", "empty range"),
    ],
)
def test_shards_that_cannot_be_read_are_refused_with_a_remedy(tmp_path, shards, says):
    with pytest.raises(DataError, match=says) as e:
        Source.open(shards.format(folder=tmp_path) if isinstance(shards, str) else shards, FIELDS, {})
    assert e.value.remedy


def test_a_field_that_no_sample_has_is_refused_with_the_nearest(tmp_path):
    (name,) = numbered(tmp_path, [3])
    with pytest.raises(DataError, match=r"(?s)'text' wants \.txtt.*shard-000.tar.*json \(3\), txt \(3\).*text: txt\?"):
        Source.open(name, {"text": "txtt"}, {})


def test_an_id_that_no_sample_has_is_refused(tmp_path):
    (name,) = numbered(tmp_path, [3])
    with pytest.raises(DataError, match="id 'who' is json.who.*shard-000.tar"):
        Source.open(name, FIELDS, {"who": "json.who"})


def test_brace_lists_and_double_colons_name_shards_in_order(tmp_path):
    numbered(tmp_path, [1, 2, 3])
    its = Source.open(f"{tmp_path}/shard-00{{2,0}}.tar::{tmp_path}/shard-001.tar", FIELDS, {})
    assert its.manifest.counts.tolist() == [3, 1, 2]


@pytest.mark.parametrize("said", ["not a tar at all" * 99, ""])
def test_a_file_that_is_no_tar_is_named(tmp_path, said):
    (tmp_path / "x.tar").write_text(said)
    with pytest.raises(DataError, match="x.tar is (not a tar|empty)"):
        Source.open(str(tmp_path / "x.tar"), FIELDS, {})


def test_a_truncated_tar_keeps_its_whole_samples_and_is_said(tmp_path):
    """webdataset itself ends such a shard without a word."""
    members = [(f"{i}.txt", f"{i}".encode() * 2000) for i in range(8)]
    path = tar(tmp_path / "s.tar", members)
    each = 512 + -(-len(members[0][1]) // 512) * 512
    with open(path, "r+b") as shard:
        shard.truncate(5 * each + 512 + 100)  # in the content of the sixth
    said = []
    its = Source.open(str(path), FIELDS, {}, note=said.append)
    assert any("s.tar is cut off at byte" in line for line in said), said
    read = [its.sample(its.raw(i)).fields["text"] for i in range(5)]
    assert read == [f"{i}" * 2000 for i in range(5)] and len(its) <= 6


def test_a_changed_tar_is_indexed_again(tmp_path):
    first = source(tmp_path, [3])
    said = []
    names = numbered(tmp_path, [5])
    os.utime(names[0], ns=(1, 1))
    second = Source.open(names, FIELDS, IDS, note=said.append)
    assert len(second) == 5 and second.digest != first.digest and "indexing 1 of 1" in said[0]


def test_a_copy_elsewhere_has_the_same_digest(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert source(tmp_path / "a", [4]).digest == source(tmp_path / "b", [4]).digest


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


def test_the_substitute_does_not_depend_on_the_ranks(tmp_path):
    its = pictures(tmp_path, 30, bad={7})
    values = set()
    for world_size in (1, 2, 5):
        for rank in range(world_size):
            loader = Loader(its, {"mean": Mean()}, batch=30, seed=1, rank=rank, world_size=world_size)
            batch = next(loader.batches())
            values |= {batch.views["mean"][i].item() for i, o in enumerate(batch.ordinal.tolist()) if o == 7}
    assert len(values) == 1


def test_too_many_bad_samples_stop_the_run_with_their_list(tmp_path):
    its = pictures(tmp_path, 60, bad=set(range(20, 40)))
    loader = Loader(its, {"mean": Mean()}, batch=60, seed=1)
    batch = next(loader.batches())
    with pytest.raises(DataError, match=r"(?s)20 of 60 samples.*max_bad_fraction = 0.01.*key k2"):
        loader.consumed(batch)


def test_an_index_that_is_damaged_is_made_again(tmp_path):
    names = numbered(tmp_path, [6])
    Source.open(names, FIELDS, IDS)
    with open(names[0] + ".index", "wb") as index:
        index.write(b"{")
    its = Source.open(names, FIELDS, IDS)
    assert [s.fields["text"] for s in its.samples()] == [str(i) for i in range(6)]
    assert Loader(its, VIEWS, batch=2, seed=0).state_dict()["digest"] == its.digest


def test_remote_shards_are_read_through_the_cache_and_without_one(tmp_path):
    import fsspec

    (name,) = numbered(tmp_path, [6])
    with open(name, "rb") as local, fsspec.open("memory://bucket/s.tar", "wb") as remote:
        remote.write(local.read())
    plain = Source.open("memory://bucket/s.tar", FIELDS, IDS)
    cached = Source.open("memory://bucket/s.tar", FIELDS, IDS, cache=str(tmp_path / "cache"))
    for its in (plain, cached):
        assert [s.fields["text"] for s in its.samples()] == [str(i) for i in range(6)]
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 1
