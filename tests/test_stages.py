"""A run of three stages, broken off at the end of the second and inside the third, against an unbroken one."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch

from tests.ranks import ranks

RECIPE = str(Path(__file__).parents[1] / "recipes/continual/digits.yaml") + ":small"


def trained(folder: str, run_dir: str, stop_at: int | None = None) -> dict:
    """Trains to the end, or until it is stopped after a step."""
    from distpre.group import wait_for_all
    from distpre.recipe import load, prepare
    from distpre.runtime.engine import join_group
    from distpre.train import train

    os.chdir(folder)
    words = [f"run.dir={run_dir}", "train.log_every=1", "data.workers=0", "train.zero=3"]
    words += ["train.steps=3", "train.commit_every=2"]
    recipe = load(RECIPE, [*words, f"launch.workers={os.environ['WORLD_SIZE']}"])
    if os.environ["RANK"] == "0":
        prepare(recipe, print)
    join_group()
    wait_for_all()
    at = [0]

    def take(record: dict) -> None:
        at[0] = record["step"] if record["kind"] == "step" else at[0]

    return train(recipe, sink=take, stop=lambda: "interrupt" if at[0] == stop_at else None)


def lines(path: Path) -> list[dict]:
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in path.read_text().splitlines()]


@pytest.mark.cluster
def test_a_run_broken_off_in_its_stages_is_the_unbroken_one_bit_for_bit(tmp_path):
    from distpre.runtime import commit

    assert ranks(2).run(trained, str(tmp_path), "whole")[0]["status"] == "finished"
    for stop_at in (6, 8, None):
        outcome = ranks(2).run(trained, str(tmp_path), "broken", stop_at)[0]
        assert (outcome["status"], outcome["step"]) == (("stopped", stop_at) if stop_at else ("finished", 9))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert [s["step"] for s in lines(whole / "metrics.jsonl")] == list(range(1, 10))
    assert [(s["step"], s["loss"]) for s in lines(whole / "metrics.jsonl")] == [
        (s["step"], s["loss"]) for s in lines(broken / "metrics.jsonl")
    ]
    weights = commit.newest(whole).weights(), commit.newest(broken).weights()
    assert [name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])] == []
    domains = [[line for line in lines(run / "eval.jsonl") if "domains" in line] for run in (whole, broken)]
    assert [line["stage"] for line in domains[0]] == ["untrained", "zero_one", "two_three", "rest"]
    assert domains[0] == domains[1]
    assert set(domains[0][-1]["angles"]["rest/image"]) == {"self_since_stage", "cross_since_stage"}
    assert domains[0][-1]["angles"]["zero_one/image"]["cross_since_learned"] > 0
    assert (whole / "stages/matrix.png").stat().st_size > 5000
    begins_with_the_weights_before_and_holds_what_it_freezes(whole)


def begins_with_the_weights_before_and_holds_what_it_freezes(run: Path) -> None:
    from safetensors.torch import load_file

    ends = [load_file(run / f"stages/{name}.safetensors") for name in ("0-zero_one", "1-two_three", "2-rest")]
    name = "towers.image.encoder.visual.proj"
    assert torch.equal(ends[1][f"teachers.old.{name[7:]}"], ends[0][name])
    assert not torch.equal(ends[1][name], ends[0][name])
    fisher = load_file(run / "stages/0-zero_one.fisher.safetensors")[name]
    assert torch.equal(ends[1][f"teachers.fisher.{name[7:]}"], fisher) and 0 <= fisher.min() < fisher.max()
    frozen = "towers.text.encoder.text.token_embedding.weight"
    assert torch.equal(ends[2][frozen], ends[1][frozen]) and not torch.equal(ends[1][frozen], ends[0][frozen])
    assert not any(key.startswith("teachers.") for key in ends[2])


# what is written, in stage 0 or 1 or (None) in the recipe: what is said of it before anything is written
MISTAKES = {
    (0, "data.train.where: {digit: [12]}"): "stages.0 (one): data.train: no sample of the source has the digit 12.",
    (1, "data.train.where: {digit: [12]}"): "stages.1 (two): data.train: no sample of the source has the digit 12.",
    (None, "evaluate.domains={ten: {digit: [10]}}"): "evaluate.domains.ten: no sample of the source has the digit 10.",
    (1, "data.replay: {samples: 999, weight: 0.25}"): "stages.1 (two): data.replay, of the stage 'one': a buffer of "
    "999 samples is larger than the .* of its domain that were seen. Lower data.replay.samples",
    (1, "data.replay: {samples: 999, weight: 0.25, how: herded}"): "stages.1 (two): data.replay, of the stage 'one': a",
    (0, "teachers: {old: {name: frozen, weights: other.safetensors}}"): "stages.0 (one): teachers.old: "
    "other.safetensors does not fit the teacher of image, text: towers.image.",
    (1, "teachers: {old: {name: frozen, weights: other.safetensors}}"): "stages.1 (two): teachers.old: "
    "other.safetensors does not fit the teacher of image, text: towers.image.",
    (1, "teachers: {old: {name: frozen, weights: gone.pt}}"): "stages.1 (two): teachers.old: gone.pt: no such weights",
    # no mistake: by then the run will have written it
    (1, "teachers: {old: {name: frozen, weights: wrong/stages/0-one.safetensors}}"): "",
}


def told(folder: str) -> list[str]:
    """What each of MISTAKES is told, "" for none; the run folder must not be there then."""
    from distpre.errors import DistpreError
    from distpre.recipe import load, prepare
    from distpre.runtime.engine import join_group
    from distpre.train import train

    os.chdir(folder)
    said = []
    for number, written in MISTAKES:
        stages = [f"{{name: {name}{f', {written}' if at == number else ''}}}" for at, name in enumerate(("one", "two"))]
        words = ["run.dir=wrong", "data.workers=0", "train.zero=0", "launch.workers=1", "data.replay=null"]
        recipe = load(RECIPE, [*words, f"stages=[{', '.join(stages)}]", *([written] if number is None else [])])
        prepare(recipe, print)
        join_group()
        try:
            train(recipe, sink=lambda record: None, stop=lambda: "interrupt")
            said.append("")
        except DistpreError as e:
            assert e.exit_status == 2 and not Path("wrong").exists()
            said.append(str(e))
    return said


@pytest.mark.cluster
def test_a_stage_that_cannot_be_is_told_before_the_first_step_and_leaves_nothing(tmp_path):
    from safetensors.torch import save_file

    save_file({"towers.image.encoder.visual.proj": torch.zeros(3)}, tmp_path / "other.safetensors")
    for said, wanted in zip(ranks(1).run(told, str(tmp_path))[0], MISTAKES.values(), strict=True):
        assert re.match(".*".join(map(re.escape, wanted.split(".*"))) + ("" if wanted else "$"), said), said
