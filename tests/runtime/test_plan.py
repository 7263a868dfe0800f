"""The figures of --check against the model that is built and against the formulas, worked by hand."""

import re
from pathlib import Path

import pytest
import torch

from distpre.anchors import Anchors
from distpre.errors import RecipeError
from distpre.recipe import load, prepare
from distpre.runtime import build
from distpre.runtime.plan import plan

REPOSITORY = Path(__file__).parents[2]
QUICKSTART = f"{REPOSITORY / 'recipes/quickstart.yaml'}:small"
RECIPES = sorted(str(p.relative_to(REPOSITORY)) for p in REPOSITORY.glob("recipes/**/*.yaml"))
UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2}


def figures(*overrides: str, recipe: str = QUICKSTART) -> dict[str, str]:
    lines = plan(load(recipe, list(overrides))).splitlines()
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines)


def mib(text: str, what: str) -> float:
    number, unit = re.search(what, text).groups()
    return float(number) * UNITS[unit] / UNITS["MiB"]


def test_the_plan_counts_what_the_model_has():
    head = "towers.image.head={name: mlp, sizes: [32, 64]}"
    model, said = build.model(load(QUICKSTART, [head])), figures(head)
    for name, tower in model.towers.items():
        count = sum(p.numel() for p in tower.parameters())
        assert said[f"tower {name}"].startswith(f"{count:,} parameters") and "width 64" in said[f"tower {name}"]
    assert f"head {sum(p.numel() for p in model.towers['image'].head.parameters()):,}" in said["tower image"]


def test_memory_falls_with_the_zero_stage_as_the_formula_says():
    """In weights of the whole model over 2 workers; stages 1 to 3 update a copy that is divided too."""
    parts = ("weights", "gradients", "moments")
    said = [figures(f"train.zero={stage}")["memory a worker"] for stage in range(4)]
    whole = mib(said[0], r"weights ([\d.]+) (\w+)")
    shares = [[round(mib(line, rf"{part} ([\d.]+) (\w+)") / whole, 1) for part in parts] for line in said]
    assert shares == [[1, 1, 2], [1.5, 1, 1], [1.5, 0.5, 1], [1, 0.5, 1]]


def test_memory_is_the_sum_of_its_parts():
    line = figures("train.batch=4096")["memory a worker"]
    parts = [mib(line, rf"{part} ([\d.]+) (\w+)") for part in ("weights", "gradients", "moments", "contrast")]
    assert abs(mib(line, r"^([\d.]+) (\w+)") - sum(parts)) < 0.3
    assert parts[3] == 2 * (2048 + 4096) * 64 * 4 / 2**20


def test_a_worker_receives_the_columns_of_the_others_and_rounds_of_weights():
    overrides = ("launch.workers=4", "train.batch=4096", "train.accumulation=2")
    said = [figures(*overrides, f"train.zero={stage}") for stage in range(4)]
    assert {line["moved a step"].split(", ")[1] for line in said} == {"2 x 512.0 KiB of embeddings"}
    assert all(line["contrast match"].startswith("2x2: 2 x b x d received") for line in said)
    assert figures(*overrides, "objective.match.layout=ring")["moved a step"].endswith("2 x 768.0 KiB of embeddings")
    moved = [mib(line["moved a step"], r"^([\d.]+) (\w+)") for line in said]
    assert [round(2 * m / moved[0], 1) for m in moved] == [2, 2, 3, 8]
    assert figures("launch.workers=1")["moved a step"].startswith("0 B of weights and gradients, 2 x 0 B")


def test_batches_divide_down_to_the_micro_batch():
    assert figures()["global batch"] == "32 samples = 2 x 16 samples a worker"
    said = figures("train.batch=48", "train.accumulation=3")["global batch"]
    assert said == "48 samples = 2 x 24 samples a worker = 2 x 3 micro-batches of 8"


def test_epochs_are_told_once_the_shards_are_indexed(tmp_path):
    places = [f"data.prepare.out={tmp_path}", "data.prepare.shards=1", f"data.train.shards={tmp_path}/train-000.tar"]
    places.append(f"data.test.shards={tmp_path}/test-000.tar")
    assert figures(*places)["steps"] == "8 = 256 samples; epochs unknown until the shards are indexed"
    recipe = load(QUICKSTART, places)
    prepare(recipe, lambda text: None)
    samples = len(build.source(recipe, "train", lambda text: None))
    assert figures(*places)["steps"] == f"8 = 256 samples = {256 / samples:.2f} epochs of {samples:,} samples"


