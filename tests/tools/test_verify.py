import os

import pytest

from distpre.data.manifest import open_manifest
from tests.data.tars import numbered, tar
from tools.verify import main


def faults(capsys, *arguments):
    status = main([str(a) for a in arguments])
    return status, capsys.readouterr().out


def test_whole_shards_pass(tmp_path, capsys):
    status, said = faults(capsys, *numbered(tmp_path, [3, 4]))
    assert (status, said) == (0, "no faults in 7 samples of 2 shards\n")


def flip(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1]))


def test_a_flipped_bit_is_found_though_size_and_time_are_the_same(tmp_path, capsys):
    (name,) = numbered(tmp_path, [5])
    open_manifest([name], set(), note=print)
    before = os.stat(name)
    flip(name, 512 + 3 * 1024)  # inside the content of a sample; still valid text
    os.utime(name, ns=(before.st_atime_ns, before.st_mtime_ns))
    status, said = faults(capsys, name)
    assert status == 1 and "its index was made of" in said


def test_sums_beside_the_shards_are_held_against_them(tmp_path, capsys):
    (name,) = numbered(tmp_path, [5])
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  shard-000.tar\n")
    status, said = faults(capsys, name)
    assert status == 1 and "SHA256SUMS says 0000000000000000..." in said


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ([("a.txt", b"x"), ("a.png", b"no picture"), ("b.txt", b"x"), ("b.png", b"neither")], "key b (row 1): .png: U"),
        ([("a.txt", b"x"), ("a.json", b"{}"), ("b.txt", b"x")], "key b (row 1): no .json"),
        ([("a.txt", b"x"), ("a.txt", b"y")], "key a (row 0): one extension twice"),
        ([("a.txt", b"x"), ("b.txt", b"x"), ("a.txt", b"y")], "key a (row 2): the key of an earlier sample"),
    ],
    ids=["undecodable", "lacking", "twice", "repeated"],
)
def test_each_fault_is_listed_with_its_key(tmp_path, capsys, members, fault):
    status, said = faults(capsys, tar(tmp_path / "a.tar", members))
    assert status == 1 and fault in said


def test_a_cut_shard_and_what_is_no_tar_are_listed_beside_each_other(tmp_path, capsys):
    cut = tar(tmp_path / "cut.tar", [("a.txt", b"x"), ("b.txt", b"y" * 2000)])
    with open(cut, "r+b") as f:
        f.truncate(2000)
    (tmp_path / "no.tar").write_bytes(b"hello" * 500)
    status, said = faults(capsys, cut, tmp_path / "no.tar")
    assert status == 1 and "cut.tar: is cut off at byte 2000, inside b.txt" in said and "no.tar is not a tar" in said
    assert ".txt: ValueError: cut off: 464 bytes of 2000" in said


def test_a_person_in_two_splits_is_a_leak(tmp_path, capsys):
    (tmp_path / "test").mkdir()
    train = numbered(tmp_path, [6], group=lambda n: n)
    test = numbered(tmp_path / "test", [3], group=lambda n: n + 4)
    status, said = faults(capsys, *train, "--against", *test, "--id", "json.group")
    assert status == 1 and "split leak: 2 values of json.group stand in both splits: 4, 5" in said
    apart = numbered(tmp_path / "test", [3], group=lambda n: n + 6)
    assert faults(capsys, *train, "--against", *apart, "--id", "json.group")[0] == 0
