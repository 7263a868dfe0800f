"""A run as its user has it: interrupted, resumed, evaluated, exported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[1]
RECIPE = str(REPOSITORY / "recipes/quickstart.yaml") + ":small"
RUN = [RECIPE, "train.log_every=1", "train.steps=16"]


def command(*words: str, cwd: Path, **keywords) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=cwd, capture_output=True, text=True, env=environment(), **keywords
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def losses(run: Path) -> dict[int, float]:
    return {r["step"]: r["loss"] for r in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An unbroken run of one process, and where it lies."""
    folder = tmp_path_factory.mktemp("whole")
    done = command("distpre.train", *RUN, "run.dir=runs/whole", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "zero_shot" in done.stdout and "finished 16 steps" in done.stdout
    return folder / "runs/whole"


def test_the_run_folder_holds_what_a_person_needs(whole):
    there = {p.name for p in whole.iterdir()}
    assert {"recipe.yaml", "environment.json", "metrics.jsonl", "eval.jsonl", "checkpoints"} <= there
    step = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"loss", "scale", "lr", "samples_per_second", "data_wait", "memory_bytes", "samples"} <= set(step)
    assert "torch" in json.loads((whole / "environment.json").read_text())["packages"]


def test_interrupted_run_commits_and_goes_on_to_the_same_losses(whole, tmp_path):
    words = ["distpre.train", *RUN, "run.dir=runs/broken"]
    with subprocess.Popen(
        [sys.executable, "-m", *words], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        metrics = tmp_path / "runs/broken/metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=120)[0]
    assert process.returncode == 130
    stopped_at = max(losses(tmp_path / "runs/broken"))
    assert f"stopped after step {stopped_at}; the same command goes on\n" in told
    assert (tmp_path / f"runs/broken/checkpoints/step-{stopped_at:08d}/COMMIT").exists()
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0 and f"resumed from step {stopped_at}" in done.stdout
    assert losses(tmp_path / "runs/broken") == losses(whole)


def test_a_commit_evaluates_to_what_the_run_ended_with(whole):
    done = command("distpre.evaluate", "runs/whole", cwd=whole.parents[1])
    assert done.returncode == 0, done.stderr
    last = json.loads((whole / "eval.jsonl").read_text().splitlines()[-1])
    assert f"top-1 {last['tables']['zero_shot'][0][1]:.3f}" in done.stdout


def test_open_clip_loads_the_export_and_embeds_the_same(whole):
    import open_clip

    from distpre.recipe import resolved
    from distpre.runtime import build, commit

    done = command("distpre.export", "runs/whole", "--to", "open_clip", cwd=whole.parents[1])
    assert done.returncode == 0, done.stderr
    folder = whole.parents[1] / done.stdout.strip()
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    ours = build.model(resolved((whole / "recipe.yaml").read_text()))
    ours.load_state_dict(commit.newest(whole).weights())
    theirs.eval(), ours.eval()
    images, tokens = torch.randn(5, 3, 32, 32), torch.randint(1, 49000, (5, 12))
    with torch.no_grad():
        embedded, scales = ours({"image": images, "text": tokens})
        torch.testing.assert_close(theirs.encode_image(images, normalize=True), embedded["image"][0], rtol=0, atol=1e-5)
        torch.testing.assert_close(theirs.encode_text(tokens, normalize=True), embedded["text"][0], rtol=0, atol=1e-5)
        torch.testing.assert_close(theirs.logit_scale.exp(), scales["logit"][0].squeeze())
    assert "mean=[0.5, 0.5, 0.5]" in str(preprocess) or "0.5" in str(preprocess)


def test_safetensors_export_holds_the_commits_weights(whole):
    from safetensors.torch import load_file

    from distpre.runtime import commit

    done = command("distpre.export", "runs/whole", "--to", "safetensors", cwd=whole.parents[1])
    exported, weights = load_file(whole.parents[1] / done.stdout.strip()), commit.newest(whole).weights()
    assert exported.keys() == weights.keys() and all(torch.equal(exported[k], weights[k]) for k in weights)


def test_an_exported_tower_initialises_the_next_run(whole, tmp_path):
    from distpre.recipe import load
    from distpre.recipe.resolve import build
    from distpre.runtime import commit
    from distpre.runtime.build import model

    done = command("distpre.export", "runs/whole", "--to", "open_clip", cwd=whole.parents[1])
    weights = whole.parents[1] / done.stdout.strip() / "open_clip_model.safetensors"
    recipe = load(RECIPE, [f"towers.image.encoder.weights={weights}"])
    encoder = build(recipe.towers["image"].encoder, "encoder")
    trained = commit.newest(whole).weights()
    assert torch.equal(encoder.visual.proj, trained["towers.image.encoder.visual.proj"])
    weights.rename(weights.with_name("gone.safetensors"))  # a run that started from it does without, once it committed
    model(recipe, fresh=False).load_state_dict(trained)


@pytest.mark.parametrize(
    "words,message",
    [
        (["absent.yaml"], "cannot be read"),
        ([RECIPE, "data.prepare=null"], "shards are not there"),
        ([RECIPE, 'data.train.shards=""'], "data.train: shards '' name no shard"),
        ([RECIPE, "data.train.fields.image=jpg", "data.test.fields.image=jpg"], "has one; it holds"),
        ([RECIPE, "towers.image.encoder={name: open_clip_image, model: ViT-B-33}"], "Nearest: ViT-B-32"),
    ],
    ids=["no recipe", "no shards", "empty list", "no field", "no model"],
)
def test_bad_input_ends_with_one_paragraph_and_status_2(words, message, tmp_path, whole):
    if "data.train.fields.image=jpg" in words:
        (tmp_path / "runs").symlink_to(whole.parents[1] / "runs")
        words = [*words, "run.dir=other"]
    done = command("distpre.train", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    [line] = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert message in line and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/quickstart")) and not (tmp_path / "other").exists()


def test_a_run_folder_in_use_is_refused(whole):
    from distpre.runtime.folder import RunFolder

    folder = RunFolder(whole)
    folder.claim()
    try:
        done = command("distpre.train", RECIPE, "run.dir=runs/whole", cwd=whole.parents[1])
    finally:
        folder.release()
    assert done.returncode == 2 and "in use by process" in done.stderr
