"""What --check says of activations against what a real forward pass keeps."""

import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from distpre.recipe import load, prepare
from distpre.runtime import build
from distpre.runtime.activations import activations
from tests.data.tars import tar

FOLDERS = "data.prepare.out={0}", "data.train.shards={0}/train-000.tar", "data.test.shards={0}/test-000.tar"


def prepared(recipe, folder, *overrides):
    recipe = load(recipe, [*(words.format(folder) for words in FOLDERS), *overrides])
    prepare(recipe, lambda text: None)
    build.source(recipe, "train", lambda text: None)  # builds the index
    return recipe


def kept_in_truth(recipe):
    """Bytes that a forward pass of the first micro-batch, on a CPU, saves beside the weights."""
    rows = recipe.train.batch // recipe.launch.workers.max // recipe.train.accumulation
    loader = build.loader(recipe, build.source(recipe, "train", print), build.views(recipe), batch=rows)
    batch, model = next(iter(loader.batches())), build.model(recipe)
    weights, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def pack(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return x

    views = batch.views | {name: batch.views[view] for name, view in model.taught.items()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        model.train()(views)
    return sum(storage.nbytes() for storage in kept.values())


def said(recipe):
    line = r"(?:tokens .*\n)?activations ([\d.]+) (\w+) a worker, of a micro-batch of ([\d,]+)"
    number, unit, rows = re.fullmatch(line, activations(recipe)).groups()
    return int(rows), float(number), {"KiB": 1024, "MiB": 1024**2}[unit]


def test_activations_are_those_of_a_real_forward_pass(tmp_path):
    for number, overrides in enumerate([(), ("train.accumulation=2",), ("teachers.ema={name: ema, momentum: 0.9}",)]):
        recipe = prepared("recipes/quickstart.yaml:small", tmp_path, "data.prepare.shards=1", *overrides)
        rows, number_said, unit = said(recipe)
        assert rows == (8 if "train.accumulation=2" in overrides else 16)
        assert abs(number_said * unit - kept_in_truth(recipe)) <= 0.06 * unit, number


def test_a_view_with_hidden_parts_has_the_shape_of_its_seen_ones(tmp_path):
    recipe = prepared("recipes/oct/octcube.yaml:small", tmp_path)
    rows, number, unit = said(recipe)
    assert rows == 8 and abs(number * unit - kept_in_truth(recipe)) <= 0.06 * unit


def test_tokens_are_what_encoders_attend_to(tmp_path):
    nowhere = f"data.train.shards={tmp_path}/nothing.tar"
    line = activations(load("recipes/quickstart.yaml:small", [nowhere])).splitlines()[0]
    assert line == "tokens 928 a step: 32 samples of image 17 + text 12"  # (32 / 8)^2 + 1, the context's length
    # a tenth of 4 x 8 x 8 tubelets and a fifth of 8 x 8, one more each; not the 256 of the decoder
    line = activations(load("recipes/oct/octcube.yaml:small", [nowhere, "data.train.shapes={oct: [12, 32, 32]}"]))
    assert line.splitlines()[0] == "tokens 328 a step: 8 samples of volume 27 + frame 14"


def test_without_shards_pictures_and_texts_are_made_up_and_arrays_by_their_shapes(tmp_path):
    nowhere = f"data.train.shards={tmp_path}/nothing.tar"
    assert said(load("recipes/quickstart.yaml:small", [nowhere]))[0] == 16
    octcube, shapes = "recipes/oct/octcube.yaml:small", "data.train.shapes"
    shape = {"there": activations(prepared(octcube, tmp_path))}
    for name, its in (("same", "{oct: [12, 32, 32]}"), ("none", "{}")):
        shape[name] = activations(load(octcube, [nowhere, f"{shapes}={its}"]))
    assert shape["same"] == shape["there"]
    assert shape["none"] == (
        "activations not told: what a .oct.npy is like shows when the shards are there. Write them first, or give its "
        "shape, as in data.train.shapes: {oct: [3, 300]}."
    )


@pytest.mark.parametrize(
    "recipe, shapes, told",
    [
        ("robust/par.yaml", "{image: [32, 32]}", "a tower does not take a sample of image (3, 32, 32), text (12,): "),
        ("motion/unimts.yaml", "{motion: [4, 3, 200]}", "st_gcn: 4 joints where `parents` names 5."),
        (
            "robust/par.yaml",
            "{image: {a: [16, 16]}}",
            "what a .png is like shows when the shards are there. Write them",
        ),
        (
            "scenes/clip2scene.yaml",
            "{scene: {label: [900]}}",
            "views.points.ops: ValueError: the scene has no 'points'",
        ),
        (
            "shapes/openshape.yaml",
            "{points: [2048, 9], text: {raw: [16]}, image: {other: [16]}}",
            "views.image.ops leave",
        ),
    ],
)
def test_a_sample_that_will_not_do_is_told_and_does_not_break(recipe, shapes, told, tmp_path):
    words = [f"data.train.shards={tmp_path}/nothing.tar", f"data.train.shapes={shapes}"]
    lines = activations(load(f"recipes/{recipe}:small", words)).splitlines()
    assert f"activations not told: {told}" in lines[0]


def test_stages_of_other_figures_have_lines_of_their_own(tmp_path):
    other = "{name: d, data.train.shapes: {image: [16, 16, 7]}}"
    each = f"{{name: a}}, {{name: b, train.batch: 8}}, {{name: c, data.train.where: {{digit: [3]}}}}, {other}"
    words = [f"data.train.shards={tmp_path}/nothing.tar", f"stages=[{each}]"]
    first, second, third = activations(load("recipes/quickstart.yaml:small", words)).splitlines()
    assert first.startswith("stage a, c: tokens 928 a step: 32 samples") and "; activations" in first
    assert second.startswith("stage b: tokens 232 a step: 8 samples") and second.endswith("a micro-batch of 4")
    assert third.startswith("stage d: activations not told: views.image.ops: ") and "data type: (1, 1, 7)" in third


def test_a_first_sample_that_lacks_a_field_or_is_damaged_is_passed_over(tmp_path):
    content = json.dumps({"eye": 0}).encode()
    picture, other = io.BytesIO(), io.BytesIO()
    Image.new("L", (32, 32)).save(picture, "png")
    np.save(other, np.zeros((12, 32, 32), np.uint8))
    members = [("0.oct.npy", b"no array"), ("0.json", content), ("1.oct.npy", other.getvalue()), ("1.json", content)]
    members += [("2.oct.npy", other.getvalue()), ("2.ir.png", picture.getvalue()), ("2.json", content)]
    shards = str(tar(tmp_path / "train-000.tar", members))
    words = ["data.prepare=null", f"data.train.shards={shards}", f"data.test.shards={shards}"]
    recipe = load("recipes/oct/octcube_ir.yaml:small", words)
    build.source(recipe, "train", lambda text: None)
    assert said(recipe)[0] == 8
