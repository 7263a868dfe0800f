"""Members against the standard library's tarfile."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distpre.data.tar import members


def written(infos, form, end=True, **options):
    out = io.BytesIO()
    tar = tarfile.open(fileobj=out, mode="w", format=form, **options)
    for info in infos:
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    if end:
        tar.close()
    return out.getvalue()


def theirs(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(m.name, m.offset_data, m.size) for m in tar if m.isreg()]


def ours(data):
    problems = []
    found = [(m.name, m.offset, m.size) for m in members(data, "x.tar", problems)]
    assert problems == []
    return found


def info(name, size=0, kind=tarfile.REGTYPE, **facts):
    made = tarfile.TarInfo(name)
    made.size, made.type = size, kind
    for key, value in facts.items():
        setattr(made, key, value)
    return made


names = st.text("abc/.\u00e9\u5199 _", min_size=1, max_size=300).filter(lambda s: s.strip("/"))
kinds = st.sampled_from([tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, b"Z"])


@settings(max_examples=150)
@given(
    st.lists(st.tuples(names, st.integers(0, 2000), kinds), min_size=1, max_size=8),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_every_member_lies_where_tarfile_finds_it(rows, form):
    rows = [(n, 0 if n.endswith("/") or k in (tarfile.DIRTYPE, tarfile.SYMTYPE) else s, k) for n, s, k in rows]
    infos = [info(n, s, k, linkname="l") for n, s, k in rows]
    data = written(infos, form)
    assert ours(data) == theirs(data)


def test_pax_records_may_give_names_sizes_and_apply_to_all_that_follow():
    own = info("short.txt", 700, pax_headers={"comment": "5 = five\n", "path": "own/name.txt"})
    data = written([own, info("b.txt", 3)], tarfile.PAX_FORMAT, pax_headers={"uname": "somebody"})
    assert ours(data) == theirs(data) and ours(data)[0][0] == "own/name.txt"


def test_large_sizes_are_read_in_base_256():
    header = written([info("big.bin", 0)], tarfile.GNU_FORMAT)[:512]
    big = tarfile.TarInfo("big.bin")
    big.size = 9 * 2**30
    header = big.tobuf(tarfile.GNU_FORMAT)
    problems = []
    (found,) = members(header, "x.tar", problems)
    assert found.size == 9 * 2**30 and "cut off" in problems[0]


def test_sparse_members_are_marked():
    header = bytearray(info("hole.bin", 512, tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"00000000000\x0000000001000\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header) + bytes(512) + written([info("b.txt", 1)], tarfile.GNU_FORMAT)
    assert [(m.name, m.sparse) for m in members(data, "x.tar", [])] == [("hole.bin", True), ("b.txt", False)]


@pytest.mark.parametrize("cut", range(0, 3 * 1024 + 1, 128))
def test_any_cut_is_told_unless_it_is_at_the_very_end(cut):
    data = written([info(f"{i}.txt", 100) for i in range(3)], tarfile.GNU_FORMAT, end=False)
    problems = []
    if cut < 512:
        return
    found = list(members(data[:cut], "x.tar", problems))
    assert len(found) == -(-cut // 1024) if cut % 1024 >= 512 or not cut % 1024 else len(found) == cut // 1024
    assert len(problems) == 1 and "cut off" in problems[0]
