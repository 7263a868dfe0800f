"""Shards behind a URL: a file system of the tests counts what is asked of it, over all processes."""

import errno
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from distpre.data import cache as cache_module
from distpre.data import remote
from distpre.data.cache import Cache
from distpre.data.index import SUFFIX
from distpre.data.loader import Loader
from distpre.data.manifest import open_manifest
from distpre.data.shards import stamps
from distpre.data.source import Source
from distpre.errors import DataError
from tests.data.tars import FIELDS, IDS, VIEWS, numbered


class Counted(LocalFileSystem):
    """Local files under another name; a line in `log` for each thing fetched."""

    protocol = "counted"
    cachable = False
    log = Path(os.devnull)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("counted://"))

    def _says(self, verb, path):
        with open(self.log, "a") as f:
            f.write(f"{verb} {Path(path).name}\n")

    def get_file(self, rpath, lpath, **options):
        self._says("get", rpath)
        time.sleep(0.05)
        shutil.copyfile(self._strip_protocol(rpath), lpath)

    def cat_file(self, path, start=None, end=None, **options):
        content = Path(self._strip_protocol(path)).read_bytes()
        self._says("range" if start is not None else "read", path)
        return content[start:end]


@pytest.fixture
def urls(tmp_path, monkeypatch):
    """Remote shards of 6 samples each, with an empty log."""
    fsspec.register_implementation("counted", Counted, clobber=True)
    monkeypatch.setattr(Counted, "log", tmp_path / "log")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.001)
    (tmp_path / "far").mkdir()
    (tmp_path / "log").touch()
    return [f"counted://{name}" for name in numbered(tmp_path / "far", [6, 6, 6, 6])]


def log():
    return sorted(Counted.log.read_text().splitlines())


def texts(its):
    return [sample.fields["text"] for sample in its.samples()]


ALL = [str(n) for n in range(24)]
ONCE = [f"get shard-00{i}.tar" for i in range(4)]


def test_without_a_cache_samples_are_read_by_range(urls):
    assert texts(Source.open(urls, FIELDS, IDS)) == ALL
    assert sum(line.startswith("range") for line in log()) == 24


def test_with_a_cache_each_shard_is_fetched_once_indexing_included(urls, tmp_path):
    its = Source.open(urls, FIELDS, IDS, cache=str(tmp_path / "node"))
    assert texts(its) == texts(its) == ALL
    assert [line for line in log() if not line.startswith("read")] == ONCE


def test_an_index_shipped_beside_a_remote_tar_spares_the_fetch(urls, tmp_path):
    open_manifest([url.removeprefix("counted://") for url in urls], {"json.n", "json.group"}, note=print)
    its = Source.open(urls, FIELDS, IDS)
    assert [line for line in log() if line.startswith("get")] == []
    assert texts(its) == ALL
    assert its.manifest.entries[0].index.parent == tmp_path / "home" / "distpre"


def test_a_shipped_index_of_another_tar_is_not_used(urls, tmp_path):
    (tmp_path / "other").mkdir()
    (other,) = numbered(tmp_path / "other", [2 * 9])
    open_manifest([other], set(), note=print)
    shutil.copy(other + SUFFIX, tmp_path / "far" / f"shard-000.tar{SUFFIX}")
    assert texts(Source.open(urls, FIELDS)) == ALL


def test_processes_of_a_node_share_the_cache(urls, tmp_path):
    its = Source.open(urls, FIELDS, IDS)
    Counted.log.write_text("")
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        folders = [str(tmp_path / "node")] * 4
        assert pool.starmap(_read_all, [(urls, folder, 0) for folder in folders]) == [ALL] * 4
    assert log() == ONCE and len(its) == 24


def _read_all(urls, folder, _):
    return texts(Source.open(urls, FIELDS, IDS, cache=folder))


