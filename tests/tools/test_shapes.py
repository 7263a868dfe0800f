"""Meshes and point files to shards: even over the surface, upright, coloured, and damage named."""

import json
from pathlib import Path

import numpy as np
import pytest

from distpre.data.source import Source
from distpre.errors import DataError
from tools.shard.shapes import NO_COLOUR, Shape, sampled, words, write

trimesh = pytest.importorskip("trimesh", reason="pip install 'distpre[shapes]'")


def shape(folder: Path, file: str, **changed) -> Shape:
    return Shape(folder, file, **({"points": 4000, "up": "z", "template": "{}"} | changed))


def read(folder: Path, split: str = "train") -> list:
    source = Source.open(sorted(map(str, folder.glob(f"{split}-*.tar"))), {"x": "npy", "told": "json", "said": "txt"})
    return [(s.fields["x"], s.fields["told"], s.fields["said"]) for s in source.samples()]


@pytest.mark.parametrize("suffix", ["obj", "glb", "ply", "off", "stl"])
def test_every_format_gives_points_spread_by_area_with_outward_normals(tmp_path, suffix):
    trimesh.creation.box((4, 2, 1)).export(tmp_path / f"box.{suffix}")
    x = sampled(shape(tmp_path, f"box.{suffix}"))
    assert x.shape == (4000, 9) and x.dtype == np.float32
    side = np.abs(x[:, :3] / [2, 1, 0.5]).argmax(1)
    np.testing.assert_allclose(np.abs(x[:, :3] / [2, 1, 0.5]).max(1), 1, rtol=1e-5)  # on the surface
    shares = np.bincount(side) / 4000
    np.testing.assert_allclose(shares, np.array([2 * 2, 4 * 2, 8 * 2]) / 28, atol=0.04)
    np.testing.assert_allclose((x[:, 3:6] * np.sign(x[:, :3]))[np.arange(4000), side], 1, atol=1e-5)
    np.testing.assert_allclose(x[:, 6:], NO_COLOUR, atol=1e-6)
    assert (sampled(shape(tmp_path, f"box.{suffix}")) == x).all()


def test_colours_are_the_faces_the_materials_and_the_points_own(tmp_path):
    box = trimesh.creation.box((1, 1, 1))
    box.visual.face_colors = [[255, 0, 0, 255]] * 6 + [[0, 0, 255, 255]] * 6
    box.export(tmp_path / "faces.ply")
    seen = sampled(shape(tmp_path, "faces.ply"))[:, 6:]
    assert set(map(tuple, seen)) == {(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)}
    parts = trimesh.Scene()
    for i, colour in enumerate([[255, 128, 0, 255], [0, 255, 0, 255]]):
        part = trimesh.creation.box((1, 1, 1))
        part.visual = trimesh.visual.TextureVisuals(
            material=trimesh.visual.material.PBRMaterial(baseColorFactor=colour)
        )
        parts.add_geometry(part, transform=trimesh.transformations.translation_matrix([3 * i, 0, 0]))
    parts.export(tmp_path / "materials.glb")
    x = sampled(shape(tmp_path, "materials.glb"))
    left = x[:, 0] < 1.5
    np.testing.assert_allclose(x[left, 6:], [[1, 128 / 255, 0]] * left.sum(), atol=0.01)
    np.testing.assert_allclose(x[~left, 6:], [[0, 1, 0]] * (~left).sum(), atol=0.01)
    assert left.mean() == pytest.approx(0.5, abs=0.05) and x[:, 0].max() == pytest.approx(3.5, abs=0.01)
    places = np.random.default_rng(0).normal(size=(50, 3))
    trimesh.PointCloud(places, colors=np.tile([0, 51, 255, 255], (50, 1))).export(tmp_path / "cloud.ply")
    cloud = sampled(shape(tmp_path, "cloud.ply", points=40))
    assert len(np.unique(cloud[:, 0])) == 40 and (cloud[:, 3:6] == 0).all()
    np.testing.assert_allclose(cloud[:, 6:], [[0, 0.2, 1]] * 40, atol=1e-6)


def test_up_is_z_in_the_shard(tmp_path):
    trimesh.creation.box((1, 4, 2)).export(tmp_path / "tall.obj")
    for up, extent in (("y", [1, 2, 4]), ("z", [1, 4, 2])):
        x = sampled(shape(tmp_path, "tall.obj", up=up))
        np.testing.assert_allclose(np.ptp(x[:, :3], axis=0), extent, rtol=0.02)
        side = np.abs(x[:, :3] / np.array(extent)).argmax(1)
        np.testing.assert_allclose((x[:, 3:6] * np.sign(x[:, :3]))[np.arange(4000), side], 1, atol=1e-5)


def test_names_are_words():
    assert (
        words("bathroomCabinet_A") == "bathroom cabinet a"
        and words("building-A_withoutBase2") == "building a without base 2"
    )


def test_names_do_not_cross_the_split_and_the_damaged_are_named(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        for i in range(20):
            trimesh.creation.box((1 + i, 1, 1)).export(tmp_path / "in" / folder / f"box{i}.obj")
    (tmp_path / "in" / "cut.glb").write_bytes(b"glTF\x02")
    (tmp_path / "in" / "flat.off").write_text("OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n")
    said = write(tmp_path / "in", tmp_path / "out", points=64, share=0.4, template="a {}", shard_samples=8, workers=2)
    sides = [{(told["name"], told["folder"]) for _, told, _ in read(tmp_path / "out", s)} for s in ("train", "test")]
    assert len(sides[0] | sides[1]) == 40 and sides[0] and sides[1]
    assert not {name for name, _ in sides[0]} & {name for name, _ in sides[1]}
    assert all(said == f"a {told['name']}" and x.shape == (64, 9) for x, told, said in read(tmp_path / "out"))
    lines = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert {line["file"] for line in lines} == {"cut.glb", "flat.off"} and "2 left out" in said
    with pytest.raises(DataError, match="has no {}"):
        write(tmp_path / "in", tmp_path / "other", template="a shape")


def test_real_models_are_read(shared_data, tmp_path):
    assert "; 0 left out" in write(shared_data / "shapes_kenney_furniture", tmp_path / "out", points=128)
    every = read(tmp_path / "out")
    assert len(every) == 149 and len({tuple(x[0, 6:]) for x, _, _ in every}) > 10  # in colours


def test_a_class_is_the_first_of_the_words_that_the_name_has(tmp_path):
    for name in ("chairA", "wheel_chair", "armchair"):
        trimesh.creation.box((1, 2, 3)).export(tmp_path / f"{name}.ply")
    write(tmp_path, tmp_path / "out", points=8, classes=("wheel", "chair"))
    assert {told["name"]: told["class"] for _, told, _ in read(tmp_path / "out")} == {
        "chair a": 1,
        "wheel chair": 0,
        "armchair": -1,
    }
