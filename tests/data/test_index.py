"""What an index says of tars written by others is what webdataset reads from them."""

import os
import subprocess
import tarfile

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from distpre.data import manifest as manifests
from distpre.data.manifest import open_manifest
from distpre.data.source import Source
from distpre.errors import DataError
from tests.data.tars import FIELDS, IDS, numbered, tar


def ours(path, ids=frozenset()):
    """[(key, {extension: bytes})]"""
    index = open_manifest([str(path)], set(ids), note=lambda text: None).shard(0)
    content = path.read_bytes()
    return [
        (index.key(row), {e: content[o : o + size] for e, (o, size) in index.members(row).items()})
        for row in range(len(index))
    ]


ADDED = ("__key__", "__url__", "__local_path__")  # by webdataset


def theirs(path):
    samples = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    return [(s["__key__"], {k: v for k, v in s.items() if k not in ADDED}) for s in samples]


NAMES = [
    ["a.txt", "a.json", "b.txt"],
    ["a.seg.png", "a.png", "b.left.wav", "b.right.wav"],
    ["x.y/a.b.txt", "x.y/a.json", "x.y/c.txt"],
    ["./a.txt", "./a.cls", "./b.txt"],
    ["a.TXT", "a.Json", "B.txt"],
    ["README", "a.txt", "__meta__.json", "dir/README", "b.txt", ".hidden.txt"],
    ["a.txt", "b.txt", "a.json"],
    ["gr\u00fc\u00dfe/\u5199\u771f.txt", "gr\u00fc\u00dfe/\u5199\u771f.json"],
    ["d/" + "long" * 40 + ".txt", "d/" + "long" * 40 + ".json", "e" * 300 + ".txt"],
]


@pytest.mark.parametrize("names", NAMES, ids=lambda names: names[0][:12])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_names_are_split_and_grouped_as_webdataset_does(tmp_path, names, form):
    path = tar(tmp_path / "a.tar", [(name, name.encode()) for name in names], format=form)
    assert ours(path) == theirs(path) != []


@settings(max_examples=60)
@given(st.lists(st.text("ab./_", min_size=1, max_size=7).filter(lambda s: s.strip("./")), min_size=1, max_size=12))
def test_any_names_are_split_and_grouped_as_webdataset_does(tmp_path_factory, names):
    path = tar(tmp_path_factory.mktemp("tar") / "a.tar", [(name, name.encode()) for name in names])
    try:
        expected = theirs(path)
    except ValueError:  # one extension twice in a sample: webdataset stops there, we mark the sample
        assert open_manifest([str(path)], set(), note=print).shard(0).column("flaw").any()
        return
    assert ours(path) == expected


def test_a_tar_by_webdatasets_writer_reads_the_same(tmp_path):
    path = tmp_path / "a.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for i in range(20):
            writer.write({"__key__": f"d/{i:03d}", "txt": f"caption {i}", "json": {"i": i}, "npy": np.arange(i)})
    assert ours(path) == theirs(path) and len(ours(path)) == 20


