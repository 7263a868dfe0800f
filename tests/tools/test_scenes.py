"""Made-up scenes: things on their floor, a teacher that errs as said, meshes of one part only; anchors of texts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distpre.anchors import Anchors
from distpre.data.source import Source
from distpre.errors import DataError
from tools.anchors import anchors, main
from tools.shard.scenes import SHAPES, write

FIELDS, IDS = {"scene": "npz"}, {"scene": "json.scene"}


def scenes(folder, split: str) -> list[dict[str, np.ndarray]]:
    source = Source.open(str(folder / f"{split}-000.tar"), FIELDS, IDS)
    return [source.sample(source.raw(i)).fields["scene"] for i in range(len(source))]


def test_things_stand_on_the_floor_and_the_teacher_errs_in_patches(tmp_path):
    assert write(str(tmp_path), train=8, test=4, points=1024, wrong=0.3).startswith("wrote 8 made-up scenes")
    made, texts = scenes(tmp_path, "train") + scenes(tmp_path, "test"), Anchors.read(tmp_path / "anchors.safetensors")
    assert texts.classes == ("floor", *SHAPES) and texts.vectors.shape == (6, 32)
    told, truth, points = (np.concatenate([s[name] for s in made]) for name in ("label", "truth", "points"))
    pixels = np.concatenate([s["pixels"] for s in made]).astype(np.float32)
    assert points.shape == (12 * 1024, 9) and points[:, 2].min() == 0 and points[truth > 0, 2].max() > 0.5
    assert (points[truth == 0, 2] == 0).all() and set(truth) == set(range(6))
    seen = told >= 0
    assert 0.1 < 1 - seen.mean() < 0.2 and not pixels[~seen].any()
    assert ((pixels @ texts.vectors.numpy().T).argmax(1) == told)[seen].mean() > 0.999
    wrong = seen & (told != truth)
    assert 0.25 < wrong.sum() / seen.sum() < 0.36
    assert ((told - truth) % 6 == 1)[wrong].mean() > 0.65  # a kind and the next
    assert len({s["points"].tobytes() for s in made}) == 12


@pytest.mark.parametrize("kind", SHAPES)
def test_a_shape_is_of_unit_size_and_its_normals_point_outwards(kind):
    surface = SHAPES[kind](np.random.default_rng(0), 4000)
    place, normal = surface[:, :3], surface[:, 3:]
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-9)
    assert np.abs(place).max() <= 0.5 + 1e-9 and np.ptp(place, axis=0).max() > 0.95
    if kind != "ring":  # convex: nothing lies before a surface's plane
        for p, n in zip(place[:50], normal[:50], strict=True):
            assert ((place - p) @ n).max() < 1e-6


def test_scenes_without_room_are_refused(tmp_path):
    with pytest.raises(DataError, match="17 things of 2048 points are no scene"):
        write(str(tmp_path), things=17)


def test_meshes_are_things_by_a_word_of_their_name_and_of_one_part(shared_data, tmp_path):
    folder, kinds = str(shared_data / "shapes_kenney_furniture"), ["chair", "tree"]
    write(str(tmp_path), train=6, test=4, points=512, things=4, meshes=folder, kinds=kinds, share=0.4)
    assert Anchors.read(tmp_path / "anchors.safetensors").classes == ("floor", "chair", "tree")
    assert set(np.concatenate([s["truth"] for s in scenes(tmp_path, "test")])) == {0, 1, 2}
    with pytest.raises(DataError, match="no mesh named zebra"):
        write(str(tmp_path / "none"), meshes=folder, kinds=["chair", "zebra"])


def test_an_anchor_is_the_mean_of_its_texts_as_unit_vectors():
    table = {text: F.normalize(torch.randn(8), dim=0) for text in ("a red box", "one red box", "a cat", "one cat")}
    made = anchors(lambda texts: 3 * torch.stack([table[t] for t in texts]), ["red box", "cat"], ["a {}", "one {}"])
    assert made.classes == ("red box", "cat")
    torch.testing.assert_close(made.vectors[0], F.normalize(table["a red box"] + table["one red box"], dim=0))
    for classes, templates, message in ((["cat"], ["a cat"], "no {}"), (["cat", "cat"], ["{}"], "no class twice")):
        with pytest.raises(DataError, match=message):
            anchors(lambda texts: torch.ones(len(texts), 8), classes, templates)


def test_a_file_of_classes_that_is_not_there_ends_with_status_2(tmp_path, capsys):
    out = str(tmp_path / "anchors.safetensors")
    assert main(["ViT-B-32", "none.pt", "--classes", str(tmp_path / "none.txt"), "--out", out]) == 2
    assert "none.txt cannot be read" in capsys.readouterr().err
