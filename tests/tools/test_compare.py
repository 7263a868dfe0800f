"""Variants side by side: what is trained, what is not trained again, and the table."""

import json
from pathlib import Path

import pytest

from distpre.recipe import load
from tools import compare

RECIPE = str(Path(__file__).parents[2] / "recipes/continual/rotation.yaml")


@pytest.fixture
def trained(monkeypatch) -> list[list[str]]:
    """Trainings that were asked for; each leaves what a run of the rotated world leaves, a = 0.5 + seed / 10."""
    asked = []

    def train(words: list[str], log: Path, name: str) -> None:
        asked.append(words)
        recipe = load(words[0], [*words[1:], "launch.workers=1"])
        folder, a = Path(recipe.run.dir), 0.5 + recipe.seed / 10
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(recipe.dump())
        table = {"retrieval": [["x->y R@1", a, 9, None, None]], "geometry": [["alignment", None, 0, None, None]]}
        matrix = {"retrieval x->y R@1": {"untrained": {"a": 0, "b": 0}, "b5": {"a": a, "b": 0.9}}}
        lines = [{"step": step, "tables": table} for step in (300, 800)]
        lines += [{"step": 800, "stage": "b5", "matrix": matrix, "summary": {k: {"average": a} for k in matrix}}]
        (folder / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    monkeypatch.setattr(compare, "train", train)
    return asked


def words(out: Path, *more: str) -> list[str]:
    return [RECIPE, "--variants", "base,replay", "--seeds", "0", "2", "--out", str(out), *more]


def test_each_variant_is_trained_with_each_seed_once_and_the_table_has_mean_and_deviation(tmp_path, trained, capsys):
    assert compare.main(words(tmp_path, "--measures", "*of ?,*average", "train.batch=50")) == 0
    runs = [(v, s) for v in ("base", "replay") for s in (0, 2)]
    paths = {"base": RECIPE, "replay": f"{RECIPE}:replay"}
    assert trained == [[paths[v], "train.batch=50", f"seed={s}", f"run.dir={tmp_path}/{v}-{s}"] for v, s in runs]
    said = capsys.readouterr().out.splitlines()
    head = ["variant", *(f"retrieval x->y R@1{kind}" for kind in (" of a", " of b", ": average"))]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in said]
    assert cells[0] == head and cells[3] == ["replay", "0.600 ± 0.141", "0.900 ± 0.000", "0.600 ± 0.141"]
    kept = json.loads((tmp_path / "compare.json").read_text())
    assert kept["variants"]["base"]["retrieval x->y R@1"]["values"] == [0.5, 0.7] and kept["seeds"] == [0, 2]
    assert compare.main(words(tmp_path, "train.batch=50")) == 0 and len(trained) == 4
    lines = (tmp_path / "base-2/eval.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "base-2/eval.jsonl").write_text("".join(lines[:2]))  # broken off before its domains
    assert compare.main(words(tmp_path, "train.batch=50")) == 0 and trained[4:] == [trained[1]]


def test_a_folder_of_another_recipe_is_refused(tmp_path, trained, capsys):
    assert compare.main(words(tmp_path)) == 0
    assert compare.main(words(tmp_path, "train.batch=50")) == 2 and len(trained) == 4
    assert "base-0/recipe.yaml is another recipe" in capsys.readouterr().err
    assert compare.main(words(tmp_path, "--measures", "nosuch")) == 2
    refusal = capsys.readouterr().err
    assert "There are: retrieval x->y R@1; retrieval x->y R@1 of a;" in refusal and "alignment" not in refusal


def test_what_a_weighting_said_last_stands_beside_the_measures(tmp_path):
    recipe = load("recipes/robust/nevlp.yaml", [f"run.dir={tmp_path}"])
    said = [{"terms": {"match/loss": 1.0, "noise/auroc": a, "noise/means_low": None}} for a in (0.5, 0.9)] + [
        {"terms": {"match/loss": 1.0}}
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in said))
    assert compare.weighed(recipe) == {"noise/auroc": 0.9}
    assert compare.weighed(load(RECIPE, [f"run.dir={tmp_path}"])) == {}


@pytest.mark.cluster
def test_a_training_that_fails_is_told_with_the_end_of_its_log(tmp_path):
    with pytest.raises(compare.RunFailed, match=r"base-0 ended with 2. \S+\.log ends so:\nerror: \S+: cannot be read"):
        compare.train([str(tmp_path / "nothing.yaml")], tmp_path / "out/base-0.log", "base-0")
