"""Groups and arrays: what belongs together stays together, in a sample or in a shard, and never in both parts."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distpre.data import manifest
from distpre.data.shards import stamps
from distpre.data.source import Source
from distpre.errors import DataError
from tools.shard import arrays, groups, image_text, writer


def _table(folder: Path, persons: list[str]) -> Path:
    """A text file for each of `persons`, its visit within the person, and the table of them."""
    folder.mkdir(exist_ok=True)
    rows = []
    for i, person in enumerate(persons):
        (folder / f"{i}.txt").write_text(f"{person}, file {i}")
        rows.append({"file": f"{i}.txt", "person": person, "site": "here", "visit": persons[:i].count(person)})
    with open(folder / "files.csv", "w", newline="") as f:
        table = csv.DictWriter(f, ["file", "person", "site", "visit"])
        table.writeheader()
        table.writerows(rows)
    return folder / "files.csv"


def _samples(*shards: Path) -> list[dict]:
    """As webdataset itself reads them."""
    import webdataset

    return list(webdataset.WebDataset([str(s) for s in shards], shardshuffle=False, empty_check=False))


PERSONS = ["a", "b", "a", "c", "b", "a", "d"]


def test_a_group_is_a_sample(tmp_path):
    groups.write(_table(tmp_path / "in", PERSONS), tmp_path / "out", file="file", group="person")
    read = _samples(tmp_path / "out" / "train-000.tar")
    assert [json.loads(s["json"])["person"] for s in read] == ["a", "b", "c", "d"]
    first = read[0]
    assert [first[f"{i}.txt"].decode() for i in range(3)] == ["a, file 0", "a, file 2", "a, file 5"]
    facts = json.loads(first["json"])
    assert facts["site"] == "here" and [v["visit"] for v in facts["views"]] == ["0", "1", "2"]


def test_the_views_of_a_sample_are_fields(tmp_path):
    groups.write(_table(tmp_path / "in", ["a", "b", "a", "b"]), tmp_path / "out", file="file", group="person")
    source = Source.open(
        [str(tmp_path / "out/train-000.tar")], {"one": "0.txt", "two": "1.txt"}, {"who": "json.person"}
    )
    assert len(source) == 2


@settings(max_examples=50)
@given(persons=st.lists(st.sampled_from("abcde"), min_size=1, max_size=30), size=st.integers(1, 8))
def test_a_group_is_never_in_two_shards(tmp_path_factory, persons, size):
    folder = tmp_path_factory.mktemp("groups")
    table = _table(folder / "in", persons)
    groups.write(table, folder / "out", file="file", group="person", into="shard", shard_samples=size)
    shards = [[json.loads(s["json"])["person"] for s in _samples(p)] for p in sorted(folder.glob("out/*.tar"))]
    assert sorted(p for shard in shards for p in shard) == sorted(persons)
    assert sum(len(set(shard)) for shard in shards) == len(set(persons))  # none in two
    assert all(len(shard) <= size or len(set(shard)) == 1 for shard in shards)
    for one, two in zip(shards, shards[1:], strict=False):  # no shard ends early for nothing
        assert len(one) + two.count(two[0]) > size


def test_no_group_is_in_both_parts(tmp_path):
    persons = [f"p{i % 20}" for i in range(60)]
    said = groups.write(_table(tmp_path / "in", persons), tmp_path / "out", file="file", group="person", share=0.3)
    parts = {
        split: {json.loads(s["json"])["person"] for s in _samples(*sorted(tmp_path.glob(f"out/{split}-*.tar")))}
        for split in ("train", "test")
    }
    assert parts["train"] and parts["test"] and not parts["train"] & parts["test"]
    assert f"{len(parts['train'])} groups for training and {len(parts['test'])} held out, 60 files" in said


def test_wrong_tables_are_told(tmp_path):
    table = _table(tmp_path / "in", ["a", "b"])
    with pytest.raises(DataError, match="row 1 has no column 'preson'.*[Dd]id you mean 'person'"):
        groups.write(table, tmp_path / "out", file="file", group="preson")
    (tmp_path / "in" / "1.txt").unlink()
    with pytest.raises(DataError, match="1 files are missing: .*1.txt"):
        groups.write(table, tmp_path / "out", file="file", group="person")
    assert not (tmp_path / "out").exists()


# arrays


def _arrays(folder: Path, n: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {"x": rng.normal(size=(n, 3, 4)).astype(np.float32), "y": rng.integers(9, size=n)}
    np.savez(folder / "data.npz", **made)
    (folder / "data").mkdir()
    for name, array in made.items():
        np.save(folder / "data" / f"{name}.npy", array)
    return made


@pytest.mark.parametrize("source", ["data.npz", "data"])
def test_rows_of_arrays_come_back(tmp_path, source):
    made = _arrays(tmp_path)
    arrays.write(tmp_path / source, tmp_path / "out", shard_samples=3)
    read = _samples(*sorted(tmp_path.glob("out/*.tar")))
    from distpre.data import decode

    for name, array in made.items():
        back = np.stack([decode.DECODERS["npy"](s[f"{name}.npy"]) for s in read])
        assert back.dtype == array.dtype and (back == array).all()
    assert [json.loads(s["json"])["row"] for s in read] == list(range(7))


def test_a_table_gives_the_rows_facts_and_keeps_a_person_in_one_part(tmp_path):
    _arrays(tmp_path, 40)
    table = _table(tmp_path / "in", [f"p{i % 10}" for i in range(40)])
    arrays.write(tmp_path / "data", tmp_path / "out", table=table, split_by="person", share=0.4)
    seen = {
        s: {json.loads(x["json"])["person"] for x in _samples(tmp_path / f"out/{s}-000.tar")} for s in ("train", "test")
    }
    assert seen["train"] | seen["test"] == {f"p{i}" for i in range(10)} and not seen["train"] & seen["test"]


def test_arrays_that_do_not_go_together_are_told(tmp_path):
    np.savez(tmp_path / "odd.npz", x=np.zeros((3, 2)), y=np.zeros(4))
    with pytest.raises(DataError, match="x 3, y 4"):
        arrays.write(tmp_path / "odd.npz", tmp_path / "out")
    np.savez(tmp_path / "objects.npz", x=np.array([{}, []], object))
    with pytest.raises(DataError, match="objects.npz"):
        arrays.write(tmp_path / "objects.npz", tmp_path / "out")
    (tmp_path / "table.csv").write_text("a,b")
    with pytest.raises(DataError, match="table.csv: neither an .npz nor a folder"):
        arrays.write(tmp_path / "table.csv", tmp_path / "out")
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 2)))
    with pytest.raises(DataError, match="2 rows for 3"):
        arrays.write(tmp_path / "data.npz", tmp_path / "out", table=_table(tmp_path / "in", ["a", "b"]))


# what every kind shares


def test_a_parquet_table_says_what_the_csv_says(tmp_path):
    import pandas

    table = _table(tmp_path / "in", PERSONS)
    pandas.read_csv(table, dtype=str).to_parquet(tmp_path / "in" / "files.parquet")
    assert list(image_text.table_rows(tmp_path / "in" / "files.parquet")) == list(image_text.table_rows(table))


def test_shards_come_with_an_index_of_the_ids_and_checksums(tmp_path):
    groups.write(_table(tmp_path / "in", PERSONS), tmp_path / "out", file="file", group="person", shard_samples=2)
    tars = [str(p) for p in sorted(tmp_path.glob("out/*.tar"))]
    for tar, stamp in zip(tars, stamps(tars), strict=True):
        assert manifest.existing(tar, stamp, {"json.person"}) is not None
    import hashlib

    sums = {Path(tar).name: hashlib.sha256(Path(tar).read_bytes()).hexdigest() for tar in tars}
    assert (tmp_path / "out/SHA256SUMS").read_text() == "".join(f"{v}  {k}\n" for k, v in sums.items())


def test_rows_are_cut_as_asked():
    assert writer._cuts(list(range(7)), 3, None) == [0, 3, 6, 7]
    assert writer._cuts(list("aabbbbc"), 3, lambda row: row) == [0, 2, 6, 7]
