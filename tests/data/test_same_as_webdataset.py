"""Shards are plain WebDataset tars: whatever webdataset reads from one, a source reads the same."""

import io
import tarfile

import numpy as np
import pytest
import webdataset
from PIL import Image

from distpre.data.source import Source
from tests.data.tars import tar

LONG = "deep/" * 30 + "name" * 20


def theirs(path):
    """[(key, {extension: bytes})], by webdataset's own reader."""
    samples = webdataset.WebDataset(str(path), shardshuffle=False)
    return [(s["__key__"], {k: v for k, v in s.items() if not k.startswith("__")}) for s in samples]


def ours(path):
    its = Source.open(str(path), {}, {})
    found = []
    content = path.read_bytes()
    for row in range(len(its)):
        index = its.manifest.shard(0)
        members = {e: content[offset : offset + size] for e, (offset, size) in index.members(row).items()}
        found.append((index.key(row), members))
    return found


@pytest.mark.parametrize("style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_tars_of_every_format_are_read_as_webdataset_reads_them(tmp_path, style):
    long = "plain/a" if style == tarfile.USTAR_FORMAT else LONG
    names = ["a.txt", "a.seg.PNG", "b/c.d/e.Jpg", "b/c.d/e.cls", f"{long}.txt", f"{long}.json", "käse.txt", "none"]
    path = tar(tmp_path / "s.tar", [(name, name.encode() * 100) for name in names], format=style)
    assert ours(path) == theirs(path)
    assert len(ours(path)) == 4


def test_what_is_no_sample_is_passed_over_as_webdataset_does(tmp_path):
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as out:
        folder = tarfile.TarInfo("x.d")
        folder.type = tarfile.DIRTYPE
        out.addfile(folder)
        link = tarfile.TarInfo("y.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "a.txt"
        out.addfile(link)
        for name in ("__meta__/a.txt", "a.txt", "a.json"):
            info = tarfile.TarInfo(name)
            info.size = 3
            out.addfile(info, io.BytesIO(b"one"))
    assert ours(path) == theirs(path) == [("a", {"txt": b"one", "json": b"one"})]


def test_tars_of_webdatasets_writer_are_read_back_whole(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (7, 5, 3), dtype=np.uint8) for _ in range(4)]
    with webdataset.TarWriter(str(tmp_path / "s.tar")) as writer:
        for i, image in enumerate(images):
            writer.write({"__key__": f"{i:03d}", "png": image, "cls": i, "json": {"n": -i}, "npy": image[0]})
    its = Source.open(str(tmp_path / "s.tar"), {"image": "PNG", "class": "cls", "row": "npy"}, {"n": "json.n"})
    for i, sample in enumerate(its.samples()):
        assert (sample.key, sample.ordinal, sample.fields["class"]) == (f"{i:03d}", i, i)
        assert (sample.fields["image"] == images[i]).all() and (sample.fields["row"] == images[i][0]).all()
    assert its.id_columns(np.arange(4))["n"].tolist() == [0, -1, -2, -3]


@pytest.mark.parametrize("mode,shape", [("L", (4, 6)), ("RGB", (4, 6, 3)), ("RGBA", (4, 6, 4)), ("P", (4, 6, 3))])
def test_images_keep_their_channels(tmp_path, mode, shape):
    content = io.BytesIO()
    Image.new(mode, (6, 4)).save(content, "png")
    path = tar(tmp_path / "s.tar", [("a.png", content.getvalue())])
    (sample,) = Source.open(str(path), {"image": "png"}).samples()
    assert sample.fields["image"].shape == shape and sample.fields["image"].dtype == np.uint8
