"""Volumes of people (CT, MRI) from NIfTI and DICOM -> shards of {npy, json}, and label.npy with --labels.

SOURCE is a folder of .nii and .nii.gz, and of folders that hold the slices of one DICOM series each. --ids is a regular
expression on a file's path below it, whose named groups (participant, and any of visit, eye ...) go into json; files
that it does not match are passed over; slices of one folder for which it says different ids are of different volumes.
--header takes ids from DICOM headers. npy is (1, x, y, z) float32 with axes that run right, anterior and superior (the
closest of the file's own, nothing is turned), in DICOM's rescaled values (CT: Hounsfield units), at --spacing where
that is given, its values by --window or standardised. --labels finds the mask of a volume by replacing a part of its
path, which for DICOM is the folder's; label.npy is (x, y, z) uint8 of the same places. OUT holds dataset.json and
quarantine.jsonl, a line with the reason for every volume that was left out.
"""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distpre.errors import DataError
from tools.shard import dicom, people, spread
from tools.shard.spread import Workers
from tools.shard.writer import Members, Unusable, counted

SUFFIXES = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Making:
    """How files become volumes. spacing: mm along each axis; window: values from low to high become 0 to 1, in CT
    Hounsfield units; None standardises. least: voxels along the shortest axis. labels: (part of the path, what to put
    in its place) that leads to the mask.
    """

    spacing: tuple[float, float, float] | None = None
    window: tuple[float, float] | None = None
    least: int = 1
    labels: tuple[str, str] | None = None


@dataclass(frozen=True)
class Volume:
    """file: NIfTI, or the folder of the DICOM slices."""

    file: Path
    making: Making
    facts: dict[str, Any] = field(default_factory=dict)
    slices: tuple[Path, ...] = ()


def made(volume: Volume) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    """(1, x, y, z), and (x, y, z) labels. Raises Unusable, and what nibabel and pydicom raise of a damaged file."""
    making = volume.making
    x, spacing, affine = _read(volume.file, volume.slices)
    if not np.isfinite(x).all():
        raise Unusable("values that are not finite")
    label = None
    if making.labels:
        mask = Path(str(volume.file).replace(*making.labels))
        if mask == volume.file or not mask.exists():
            raise Unusable(f"no mask {mask.name}")
        label, _, where = _read(mask)
        if label.shape != x.shape or not np.allclose(where, affine, atol=1e-3):
            raise Unusable(f"its mask {label.shape} lies elsewhere than the volume {x.shape}")
    if making.spacing:
        factors = [have / wanted for have, wanted in zip(spacing, making.spacing, strict=True)]
        x = _resampled(x, factors, order=1)
        label = None if label is None else _resampled(label, factors, order=0)
    if min(x.shape) < making.least:
        raise Unusable(f"{' x '.join(map(str, x.shape))} voxels, fewer than {making.least} along an axis")
    if np.ptp(x) == 0:
        raise Unusable("one value all through")
    if making.window:
        low, high = making.window
        x = ((x - low) / (high - low)).clip(0, 1)
    else:
        x = (x - x.mean()) / x.std()
    return x[None].astype(np.float32), None if label is None else label.round().astype(np.uint8)


def _read(file: Path, slices: tuple[Path, ...] = ()) -> tuple[NDArray[np.float64], tuple[float, ...], NDArray]:
    """Values, spacing in mm and affine, in right-anterior-superior order; a last axis of one is dropped.

    A folder without named slices holds one DICOM series.
    """
    try:
        import nibabel
    except ImportError as e:
        raise DataError(f"NIfTI is read by nibabel, not installed: {e}.", "pip install 'distpre[medical]'") from e
    if slices or file.is_dir():
        image = nibabel.Nifti1Image(*dicom.series(slices or sorted(filter(dicom.is_dicom, file.iterdir()))))
    else:
        image = nibabel.squeeze_image(nibabel.load(file))
    image = nibabel.as_closest_canonical(image)
    if len(image.shape) != 3:
        raise Unusable(f"{len(image.shape)} axes, not three")
    return image.get_fdata(), image.header.get_zooms()[:3], image.affine


def _resampled(x: NDArray, factors: list[float], order: int) -> NDArray:
    """Corners stay corners: voxels are cells, not points. An axis that is made coarser is smoothed first."""
    from scipy.ndimage import gaussian_filter, zoom

    if order:
        x = gaussian_filter(x, [max(0.0, (1 / f - 1) / 2) for f in factors])
    return zoom(x, factors, order=order, mode="nearest", grid_mode=True)


def members(volume: Volume) -> Members:
    x, label = made(volume)
    out = {"npy": _bytes(x), "json": json.dumps(volume.facts, ensure_ascii=False).encode()}
    return out if label is None else {**out, "label.npy": _bytes(label)}


def _bytes(x: NDArray) -> bytes:
    content = io.BytesIO()
    np.save(content, x)
    return content.getvalue()


def write(
    source: str | Path,
    out: str | Path,
    ids: str,
    making: Making,
    *,
    header: dict[str, str] | None = None,
    share: float = 0.0,
    facts: people.Facts | None = None,
    shard_samples: int = 100,
    workers: Workers = 1,
) -> str:
    """Writes train-*.tar and test-*.tar; returns a summary line. Raises DataError where nothing can be used."""
    source, header = Path(source), header or {}
    files = people.matched(source, ids, _wanted, header)
    scans = counted(iter(people.together(files, dicom.is_dicom)), f"{source} (files that --ids matches)")
    every, left = people.told(scans, source, header, facts)
    volumes = [Volume(s.name, making, known, s.files if dicom.is_dicom(s.files[0]) else ()) for s, known in every]
    options = {"ids": ids, "header": header, **asdict(making)}
    how = {"share": share, "shard_samples": shard_samples, "workers": workers}
    return people.write(volumes, made, members, out, options, what="volumes", left=left, **how)


def _wanted(file: Path) -> bool:
    return file.name.lower().endswith(SUFFIXES) or dicom.is_dicom(file)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="the folder of volumes")
    parser.add_argument("--out", required=True, help="folder of the shards")
    people.add_arguments(parser, header=True)
    parser.add_argument("--spacing", type=float, nargs=3, metavar=("X", "Y", "Z"), help="mm (default: each its own)")
    parser.add_argument("--window", type=float, nargs=2, metavar=("LOW", "HIGH"), help="become 0 and 1 (HU for CT)")
    parser.add_argument("--least", type=int, default=1, help="voxels along the shortest axis (default 1)")
    parser.add_argument("--labels", nargs=2, metavar=("PART", "INSTEAD"), help="of a path, to find the mask")
    parser.add_argument("--shard-samples", type=int, default=100, help="volumes of a shard (default 100)")
    spread.add_argument(parser)


def run(a: argparse.Namespace) -> str:
    spacing, window, labels = (tuple(x) if x else None for x in (a.spacing, a.window, a.labels))
    return write(
        a.source,
        a.out,
        a.ids,
        Making(spacing, window, a.least, labels),
        header=dict(a.header),
        share=a.held_out,
        facts=people.facts(a.facts, a.facts_id),
        shard_samples=a.shard_samples,
        workers=a.workers,
    )
