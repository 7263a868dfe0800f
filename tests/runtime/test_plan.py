"""The figures of --check against the model that is built and against the formulas, worked by hand."""

import re
from pathlib import Path

from distpre.recipe import load, prepare
from distpre.runtime import build
from distpre.runtime.plan import plan

QUICKSTART = str(Path(__file__).parents[2] / "recipes/quickstart.yaml")
UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2}


def figures(*overrides: str) -> dict[str, str]:
    lines = plan(load(f"{QUICKSTART}:small", list(overrides))).splitlines()
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines)


def mib(text: str, what: str) -> float:
    number, unit = re.search(what, text).groups()
    return float(number) * UNITS[unit] / UNITS["MiB"]


def test_the_plan_counts_what_the_model_has():
    head = "towers.image.head={name: mlp, sizes: [32, 64]}"
    model, said = build.model(load(f"{QUICKSTART}:small", [head])), figures(head)
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
    recipe = load(f"{QUICKSTART}:small", places)
    prepare(recipe, lambda text: None)
    samples = len(build.source(recipe, "train", lambda text: None))
    assert figures(*places)["steps"] == f"8 = 256 samples = {256 / samples:.2f} epochs of {samples:,} samples"


def test_a_plan_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures()
    assert not list(tmp_path.iterdir())


def test_a_sample_state_is_sized_for_a_thousand_million_samples_where_shards_say_no_number():
    keys = ["weighting={noise: {name: gmm_noise, of: match}}", "launch.workers=64", "train.batch=64"]
    said = figures(*keys, "data.train.shards=nowhere/a.tar")["weighting noise"]
    assert said == f"8 B a sample; of 1,000,000,000 samples {8e9 / 64 / 2**20:.1f} MiB a worker in host memory"
