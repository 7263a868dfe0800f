"""DICOM, read by pydicom: whose a file is, a series of slices as a volume, a file of many frames as a stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distpre.errors import DataError
from tools.shard.writer import Unusable

SUFFIXES = (".dcm", ".dicom")
# An eye's side stands at different places, by the kind of object and its age.
ELSEWHERE = {"Laterality": ("ImageLaterality", "FrameLaterality")}
EVEN = 0.1  # of a gap between slices, which gaps may differ by: tables move unevenly, a missing slice is a whole gap


def is_dicom(file: Path) -> bool:
    """By its suffix; without one, or with that of a UID, by the letters DICM. A DICOMDIR is none: it lists others."""
    if (file.suffix and not file.suffix[1:].isdigit()) or file.name == "DICOMDIR":
        return file.name.lower().endswith(SUFFIXES)
    with open(file, "rb") as f:
        return f.read(132)[128:] == b"DICM"


def ids(file: Path, wanted: dict[str, str]) -> dict[str, str]:
    """{name: what the header says under its keyword}; keywords joined by + give values joined by -.

    Raises Unusable where the header does not say.
    """
    if not wanted:
        return {}
    header = _opened(file, stop_before_pixels=True)
    return {name: "-".join(_said(header, word) for word in words.split("+")) for name, words in wanted.items()}


def series(slices: list[Path]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slices of one series in any order -> values (columns, rows, slices) and their affine into RAS, in mm.

    Slices are sorted by where they lie along the normal of their plane; values are slope · stored + intercept of each
    slice, for CT Hounsfield units. Raises Unusable for what is not one stack of parallel, evenly spaced slices.
    """
    every = [_opened(file) for file in slices]
    if any(int(s.get("NumberOfFrames") or 1) > 1 for s in every):
        raise Unusable("many frames in one file, which `python -m tools.shard oct` reads")
    lacking = [
        w for w in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing") if any(w not in s for s in every)
    ]
    if lacking:
        raise Unusable(f"slices without {lacking[0]}")
    if (count := len({str(s.get("SeriesInstanceUID")) for s in every})) > 1:
        raise Unusable(f"{count} series in one folder")
    shapes = {(int(s.Rows), int(s.Columns)) for s in every}
    planes = np.array([[*s.ImageOrientationPatient, *s.PixelSpacing] for s in every], float)
    if len(shapes) > 1 or not np.allclose(planes, planes[0], atol=1e-3):
        raise Unusable("slices of several sizes, directions or spacings in one series")
    if len(every) < 2:
        raise Unusable("one slice")
    along, down = planes[0, :3], planes[0, 3:6]
    normal = np.cross(along, down)
    places = np.array([s.ImagePositionPatient for s in every], float)
    order = np.argsort(places @ normal, kind="stable")
    gaps = np.diff(places[order] @ normal)
    gap = float(np.median(gaps))
    if gaps.min() < EVEN * gap or gap <= 0:
        raise Unusable("two slices at one place")
    if np.abs(gaps - gap).max() > EVEN * gap:
        raise Unusable(f"slices {gap:.4g} mm apart, and once {gaps[np.abs(gaps - gap).argmax()]:.4g} mm")
    values = np.stack([_rescaled(every[i]).T for i in order], -1)
    step = (places[order[-1]] - places[order[0]]) / (len(every) - 1)
    affine = np.eye(4)
    affine[:3] = np.stack([along * planes[0, 7], down * planes[0, 6], step, places[order[0]]], 1)
    return values, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM's axes run left, posterior and superior


def frames(file: Path) -> tuple[NDArray[np.uint8], list[float] | None]:
    """(frames, height, width) in the file's order, and the spacing of each axis in mm where the header tells it.

    Raises Unusable for colours and for fewer frames than the header promises.
    """
    data = _opened(file)
    if int(data.get("SamplesPerPixel") or 1) != 1:
        raise Unusable("colours, not one value a pixel")
    x = data.pixel_array
    x = x[None] if x.ndim == 2 else x
    if int(data.get("PixelRepresentation") or 0):
        raise Unusable("signed values, which are no reflectance")
    high = 2 ** int(data.BitsStored) - 1
    x = np.round(x.astype(np.float32).clip(0, high) * (255 / high)).astype(np.uint8)
    return 255 - x if data.get("PhotometricInterpretation") == "MONOCHROME1" else x, _spacing(data)


def _opened(file: Path, **how: Any) -> Any:
    try:
        from pydicom import dcmread
    except ImportError as e:
        raise DataError(f"DICOM is read by pydicom, not installed: {e}.", "pip install 'distpre[medical]'") from e
    return dcmread(file, **how)


def _said(header: Any, keyword: str) -> str:
    for word in (keyword, *ELSEWHERE.get(keyword, ())):
        for place in (header, *_shared(header)):
            if value := str(place.get(word) or "").strip():
                return value
    raise Unusable(f"no {keyword} in its header")


def _shared(header: Any) -> list[Any]:
    """What a header of many frames says once for all of them, in a sequence within a sequence."""
    groups = header.get("SharedFunctionalGroupsSequence") or []
    return [item for group in groups for element in group if element.VR == "SQ" for item in element.value]


def _spacing(data: Any) -> list[float] | None:
    for place in (data, *_shared(data)):
        between = place.get("SpacingBetweenSlices") or place.get("SliceThickness")
        if between and place.get("PixelSpacing"):
            return [float(between), *map(float, place.PixelSpacing)]
    return None


def _rescaled(s: Any) -> NDArray[np.float64]:
    return s.pixel_array * float(s.get("RescaleSlope", 1)) + float(s.get("RescaleIntercept", 0))