def test_a_tar_by_tar_itself_reads_the_same(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for i in range(5):
        (tmp_path / "in" / "sub" / f"{i}.txt").write_text(f"text {i}")
        (tmp_path / "in" / "sub" / f"{i}.{'n' * 60}.json").write_text("{}")
    for form in ("gnu", "pax", "ustar", "v7", "posix"):
        path = tmp_path / f"{form}.tar"
        command = ["tar", f"--format={form}", "--sort=name", "-cf", str(path), "-C", str(tmp_path / "in"), "."]
        subprocess.run(command, check=True)
        assert ours(path) == theirs(path) and len(ours(path)) == 5


def test_an_index_is_built_once_and_said_so(tmp_path):
    said = []
    names = numbered(tmp_path, [3, 4])
    first = open_manifest(names, set(), note=said.append)
    assert len(said) == 1 and "indexing 2 of 2 shards" in said[0] and "at first use" in said[0]
    second = open_manifest(names, set(), note=said.append)
    assert len(said) == 1 and second.digest == first.digest and len(second) == 7
    assert [entry.index.name for entry in second.entries] == ["shard-000.tar.index", "shard-001.tar.index"]


def touched(name: str, seconds: int) -> None:
    """As if it had been written later; a clock may be too coarse to tell."""
    now = os.stat(name).st_mtime_ns
    os.utime(name, ns=(now, now + seconds * 10**9))


def test_a_tar_that_changed_is_indexed_again(tmp_path):
    names = numbered(tmp_path, [3, 4])
    before = open_manifest(names, set(), note=print)
    numbered(tmp_path, [3])  # the same bytes, written anew
    touched(names[0], 1)
    said = []
    same = open_manifest(names, set(), note=said.append)
    assert "indexing 1 of 2" in said[0] and same.digest == before.digest
    numbered(tmp_path, [5])
    touched(names[0], 2)
    assert len(open_manifest(names, set(), note=print)) == 9


def test_an_index_that_lacks_an_id_is_built_again_with_it(tmp_path):
    names = numbered(tmp_path, [3])
    open_manifest(names, set(), note=print)
    its = open_manifest(names, {"json.n"}, note=print)
    assert its.column("id:json.n", np.arange(3)).tolist() == [0, 1, 2]
    said = []
    open_manifest(names, set(), note=said.append)
    assert said == []


@pytest.mark.parametrize("damage", [b"", b"not an index\n", b'{"format": 1}\n', b'{"format": 99}\n'])
def test_a_damaged_index_is_built_again(tmp_path, damage):
    names = numbered(tmp_path, [3])
    (tmp_path / "shard-000.tar.index").write_bytes(damage)
    assert len(open_manifest(names, set(), note=print)) == 3


def test_a_folder_that_cannot_be_written_gets_its_index_elsewhere(tmp_path, monkeypatch):
    names = numbered(tmp_path, [3])
    (tmp_path / "shard-000.tar.index").mkdir()  # in the way, also for root
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    its = open_manifest(names, set(), note=print)
    assert its.entries[0].index.parent == tmp_path / "cache" / "distpre" and its.shard(0).key(2) == "0002"
    said = []
    assert len(open_manifest(names, set(), note=said.append)) == 3 and said == []


def test_many_shards_are_indexed_by_processes_in_order(tmp_path):
    names = numbered(tmp_path, [1, 2, 3, 4, 0, 5])
    its = open_manifest(names, {"json.n"}, note=print, workers=3)
    assert its.counts.tolist() == [1, 2, 3, 4, 0, 5]
    assert its.column("id:json.n", np.arange(15)).tolist() == list(range(15))


def test_two_processes_build_one_index(tmp_path, monkeypatch):
    """The second waits for the first and finds its index."""
    (name,) = numbered(tmp_path, [3])
    (stamp,) = manifests.stamps([name])
    manifests.build(name, stamp, set())
    monkeypatch.setattr(manifests, "scan", None)  # would fail if it scanned again
    assert manifests.build(name, stamp, set()).header.count == 3


def test_an_index_is_small_beside_its_tar(tmp_path):
    path = tar(tmp_path / "a.tar", [(f"{i:06d}.{e}", bytes(20_000)) for i in range(50) for e in ("jpg", "txt")])
    (entry,) = open_manifest([str(path)], {"txt"}, note=print).entries
    assert entry.index.stat().st_size < 0.01 * path.stat().st_size


@pytest.mark.parametrize("kept", [0.35, 0.5, 0.77, 0.96])
def test_a_tar_that_was_cut_off_says_so_and_keeps_its_whole_samples(tmp_path, kept):
    (name,) = numbered(tmp_path, [20])
    content = open(name, "rb").read()
    end = len(content.rstrip(b"\0"))
    with open(name, "r+b") as f:
        f.truncate(int(kept * end))
    said = []
    its = open_manifest([name], set(), note=said.append)
    assert len(its) >= int(20 * kept) - 1
    assert any("cut off" in text and f"{len(its)} samples" in text for text in said)
    again = []
    open_manifest([name], set(), note=again.append)
    assert any("cut off" in text for text in again), "said at each use, not only when it is indexed"


def test_garbage_in_the_middle_of_a_tar_is_named(tmp_path):
    (name,) = numbered(tmp_path, [20])
    with open(name, "r+b") as f:
        f.seek(1024 * 20)
        f.write(b"garbage!" * 64)
    said = []
    assert len(open_manifest([name], set(), note=said.append)) == 10
    assert "no tar header at byte 20480" in said[-1]


def test_what_is_no_tar_is_refused_with_its_name(tmp_path):
    cases = {"empty.tar": b"", "text.tar": b"hello " * 1000, "squeezed.tar": b"\x1f\x8b" + bytes(100)}
    for (name, content), reason in zip(cases.items(), ("is empty", "is not a tar", "is compressed"), strict=True):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} {reason}"):
            open_manifest([str(tmp_path / name)], set(), note=print)


def test_an_empty_tar_is_a_shard_of_no_samples(tmp_path):
    names = [str(tar(tmp_path / "none.tar", [])), *numbered(tmp_path, [2])]
    its = Source.open(names, FIELDS, IDS)
    assert its.manifest.counts.tolist() == [0, 2]
    with pytest.raises(DataError, match="hold no sample"):
        Source.open(names[:1], FIELDS)


def test_ids_are_ints_where_they_can_be_and_stable_hashes_elsewhere(tmp_path):
    said = b'{"i": -7, "s": "bob", "deep": {"k": 3}, "f": 1.5, "none": null, "big": 1000000000000000000000}'
    path = tar(tmp_path / "a.tar", [("a.json", said), ("a.txt", b"bob"), ("a.cls", b"12"), ("b.txt", b"eve")])
    paths = ["json.i", "json.s", "json.deep.k", "json.f", "json.none", "json.big", "json.absent", "txt", "cls"]
    its = open_manifest([str(path)], set(paths), note=print)
    a = {p: int(its.column(f"id:{p}", np.array([0]))[0]) for p in paths}
    b = {p: int(its.column(f"id:{p}", np.array([1]))[0]) for p in paths}
    missing = -(2**63)
    assert (a["json.i"], a["json.deep.k"], a["cls"]) == (-7, 3, 12)
    assert a["json.s"] == a["txt"] != b["txt"] and 0 <= a["txt"] < 2**63
    assert a["json.none"] == a["json.absent"] == b["json.i"] == missing
    assert 0 <= a["json.f"] < 2**63 and 0 <= a["json.big"] < 2**63


def test_the_digest_is_of_every_byte_and_of_the_order(tmp_path):
    names = numbered(tmp_path, [3, 4])
    digests = {open_manifest(n, set(), note=print).digest for n in (names, names[::-1], names[:1])}
    content = bytearray(open(names[0], "rb").read())
    content[512] ^= 1  # one bit of the first text
    open(names[0], "wb").write(content)
    touched(names[0], 1)
    digests.add(open_manifest(names, set(), note=print).digest)
    assert len(digests) == 4