def test_each_stage_is_told_with_its_own_steps_and_batch():
    said = figures("stages=[{name: one, train.steps: 30, train.batch: 16}, {name: two}]")
    assert said["steps"].startswith("38 = 736 samples")
    assert said["stage one"].startswith("steps 1 to 30 of 16 samples")
    assert said["stage two"].startswith("steps 31 to 38 of 32 samples")


def test_a_plan_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_planned_at_full_size(recipe, tmp_path, monkeypatch):
    """Also before the weights that it starts from are there; only a text tower's architecture may lie in a folder."""
    monkeypatch.chdir(tmp_path)
    Anchors(torch.eye(2, 512), ("a", "b")).write("runs/data/scans/anchors.safetensors")  # clip2scene's
    try:
        said = figures(recipe=str(REPOSITORY / recipe))
    except RecipeError as e:
        if "transformers_text: cannot build /models/" not in str(e):
            raise
        pytest.skip(str(e))
    towers = [text for name, text in said.items() if name.startswith("tower ")]
    assert all(re.match(r"[\d,]+ parameters", text) for text in towers)  # what is embedded beforehand has none
    assert any(not text.startswith("0 ") for text in towers)
    assert {"global batch", "steps", "memory a worker", "moved a step"} <= said.keys()


def test_terms_that_gather_nothing_have_no_layout():
    more = ("objective.near={name: distance, rows: image, columns: text}", "objective.match.within=rank")
    assert not [name for name in figures(*more) if name.startswith("contrast")]
    views = "objective.more={name: in_modal, views: [image, text], temperature: 0.1}"
    one, two = (figures(*x) for x in ((), (views,)))
    assert "contrast more" in two
    assert one["moved a step"].endswith("2 x 4.0 KiB of embeddings")  # 16 columns of 64
    assert two["moved a step"].endswith("2 x 12.0 KiB of embeddings")  # and as many of both views


def test_what_every_rank_has_all_of_is_counted():
    spread = "objective.spread={name: koleo, of: [image, text]%s}"
    moved = [figures("launch.workers=4", spread % more)["moved a step"] for more in ("", ", within: rank")]
    assert moved[0] == moved[1] + ", 36.0 KiB by spread"  # 2 views of 3 x 8 rows of 64, there and, summed, back
    ema = "teachers={ema: {name: ema, momentum: 0.9, views: [image]}}"
    for rows in ("image", "ema.image"):
        classes = f"objective.near={{name: prototypes, rows: {rows}, id: digit, classes: 10, temperature: 0.1}}"
        assert figures(ema, classes)["moved a step"].endswith("of embeddings, 4.0 KiB by near")


def test_a_tower_starts_from_what_is_not_there_yet(tmp_path):
    line = figures(f"towers.image.encoder.weights={tmp_path / 'start.pt'}")["tower image"]
    assert line.endswith(f"; starts from {tmp_path / 'start.pt'}, which is not there yet")


def test_memory_is_told_beside_the_papers_hardware():
    said = figures("paper={title: it, hardware: 8 x A100 40 GB}", "train.zero=0")
    share = mib(said["memory a worker"], r"^([\d.]+) (\w+)") * 2**20 / 40e9
    assert said["paper's hardware"] == f"8 x A100 40 GB; a worker here takes {share:.0%} of one + activations"
    assert figures("paper={title: it, hardware: 32 x A100}")["paper's hardware"] == "32 x A100"
    assert "paper's hardware" not in figures()
    with pytest.raises(RecipeError, match="paper.hardware"):
        figures("paper={title: it, hardware: many GPUs}")


def test_a_sample_state_is_sized_for_a_thousand_million_samples_where_shards_say_no_number():
    keys = ["weighting={noise: {name: gmm_noise, of: match}}", "launch.workers=64", "train.batch=64"]
    said = figures(*keys, "data.train.shards=nowhere/a.tar")["weighting noise"]
    assert said == f"8 B a sample; of 1,000,000,000 samples {8e9 / 64 / 2**20:.1f} MiB a worker in host memory"
