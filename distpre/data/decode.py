"""A member's bytes -> a value, by its extension."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np


def image(data: bytes) -> np.ndarray:
    """uint8 (h, w) for grey, (h, w, c) otherwise."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode not in ("L", "LA", "RGB", "RGBA"):
            picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
        return np.asarray(picture)


def npz(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def text(data: bytes) -> str:
    return data.decode("utf-8")


DECODERS: dict[str, Callable[[bytes], Any]] = {
    **dict.fromkeys(("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "gif"), image),
    **dict.fromkeys(("txt", "text"), text),
    "json": json.loads,
    "cls": int,
    "npy": lambda data: np.load(io.BytesIO(data), allow_pickle=False),
    "npz": npz,
}


def decode(data: bytes, extension: str) -> Any:
    """By the last part of the extension ("seg.png" is a png); bytes as they are where it is not known."""
    decoder = DECODERS.get(extension.rpartition(".")[2])
    return data if decoder is None else decoder(data)
