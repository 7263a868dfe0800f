"""Shards indexed ahead of a run."""

from distpre.data.source import Source
from tests.data.tars import FIELDS, IDS, numbered
from tools.index import main


def test_a_run_finds_the_index_that_the_tool_made(tmp_path, capsys):
    names = numbered(tmp_path, [3, 4])
    assert main([*names, "--id", "json.n", "--id", "json.group"]) == 0
    said, notes = [], capsys.readouterr()
    its = Source.open(names, FIELDS, IDS, note=said.append)
    assert said == [], "indexed again"
    assert f"7 samples in 2 shards, digest {its.digest}" in notes.out and "txt:4 json:4" in notes.out
    assert "indexing 2 of 2" in notes.err


def test_an_index_in_several_processes_is_the_same(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    digests = []
    for folder, workers in (("a", "1"), ("b", "3")):
        main([*numbered(tmp_path / folder, [3, 4, 5]), "--workers", workers])
        digests.append(capsys.readouterr().out.rpartition("digest ")[2])
    assert digests[0] == digests[1]


def test_damage_is_told_by_the_exit_status(tmp_path, capsys):
    (name,) = numbered(tmp_path, [5])
    with open(name, "r+b") as shard:
        shard.truncate(6 * 512)
    assert main([name]) == 1
    assert f"{name} " in (err := capsys.readouterr().err) and "cut off at byte" in err


def test_a_missing_shard_is_named(tmp_path, capsys):
    assert main([str(tmp_path / "no-{0..1}.tar")]) == 2
    assert "2 of 2 shards are not there" in capsys.readouterr().err
