import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from distpre.data import decode as module
from distpre.data.decode import decode


def stored(picture, kind, **options):
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def picture(mode, size=(7, 5)):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    return np.random.default_rng(0).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("kind", ["png", "webp"])
def test_lossless_pictures_come_back_as_stored(mode, kind):
    if (mode, kind) == ("L", "webp"):
        pytest.skip("webp has no grey")
    there = decode(kind, stored(Image.fromarray(picture(mode)), kind, **({"lossless": True} if kind == "webp" else {})))
    visible = there[..., 3:] > 0 if mode == "RGBA" else True  # webp may change what is invisible
    assert there.dtype == np.uint8 and (np.where(visible, there, 0) == np.where(visible, picture(mode), 0)).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_is_what_pillow_makes_of_it_give_or_take_rounding(mode, shared_data):
    photo = Image.open(next((shared_data / "imgtext_grocery").rglob("*.jpg"))).convert(mode)
    content = stored(photo, "jpeg", quality=92)
    fast, plain = decode("jpg", content), np.array(Image.open(io.BytesIO(content)))
    assert fast.shape == plain.shape and fast.dtype == np.uint8
    assert np.abs(fast.astype(int) - plain).mean() < 0.5


def test_a_jpeg_decodes_without_the_fast_library(monkeypatch):
    content = stored(Image.fromarray(picture("RGB")), "jpeg")
    monkeypatch.setattr(module, "simplejpeg", None)
    assert (decode("jpeg", content) == np.array(Image.open(io.BytesIO(content)))).all()


def test_odd_modes_become_plain_ones():
    grey = Image.fromarray(picture("L"))
    assert decode("png", stored(grey.convert("P"), "png")).shape == (5, 7, 3)
    assert decode("png", stored(grey.convert("1"), "png")).shape == (5, 7)
    assert decode("jpg", stored(Image.fromarray(picture("RGB")).convert("CMYK"), "jpeg")).shape == (5, 7, 3)
    deep = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1000
    assert (decode("png", stored(Image.fromarray(deep), "png")) == deep).all()


def test_arrays_come_back_and_pickles_do_not():
    for array in (np.arange(6.0).reshape(2, 3), np.array([], np.int16)):
        out = io.BytesIO()
        np.save(out, array)
        there = decode("npy", out.getvalue())
        assert there.dtype == array.dtype and (there == array).all()
    out = io.BytesIO()
    np.savez(out, a=np.arange(3), b=np.ones(2))
    assert {k: v.tolist() for k, v in decode("npz", out.getvalue()).items()} == {"a": [0, 1, 2], "b": [1.0, 1.0]}
    out = io.BytesIO()
    np.save(out, np.array([{"x": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        decode("npy", out.getvalue())


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_sound_comes_back_by_channel(kind):
    soundfile = pytest.importorskip("soundfile")
    wave = np.random.default_rng(0).integers(-(2**15), 2**15, (50, 2)).astype(np.int16)
    out = io.BytesIO()
    soundfile.write(out, wave, 8000, format=kind, subtype="PCM_16")
    there = decode(kind, out.getvalue())
    assert there.shape == (2, 50) and there.dtype == np.float32
    assert (there * 2**15 == wave.T).all()


def test_words_numbers_and_the_rest():
    assert decode("txt", "gr\u00fc\u00dfe\n".encode()) == "gr\u00fc\u00dfe"
    assert decode("json", json.dumps({"a": [1, None]}).encode()) == {"a": [1, None]}
    assert decode("cls", b"17") == 17
    assert decode("bin", b"\x00\xff") == b"\x00\xff"
    assert decode("left.txt", b"the last part of the extension decides") == "the last part of the extension decides"


@pytest.mark.parametrize("kind", ["png", "jpg", "npy", "json", "cls", "txt"])
def test_damaged_content_raises(kind):
    with pytest.raises(Exception, match="."):
        decode(kind, b"\xff\xd8 no such thing")


@given(
    shape=st.lists(st.integers(0, 3), max_size=4),
    kind=st.sampled_from(["<f4", ">i2", "|u1", "<c16", "<U3", "?", "i4,f8"]),
    turned=st.booleans(),
)
def test_an_npy_is_what_numpy_reads(shape, kind, turned):
    array = np.arange(np.prod(shape, dtype=int)).astype("i4").reshape(shape)
    array = array.astype(kind) if "," not in kind else np.zeros(shape, kind)
    array = np.asfortranarray(array) if turned else array
    for _ in range(2):  # the second time its header is known
        found, expected = decode("npy", npy(array)), np.load(io.BytesIO(npy(array)))
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert not found.size or found.strides == expected.strides
        assert found.tobytes() == expected.tobytes() and found.flags.writeable and found.flags.owndata


def test_an_npy_cut_short_or_of_objects_is_refused():
    content = npy(np.ones((2, 3), np.float32))
    assert decode("npy", content).sum() == 6
    for bad in (content[:-1], content[:40], content[:7], b"", npy(np.array([{}], object))):
        with pytest.raises((ValueError, TypeError, EOFError)):
            decode("npy", bad)


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()
