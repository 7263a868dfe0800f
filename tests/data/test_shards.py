import os

import pytest

from distpre.data.shards import expand, stamps
from distpre.errors import DataError


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{000..002}.tar", ["a-000.tar", "a-001.tar", "a-002.tar"]),
        ("a-{8..11}.tar", ["a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"]),
        ("{a,b}-{0..1}.tar::c.tar", ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar", "c.tar"]),
        (["a.tar", "b-{0..1}.tar::c.tar"], ["a.tar", "b-0.tar", "b-1.tar", "c.tar"]),
        ("s3://bucket/{x,y{1..2}}.tar", ["s3://bucket/x.tar", "s3://bucket/y1.tar", "s3://bucket/y2.tar"]),
    ],
)
def test_lists_expand(written, names):
    assert expand(written) == names


@pytest.mark.parametrize("written", ["", [], "a.tar::", "a-{}.tar", "a-{3..1}.tar", "a-{x,}.tar", [""]])
def test_a_list_that_names_nothing_is_refused(written):
    with pytest.raises(DataError, match="no shard|empty"):
        expand(written)


def test_shell_commands_are_refused():
    with pytest.raises(DataError, match="`pipe:` shards run shell commands"):
        expand("a.tar::pipe:cat b.tar")


def test_missing_shards_are_named_and_counted(tmp_path):
    names = [str(tmp_path / f"{i}.tar") for i in range(6)]
    open(names[0], "w").close()
    with pytest.raises(DataError, match="5 of 6 shards are not there: .*1.tar, .*2.tar, .*3.tar and 2 more"):
        stamps(names)


def test_a_stamp_changes_with_size_and_with_time(tmp_path):
    name = tmp_path / "a.tar"
    seen = set()
    for content, when in ((b"one", 1), (b"two", 2), (b"three", 2)):
        name.write_bytes(content)
        os.utime(name, (when, when))
        seen.add(stamps([str(name)])[0])
    assert len(seen) == 3
