"""Recipes at their full size, without shards: what `--check` says of a step."""

import re

import pytest
import torch

from distpre.anchors import Anchors
from distpre.recipe import load
from distpre.runtime.activations import activations
from distpre.runtime.plan import plan

# What only their users have: a language model's folder and its words, and texts' vectors.
LACKS = {
    "biosignals/more.yaml": [
        "towers.report.encoder={name: transformers_text, config: {model_type: roberta}}",
        "views.report.ops=[{name: tokenize, tokenizer: {name: open_clip, context_length: 512}}]",
    ]
}
# Tokens that a sample has in each view, by arithmetic; [] where nothing attends.
TOKENS = {
    "biosignals/ppg.yaml": [],
    "biosignals/ecg.yaml": [],
    "biosignals/comet.yaml": [],
    "biosignals/more.yaml": [14 * 14 + 1, 197, 512],  # 224 / 16; as many of the ECG by its stem; the context
    "motion/unimts.yaml": [77],
    "oct/octcube.yaml": [512 + 1, 205 + 1],  # a tenth of 20 x 16 x 16, a fifth of 32 x 32
    "oct/octcube_ir.yaml": [18 * 16 * 16 + 1, 14 * 14 + 1],
    "oct/octcube_ef.yaml": [20 * 16 * 24 + 1, 24 * 24 + 1, 24 * 24 + 1],
    "scenes/clip2scene.yaml": [],
    "shapes/openshape.yaml": [384 + 1],
    "volumes/voco.yaml": [],
    "volumes/image_volume.yaml": [64, 64],
}


@pytest.mark.parametrize("recipe", TOKENS)
def test_a_step_of_the_full_size_is_told(recipe, tmp_path, monkeypatch):
    source = f"{__file__.partition('/tests/')[0]}/recipes/{recipe}"
    monkeypatch.chdir(tmp_path)
    Anchors(torch.eye(16, 512), tuple(map(str, range(16)))).write("runs/data/scans/anchors.safetensors")
    loaded = load(source, LACKS.get(recipe, []))
    sizes = plan(loaded)
    assert (
        re.search(r"tower \w+ +[\d,]{7,} parameters", sizes) and "memory a worker" in sizes and "moved a step" in sizes
    )
    told = activations(loaded).rpartition("stage ")[2]  # the last one's
    assert re.search(r"activations [\d.]+ [MG]iB a worker", told)
    said = re.search(r"tokens ([\d,]+) a step: ([\d,]+) samples of (.*?)(?:;|$)", told, re.M)
    tokens = re.findall(r" ([\d,]+)(?= \+|$)", said[3]) if said else []
    assert [int(n.replace(",", "")) for n in tokens] == TOKENS[recipe]
