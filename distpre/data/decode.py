"""A member's bytes -> a value, by the last part of its extension.

images        (h, w) or (h, w, c) uint8 as stored: grey, RGB, RGBA; palettes become RGB(A); 16-bit grey stays uint16
npy, npz      the array; {name: array}; object arrays are refused, so that nothing is unpickled
wav, flac     (channels, samples) float32 in [-1, 1]
json          what it says;  txt  str without the final line break;  cls  int;  anything else: the bytes
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

try:
    import simplejpeg  # libjpeg-turbo without Pillow's copies
except ImportError:
    simplejpeg = None


NPY_1_0 = b"\x93NUMPY\x01\x00"


class NpyHeader(NamedTuple):
    """order: "C", or "F" where columns are stored one after another."""

    shape: tuple[int, ...]
    dtype: np.dtype
    order: str


def decode(extension: str, content: bytes) -> Any:
    """Raises whatever the format's own reader raises on damaged content."""
    return DECODERS.get(extension.rpartition(".")[2], bytes)(content)


def image(content: bytes) -> NDArray:
    with Image.open(io.BytesIO(content)) as picture:
        if picture.mode == "P":
            picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
        elif picture.mode not in ("L", "RGB", "RGBA", "I;16"):
            picture = picture.convert("L" if picture.mode in ("1", "LA", "La") else "RGB")
        return np.array(picture)


def jpeg(content: bytes) -> NDArray:
    """As `image`; through libjpeg-turbo directly where it is installed and the picture is plain grey or YCbCr."""
    if simplejpeg is not None:
        colours = simplejpeg.decode_jpeg_header(content)[2]
        if colours == "Gray":
            return simplejpeg.decode_jpeg(content, colorspace="GRAY")[:, :, 0]
        if colours.startswith("YCbCr") or colours == "RGB":
            return simplejpeg.decode_jpeg(content, colorspace="RGB")
    return image(content)


def numpy_array(content: bytes) -> NDArray:
    """As numpy.load, whose reading of the header takes longer than a small array: headers seen before are known."""
    start = 10 + int.from_bytes(content[8:10], "little")
    if content[:8] != NPY_1_0 or (header := _npy_header(content[:start])).dtype.hasobject:
        return np.load(io.BytesIO(content), allow_pickle=False)
    return np.ndarray(header.shape, header.dtype, content, start, order=header.order).copy("K")


@lru_cache(maxsize=4096)
def _npy_header(header: bytes) -> NpyHeader:
    file = io.BytesIO(header[len(NPY_1_0) :])
    shape, columns_first, dtype = np.lib.format.read_array_header_1_0(file)
    return NpyHeader(shape, dtype, "F" if columns_first else "C")


def numpy_arrays(content: bytes) -> dict[str, NDArray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def sound(content: bytes) -> NDArray:
    import soundfile

    samples, _ = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    return np.ascontiguousarray(samples.T)


def text(content: bytes) -> str:
    return content.decode("utf-8").rstrip("\r\n")


DECODERS: dict[str, Callable[[bytes], Any]] = {
    **dict.fromkeys(("png", "webp", "bmp", "tif", "tiff", "gif"), image),
    **dict.fromkeys(("jpg", "jpeg"), jpeg),
    **dict.fromkeys(("wav", "flac"), sound),
    **dict.fromkeys(("txt", "text", "transcript"), text),
    "npy": numpy_array,
    "npz": numpy_arrays,
    "json": json.loads,
    "cls": int,
}
