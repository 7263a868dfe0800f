"""NIfTI to shards: axes, spacing and values as asked, masks along, damage named."""

import json
from pathlib import Path

import numpy as np
import pytest

from distpre.data.source import Source
from distpre.errors import DataError
from tools.shard.volumes import Making, Volume, made, write

nibabel = pytest.importorskip("nibabel", reason="pip install 'distpre[medical]'")

IDS = r"(?P<participant>p\d+)_(?P<visit>\d)"
RAMP = np.arange(12 * 10 * 8, dtype=np.float32).reshape(12, 10, 8)


def nifti(path: Path, x: np.ndarray, axes: str = "RAS", spacing: tuple = (1.0, 1.0, 1.0)) -> Path:
    """x is in right-anterior-superior order; the file holds it in the order `axes`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(x, np.diag([*spacing, 1.0]))
    there = nibabel.orientations.axcodes2ornt("RAS")
    turn = nibabel.orientations.ornt_transform(there, nibabel.orientations.axcodes2ornt(tuple(axes)))
    nibabel.save(image.as_reoriented(turn), path)
    return path


def read(folder: Path, split: str = "train") -> list:
    names = sorted(map(str, folder.glob(f"{split}-*.tar")))
    return list(Source.open(names, {"x": "npy", "told": "json", "label": "label.npy"}).samples())


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SLA", "PIR"])
def test_axes_run_right_anterior_superior_whatever_the_files_do(tmp_path, axes):
    x, label = made(Volume(nifti(tmp_path / "a.nii.gz", RAMP, axes), Making(window=(0, 960))))
    assert label is None and x.dtype == np.float32
    np.testing.assert_allclose(x[0] * 960, RAMP, rtol=1e-5)


def test_windows_clip_and_without_one_values_are_standardised(tmp_path):
    path = nifti(tmp_path / "ct.nii.gz", RAMP - 500)
    x, _ = made(Volume(path, Making(window=(-100, 300))))
    np.testing.assert_allclose(x[0], ((RAMP - 500 + 100) / 400).clip(0, 1), atol=1e-6)
    z, _ = made(Volume(path, Making()))
    assert z.mean() == pytest.approx(0, abs=1e-5) and z.std() == pytest.approx(1, rel=1e-5)


def test_spacing_keeps_the_extent_and_where_things_are(tmp_path):
    """A ball of 10 mm about a place, sampled unevenly, is that ball on an even grid; its mask likewise."""
    places = [(np.arange(n) + 0.5) * s for n, s in ((40, 1.0), (40, 1.0), (10, 4.0))]
    far = np.sqrt(sum((p - c) ** 2 for p, c in zip(np.meshgrid(*places, indexing="ij"), (18, 22, 20), strict=True)))
    nifti(tmp_path / "in" / "p1_1.nii.gz", far.astype(np.float32), spacing=(1.0, 1.0, 4.0))
    mask = nifti(tmp_path / "mask" / "p1_1.nii.gz", (far < 10).astype(np.uint8), spacing=(1.0, 1.0, 4.0))
    making = Making(spacing=(2.0, 2.0, 2.0), window=(0, 40), labels=(f"{tmp_path}/in", f"{tmp_path}/mask"))
    x, label = made(Volume(tmp_path / "in" / "p1_1.nii.gz", making))
    assert x.shape == (1, 20, 20, 20) and label.shape == (20, 20, 20) and label.dtype == np.uint8 and mask.exists()
    even = (np.arange(20) + 0.5) * 2
    grid = np.meshgrid(even, even, even, indexing="ij")
    there = np.stack([g[label == 1].mean() for g in grid])
    np.testing.assert_allclose(there, (18, 22, 20), atol=0.7)
    nearest = np.unravel_index(x[0].argmin(), x[0].shape)
    np.testing.assert_allclose([even[i] for i in nearest], (18, 22, 20), atol=3)
    assert label.sum() * 8 == pytest.approx(4 / 3 * np.pi * 1000, rel=0.12)


def test_participants_do_not_cross_the_split_and_the_damaged_are_named(tmp_path):
    rng = np.random.default_rng(0)
    for p in range(10):
        for visit in range(2):
            x = rng.normal(size=(6, 6, 6)).astype(np.float32)
            nifti(tmp_path / f"in/images/p{p}_{visit}.nii.gz", x)
            nifti(tmp_path / f"in/labels/p{p}_{visit}.nii.gz", (x > 0).astype(np.uint8))
    broken = {
        "p20_0": np.full((6, 6, 6), np.nan, np.float32),
        "p21_0": np.ones((6, 6, 6), np.float32),
        "p22_0": RAMP,
        "p23_0": np.ones((6, 6, 6, 2), np.float32),
        "p24_0": rng.normal(size=(3, 6, 6)).astype(np.float32),
    }
    for name, x in broken.items():
        nifti(tmp_path / f"in/images/{name}.nii.gz", x)
        nifti(tmp_path / f"in/labels/{name}.nii.gz", np.ones(x.shape[:3] if name != "p22_0" else (6, 6, 6), np.uint8))
    (tmp_path / "in/images/p25_0.nii.gz").write_bytes(b"no gzip")
    nifti(tmp_path / "in/images/p26_0.nii.gz", RAMP)
    out, making = tmp_path / "out", Making(least=4, labels=("images/", "labels/"))
    said = write(tmp_path / "in", out, "images/" + IDS, making, share=0.4, shard_samples=7, workers=2)
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    reasons = {line["file"][7:12]: line["reason"] for line in lines}
    assert reasons.pop("p25_0").startswith("cannot be read: ")
    assert reasons == {
        "p20_0": "values that are not finite",
        "p21_0": "one value all through",
        "p22_0": "its mask (6, 6, 6) lies elsewhere than the volume (12, 10, 8)",
        "p23_0": "4 axes, not three",
        "p24_0": "3 x 6 x 6 voxels, fewer than 4 along an axis",
        "p26_0": "no mask p26_0.nii.gz",
    }
    sides = [{s.fields["told"]["participant"] for s in read(out, part)} for part in ("train", "test")]
    assert sides[0] and sides[1] and not sides[0] & sides[1] and len(sides[0] | sides[1]) == 10 and "7 left out" in said
    for s in read(out):
        x, label = s.fields["x"][0], s.fields["label"]
        assert ((x > x[label == 0].max()) == label).all()
    with pytest.raises(DataError, match="has no participant"):
        write(tmp_path / "in", out, "images", making)


def test_real_scans_and_masks_are_read(shared_data, tmp_path):
    source = shared_data / "mri_hippocampus"
    ids = r"images/.*(?P<participant>hippocampus_00\d)\.nii"
    making = Making(spacing=(1.0, 1.0, 1.0), labels=("/images/", "/labels/"))
    if not (source / "images").is_dir():
        source = next(p.parent for p in source.rglob("images"))
    write(source, tmp_path, ids, making)
    every = read(tmp_path)
    assert len(every) > 1
    for s in every:
        assert s.fields["x"].shape[1:] == s.fields["label"].shape and set(np.unique(s.fields["label"])) == {0, 1, 2}
