"""DICOM, TIFF and pictures to shards: slices where they lie, frames as they were taken, eyes named, damage too."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distpre.data.source import Source
from distpre.errors import DataError
from tools.shard import dicom, volumes
from tools.shard import oct as scans
from tools.shard.__main__ import main

pydicom = pytest.importorskip("pydicom", reason="pip install 'distpre[medical]'")

CT, OCT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.77.1.5.4"
RAMP = 2 * np.arange(6 * 5 * 4).reshape(6, 5, 4)  # x (right), y (anterior), z (superior)


def file(path: Path, pixels: np.ndarray, kind: str, bits: int = 16, **header) -> Path:
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = kind
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = pydicom.uid.generate_uid()
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = (8, 8, 7) if bits == 8 else (16, bits, bits - 1)
    if pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    for name, value in header.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.PixelData = np.ascontiguousarray(pixels, np.uint8 if bits == 8 else np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def series(folder: Path, ras: np.ndarray = RAMP, plane: str = "axial", uid: str = "1.2.3", **header) -> Path:
    """A RAS volume of even values as slices 3 mm apart, pixels of 2 mm along a row and 1.5 mm down, names in no order.

    Every other slice holds half of the values and a slope of two.
    """
    lps = ras[::-1, ::-1]
    directions, step, stack = {
        "axial": ([1, 0, 0, 0, 1, 0], (0, 0, 3), lps.transpose(2, 1, 0)),
        "coronal": ([1, 0, 0, 0, 0, -1], (0, 3, 0), lps[:, :, ::-1].transpose(1, 2, 0)),
    }[plane]
    for i, pixels in enumerate(stack):
        own = {"ImagePositionPatient": [s * i + 7 for s in step], "RescaleSlope": 1 + i % 2, "RescaleIntercept": -1000}
        common = {"SeriesInstanceUID": uid, "ImageOrientationPatient": directions, "PixelSpacing": [1.5, 2.0]}
        file(folder / f"{i * 7 % 11:02d}.dcm", pixels // (1 + i % 2), CT, **{**common, **own, **header})
    return folder


def volume(folder: Path, **making) -> np.ndarray:
    its = volumes.Volume(folder, volumes.Making(window=(-1000, 0), **making), {}, tuple(sorted(folder.iterdir())))
    return volumes.made(its)[0][0]


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_slices_in_any_plane_and_order_become_one_volume_in_hounsfield_units(tmp_path, plane):
    np.testing.assert_allclose(volume(series(tmp_path, plane=plane)) * 1000, RAMP, atol=1e-3)


@pytest.mark.parametrize(("plane", "extent"), [("axial", (12, 7.5, 12)), ("coronal", (12, 15, 6))])
def test_spacing_is_that_of_rows_columns_and_slices(tmp_path, plane, extent):
    """RAMP is 6 x 5 x 4 voxels: x lies along rows, 2 mm each; the others down columns or from slice to slice."""
    x = volume(series(tmp_path, plane=plane), spacing=(1.5, 1.5, 1.5))
    assert x.shape == tuple(round(e / 1.5) for e in extent)


def test_a_mask_may_be_a_series_of_its_own(tmp_path):
    series(tmp_path / "scan/p1", RAMP)
    series(tmp_path / "mask/p1", RAMP // 60 * 2, RescaleSlope=1, RescaleIntercept=0)
    making = volumes.Making(labels=("/scan/", "/mask/"))
    slices = tuple(sorted((tmp_path / "scan/p1").iterdir()))
    _, label = volumes.made(volumes.Volume(tmp_path / "scan/p1", making, {}, slices))
    assert ((label > 0) == (RAMP >= 60)).all()


def test_series_are_split_by_participant_and_the_damaged_are_named(tmp_path, monkeypatch, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    for p in range(8):
        series(source / f"{p}/a", uid=f"1.{p}", PatientID=f"P{p}", StudyDate=f"2020010{p}")
    for name, header in {"nobody": {}, "empty": {"PatientID": ""}}.items():
        series(source / name, StudyDate="20200101", **header)
    every = {"PatientID": "Q", "StudyDate": "20200101"}
    (next(series(source / "gap", **every).glob("07.dcm"))).unlink()
    series(source / "mixed", uid="1.9.1", **every)
    file(source / "mixed/b.dcm", RAMP[:, :, 0].T, CT, SeriesInstanceUID="1.9.2", PixelSpacing=[1, 1], **every,
         ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])  # fmt: skip
    (source / "twice").mkdir()
    for name in ("a", "b"):
        slice_ = series(tmp_path / "spare", **every) / "00.dcm"
        slice_.rename(source / f"twice/{name}.dcm")
    series(source / "flat", np.full((6, 5, 4), 8), RescaleSlope=0, **every)
    series(source / "thin", RAMP[:, :, :2], **every)
    (series(source / "cut", **every) / "00.dcm").write_bytes(b"no DICOM")
    file(source / "whole/a.dcm", RAMP[:3], CT, **every)
    argv = f"shard volumes {source} --out {out} --header participant=PatientID visit=StudyDate --window -1000 0"
    monkeypatch.setattr(sys, "argv", [*argv.split(), "--held-out", "0.4", "--least", "3"])
    assert main() == 0 and "9 left out" in capsys.readouterr().out
    reasons = {line["file"]: line["reason"] for line in map(json.loads, (out / "quarantine.jsonl").open())}
    assert reasons.pop("cut").startswith("cannot be read: InvalidDicomError")
    assert reasons == {
        "nobody": "no PatientID in its header",
        "empty": "no PatientID in its header",
        "gap": "slices 4.5 mm apart, and once 6 mm",
        "mixed": "2 series in one folder",
        "twice": "two slices at one place",
        "flat": "one value all through",
        "thin": "6 x 5 x 2 voxels, fewer than 3 along an axis",
        "whole": "many frames in one file, which `python -m tools.shard oct` reads",
    }
    told = {split: [s.fields["told"] for s in read(out, "npy", split)] for split in ("train", "test")}
    sides = [{t["participant"] for t in its} for its in told.values()]
    assert all(sides) and sorted(sides[0] | sides[1]) == [f"P{p}" for p in range(8)] and not sides[0] & sides[1]
    assert {t["file"]: t["visit"] for its in told.values() for t in its}["3/a"] == "20200103"
    made_how = json.loads((out / "dataset.json").read_text())
    assert made_how["header"] == {"participant": "PatientID", "visit": "StudyDate"} and made_how["least"] == 3


def read(folder: Path, member: str, split: str = "train") -> list:
    names = sorted(map(str, folder.glob(f"{split}-*.tar")))
    return list(Source.open(names, {"x": member, "told": "json", "ir": "ir.png"}, optional=["ir"]).samples())


def test_slices_without_a_suffix_and_people_of_one_folder_are_told_apart(tmp_path):
    for p in ("a", "b"):
        for slice_ in series(tmp_path / p).iterdir():
            slice_.rename(tmp_path / f"{p}_{slice_.stem}")
    (tmp_path / "README").write_text("not DICOM")
    said = volumes.write(tmp_path, tmp_path / "out", r"(?P<participant>[ab])_", volumes.Making(window=(-1000, 0)))
    assert said.startswith("wrote 2 volumes")
    for s in read(tmp_path / "out", "npy"):
        np.testing.assert_allclose(s.fields["x"][0] * 1000, RAMP, atol=1e-3)


def stack(n: int = 5, high: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, (n, 12, 10))


def shared(**groups) -> list:
    """What a header says of all frames."""
    item = pydicom.Dataset()
    for sequence, header in groups.items():
        inner = pydicom.Dataset()
        for name, value in header.items():
            setattr(inner, name, value)
        setattr(item, sequence, [inner])
    return [item]


def test_frames_of_oct_keep_their_order_with_eye_and_spacing(tmp_path):
    eye = shared(
        FrameAnatomySequence={"FrameLaterality": "L"},
        PixelMeasuresSequence={"PixelSpacing": [0.004, 0.011], "SliceThickness": 0.12},
    )
    who = {"PatientID": "7", "StudyDate": "20210203"}
    file(tmp_path / "in/a.dcm", stack(), OCT, bits=8, SharedFunctionalGroupsSequence=eye, **who)
    dark = {"PhotometricInterpretation": "MONOCHROME1"}
    file(tmp_path / "in/b.dcm", 4095 - stack(high=4096), OCT, bits=12, ImageLaterality="R", **who, **dark)
    Image.fromarray(np.full((9, 9), 3, np.uint8)).save(tmp_path / "in/b_ir.bmp")
    header = {"participant": "PatientID", "eye": "PatientID+StudyDate+Laterality"}
    making = scans.Making(beside=(("ir", ".dcm", "_ir.bmp"),))
    scans.write(tmp_path / "in", tmp_path / "out", "", making, header=header)
    left, right = read(tmp_path / "out", "oct.npy")
    assert left.fields["x"].dtype == np.uint8 and (left.fields["x"] == stack()).all() and "ir" not in left.fields
    assert left.fields["told"]["eye"] == "7-20210203-L" and left.fields["told"]["spacing"] == [0.12, 0.004, 0.011]
    np.testing.assert_allclose(right.fields["x"], stack(high=4096) * 255 / 4095, atol=0.51)
    assert right.fields["told"]["eye"] == "7-20210203-R" and "spacing" not in right.fields["told"]
    assert (np.asarray(right.fields["ir"]) == 3).all()


def test_pages_and_pictures_are_frames_too(tmp_path):
    x = stack(12).astype(np.uint8)
    pages = [Image.fromarray(frame) for frame in x]
    pages[0].save(tmp_path / "p1.tif", save_all=True, append_images=pages[1:])
    for i, page in enumerate(pages):
        (tmp_path / "p2").mkdir(exist_ok=True)
        page.convert("RGB").save(tmp_path / f"p2/b{i}.png")
    scans.write(tmp_path, tmp_path / "out", r"(?P<participant>p\d)", scans.Making(stack=True))
    every = read(tmp_path / "out", "oct.npy")
    assert [s.fields["told"]["file"] for s in every] == ["p1.tif", "p2"]
    assert all((s.fields["x"] == x).all() for s in every)


def test_scans_that_are_damaged_flat_or_short_are_named(tmp_path):
    who = {"PatientID": "7"}
    blank = stack()
    blank[3] = 9
    file(tmp_path / "blank.dcm", blank, OCT, bits=8, **who)
    file(tmp_path / "short.dcm", stack(2), OCT, bits=8, **who)
    file(tmp_path / "fewer.dcm", stack(), OCT, bits=8, NumberOfFrames=9, **who)
    file(tmp_path / "good.dcm", stack(), OCT, bits=8, **who)
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(stack()[0].astype(np.uint8)).save(tmp_path / "nobody.png")
    header = {"participant": "PatientID"}
    scans.write(tmp_path, tmp_path / "out", "(?P<participant>float)?", scans.Making(least=3), header=header)
    reasons = {line["file"]: line["reason"] for line in map(json.loads, (tmp_path / "out/quarantine.jsonl").open())}
    assert reasons.pop("fewer.dcm").startswith("cannot be read: ")
    assert reasons == {
        "blank.dcm": "1 of 5 B-scans hold one value, the first of them number 3",
        "short.dcm": "2 B-scans, fewer than 3",
        "float.tif": "pixels of the mode F, neither 8 nor 16 whole bits",
        "nobody.png": "no participant in its path, and no DICOM header",
    }
    with pytest.raises(DataError, match="none of 1 OCT scans can be used; the first: blank.dcm"):
        scans.write(tmp_path, tmp_path / "o", "blank", scans.Making(), header=header)


def test_real_b_scans_are_held_out_by_patient(shared_data, tmp_path):
    ids = r"(?P<diagnosis>[A-Z]+)-(?P<participant>\d+)-\d+"
    said = scans.write(shared_data / "oct_bscans", tmp_path, ids, scans.Making(), share=0.3)
    train, test = (read(tmp_path, "oct.npy", split) for split in ("train", "test"))
    assert said.startswith(f"wrote {len(train)} OCT scans") and len(train) + len(test) == 47
    people, held = ({s.fields["told"]["participant"] for s in part} for part in (train, test))
    assert not people & held and len(people | held) == 43
    assert {s.fields["x"].shape[:2] for s in train} == {(1, 496)} and "CNV" in {
        s.fields["told"]["diagnosis"] for s in train
    }


def test_a_file_named_by_its_uid_is_known_by_its_letters(tmp_path):
    for name, is_one in (
        ("1.2.840.113619.2.55.3", True),
        ("IM0001", True),
        ("a.dcm", True),
        ("a.nii", False),
        ("1.2", False),
    ):
        (tmp_path / name).write_bytes(b"\0" * 128 + (b"DICM" if name != "1.2" else b"text"))
        assert dicom.is_dicom(tmp_path / name) is is_one