def test_the_cache_stays_below_its_bound_and_drops_what_is_oldest(urls, tmp_path):
    present, node = stamps(urls), Cache(tmp_path / "node", 2 * stamps(urls)[0].size)
    kept = []
    for i, (url, stamp) in enumerate(zip(urls, present, strict=True)):
        kept.append(node.fetch(url, stamp))
        os.utime(kept[-1], (i, i))
        assert sum(p.stat().st_size for p in (tmp_path / "node").glob("*.tar")) <= node.limit_bytes
    assert [path.exists() for path in kept] == [False, False, True, True]


def test_a_bound_smaller_than_a_shard_falls_back_to_ranges(urls, tmp_path):
    assert texts(Source.open(urls, FIELDS, IDS, cache=str(tmp_path / "node"), cache_bytes=100)) == ALL
    assert list((tmp_path / "node").glob("*.tar")) == []


def test_a_reader_goes_on_with_a_shard_that_was_dropped(urls, tmp_path):
    its = Source.open(urls, FIELDS, IDS, cache=str(tmp_path / "node"))
    its.raw(0)
    for path in (tmp_path / "node").glob("*.tar"):
        path.unlink()
    assert its.sample(its.raw(1)).fields == {"text": "1"}


def test_a_full_disk_is_read_around(urls, tmp_path, monkeypatch):
    its = Source.open(urls, FIELDS, IDS, cache=str(tmp_path / "node"))
    shutil.rmtree(tmp_path / "node")
    (tmp_path / "node").mkdir()

    def full(url, to):
        Path(to).write_bytes(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_module, "download", full)
    assert texts(its) == ALL
    assert [p.name for p in (tmp_path / "node").iterdir() if p.suffix != ".lock"] == []


def test_a_fetch_that_fails_is_tried_again(urls, tmp_path, monkeypatch):
    fails = iter([OSError("reset"), TimeoutError("slow")])
    plain = Counted.get_file

    def sometimes(self, rpath, lpath, **options):
        error = next(fails, None)
        if error:
            raise error
        plain(self, rpath, lpath, **options)

    monkeypatch.setattr(Counted, "get_file", sometimes)
    assert texts(Source.open(urls, FIELDS, IDS, cache=str(tmp_path / "node"))) == ALL


def test_patience_ends_and_missing_files_have_none():
    tries = []

    def broken():
        tries.append(1)
        raise OSError("reset")

    def absent():
        tries.append(1)
        raise FileNotFoundError("gone")

    remote_pause, remote.FIRST_PAUSE = remote.FIRST_PAUSE, 0.0
    try:
        for read, expected in ((broken, remote.TRIES), (absent, 1)):
            tries.clear()
            with pytest.raises(OSError, match="reset|gone"):
                remote.patiently(read)
            assert len(tries) == expected
    finally:
        remote.FIRST_PAUSE = remote_pause


def test_missing_remote_shards_are_named(urls):
    with pytest.raises(DataError, match="1 of 5 shards are not there: counted:///nowhere.tar"):
        Source.open([*urls, "counted:///nowhere.tar"], FIELDS)


def test_shards_are_fetched_ahead_of_their_use(urls, tmp_path):
    its = Source.open(urls, FIELDS, IDS)
    Counted.log.write_text("")
    its = Source.open(urls, FIELDS, IDS, cache=str(tmp_path / "node"))
    loader = Loader(its, VIEWS, batch=1, seed=0, window=24)
    next(loader.batches())
    for fetch in loader.workers.work.ahead.under_way:
        fetch.result(timeout=30)
    assert log() == ONCE, "one sample was read, all shards of the window are here"


def test_a_remote_set_trains_like_a_local_one(urls, tmp_path):
    def numbers(its, workers):
        loader = Loader(its, VIEWS, batch=5, seed=0, window=12, workers=workers)
        out = []
        for _, batch in zip(range(10), loader.batches(), strict=False):
            loader.consumed(batch)
            out += batch.views["number"][:, 0].tolist()
        loader.close()
        return out

    local = Source.open([url.removeprefix("counted://") for url in urls], FIELDS, IDS)
    far = Source.open(urls, FIELDS, IDS, cache=str(tmp_path / "node"), cache_bytes=2 * stamps(urls)[0].size)
    assert numbers(far, 2) == numbers(local, 0) and np.unique(numbers(local, 0)).size == 24
