"""The picture of a weighting: in the run folder, and never the end of a run."""

import sys
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from distpre.recipe.schema import Component
from distpre.runtime.remembered import Remembered
from distpre.types import Batch

N = 400


def epochs(folder, notes: list[str], count: int) -> None:
    """Whole epochs of one batch each; the losses are of two kinds."""
    recipe = SimpleNamespace(
        weighting={"noise": Component(name="gmm_noise", of="plain")}, seed=0, run=SimpleNamespace(dir=folder)
    )
    source = type("Source", (), {"__len__": lambda self: N, "digest": ""})()
    loader = SimpleNamespace(source=source, batch=N, position=0)
    remembered = Remembered(recipe, loader, notes.append)
    losses = torch.from_numpy(np.random.default_rng(0).normal(size=N) + np.arange(N) % 2 * 8)
    for _ in range(count):
        loader.position += N
        said = SimpleNamespace(skipped=False, per_sample={"plain": losses})
        remembered.observe(Batch({}, {}, torch.arange(N), torch.ones(N)), said)


def test_each_epoch_with_losses_gets_a_picture(tmp_path):
    notes: list[str] = []
    epochs(tmp_path, notes, 2)
    pictures = sorted(tmp_path.glob("weighting/*"))
    assert [p.name for p in pictures] == ["noise-epoch-1.png", "noise-epoch-2.png"] and not notes
    colours = np.asarray(Image.open(pictures[1]).convert("RGB")).reshape(-1, 3)
    for curve in ((0x1B, 0x9E, 0x77), (0xD9, 0x5F, 0x02)):  # both components are drawn
        assert (colours == curve).all(1).sum() > 200


def test_without_matplotlib_or_a_disk_the_run_goes_on_and_says_so_once(tmp_path, monkeypatch):
    notes: list[str] = []
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    epochs(tmp_path, notes, 3)
    assert len(notes) == 1 and "pip install" in notes[0]
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    epochs(tmp_path / "file", notes, 3)
    assert len(notes) == 2 and "file" in notes[1]
