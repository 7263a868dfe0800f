"""Shards with a run's embeddings in them: the samples as they were, and what the run's own evaluation sees of them."""

import numpy as np
import torch

from distpre.data.source import Source
from distpre.recipe import load
from distpre.runtime import build
from tools import embed as tool
from tools.shard.digits import write


def test_samples_stay_and_gain_the_towers_vectors(tmp_path, monkeypatch):
    write(str(tmp_path), held_out=0.9, shards=1)
    shard = str(tmp_path / "train-000.tar")
    recipe = load("recipes/quickstart.yaml:small", [f"data.train.shards={shard}", "data.workers=0", "launch.workers=1"])
    model = build.model(recipe)
    monkeypatch.setattr(tool, "trained", lambda run, note: (recipe, model, 7))
    said = tool.embed("a-run", shard, tmp_path / "out", ["image", "text"])
    fields = {"image": "png", "text": "txt", "json": "json"}
    before = list(Source.open(shard, fields).samples())
    after = list(
        Source.open(str(tmp_path / "out/train-000.tar"), fields | {"x": "image.npy", "y": "text.npy"}).samples()
    )
    assert len(before) == len(after) and "of step 7" in said
    views = build.views(recipe)
    for i in (0, 5, len(before) - 1):
        assert (
            before[i].fields["text"] == after[i].fields["text"] and before[i].fields["json"] == after[i].fields["json"]
        )
        for view, name in (("image", "x"), ("text", "y")):
            value = torch.as_tensor(views[view].evaluation(before[i].fields[view]))[None]
            with torch.no_grad():
                vector = model({view: value})[0][view][0][0]
            np.testing.assert_allclose(after[i].fields[name], vector.numpy(), atol=1e-5)
