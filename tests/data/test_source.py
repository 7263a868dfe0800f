import json

import numpy as np
import pytest

from distpre.data.source import Source, Unreadable
from distpre.errors import DataError
from tests.data.tars import FIELDS, IDS, numbered, source, tar


def test_samples_come_in_the_order_of_the_shards(tmp_path):
    its = source(tmp_path, [3, 0, 2])
    assert len(its) == 5 and [s.fields["text"] for s in its.samples()] == list("01234")
    assert [s.key for s in its.samples()] == ["0000", "0001", "0002", "0000", "0001"]
    assert its.where(4) == (str(tmp_path / "shard-002.tar"), 1, "0001")


def test_a_field_that_no_sample_has_is_found_before_training(tmp_path):
    with pytest.raises(DataError) as found:
        Source.open(numbered(tmp_path, [2]), {"image": "txtt"})
    text = str(found.value)
    for part in ("'image'", ".txtt", "shard-000.tar", "json (2), txt (2)", "Did you mean fields.image: txt?"):
        assert part in text


def test_the_shard_that_lacks_a_field_is_named(tmp_path):
    names = [*numbered(tmp_path, [2]), str(tar(tmp_path / "other.tar", [("a.txt", b"x"), ("a.json", b'{"n": 1}')]))]
    with pytest.raises(DataError, match="id 'group' is json.group, but no sample of .*other.tar has it"):
        Source.open(names, FIELDS, IDS)


def test_fields_are_found_whatever_their_case(tmp_path):
    path = tar(tmp_path / "a.tar", [("a.TXT", b"word")])
    assert [s.fields for s in Source.open(str(path), {"text": "Txt"}).samples()] == [{"text": "word"}]


def test_members_that_lie_far_apart_are_read_too(tmp_path):
    members = [("a.txt", b"first"), ("a.big", bytes(1 << 20)), ("a.json", json.dumps({"n": 1}).encode())]
    its = Source.open(str(tar(tmp_path / "a.tar", members)), {"text": "txt", "facts": "json"})
    (sample,) = its.samples()
    assert sample.fields == {"text": "first", "facts": {"n": 1}}


def test_id_columns_follow_the_ordinals(tmp_path):
    columns = source(tmp_path, [4, 4]).id_columns(np.array([7, 0, 5]))
    assert {k: v.tolist() for k, v in columns.items()} == {"n": [7, 0, 5], "group": [1, 0, 2]}


def reason(its, ordinal):
    with pytest.raises(Unreadable) as found:
        its.sample(its.raw(ordinal))
    return str(found.value)


def test_each_kind_of_bad_sample_has_its_reason(tmp_path):
    good = b'{"n": 1, "group": 1}'
    members = [("good.txt", b"x"), ("good.json", good)]
    members += [("lacks.json", good), ("twice.txt", b"x"), ("twice.txt", b"y"), ("twice.json", good)]
    members += [("noid.txt", b"x"), ("noid.json", b'{"n": 1}'), ("broken.txt", b"\xff"), ("broken.json", good)]
    members += [("good.txt", b"x"), ("good.json", good), ("cut.json", good), ("cut.txt", b"x" * 600)]
    path = tar(tmp_path / "a.tar", members)
    with open(path, "r+b") as f:
        f.truncate(13 * 1024 + 512 + 300)  # inside the content of cut.txt; each of the 13 before it has two blocks
    its = Source.open(str(path), FIELDS, IDS)
    assert its.sample(its.raw(0)).fields == {"text": "x"}
    assert "no .txt among .json" in reason(its, 1)
    assert "one extension twice" in reason(its, 2)
    assert "no json.group for the id group" in reason(its, 3)
    assert "decode .txt: UnicodeDecodeError" in reason(its, 4)
    assert "the key of an earlier sample" in reason(its, 5)
    assert "read: cut off" in reason(its, 6)


def test_a_shard_that_shrank_under_the_reader_is_a_bad_sample_not_a_crash(tmp_path):
    its = source(tmp_path, [5])
    with open(tmp_path / "shard-000.tar", "r+b") as f:
        f.truncate(2000)
    assert "cut off" in reason(its, 4)
