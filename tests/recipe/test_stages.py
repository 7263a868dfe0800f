"""Stages as recipes of their own, and what is said of a wrong one."""

from pathlib import Path

import pytest

from distpre.errors import RecipeError
from distpre.recipe import load, resolved
from distpre.recipe.stages import stage_of, stages

QUICKSTART = str(Path(__file__).parents[2] / "recipes/quickstart.yaml")
TWO = "stages=[{name: one, train.steps: 30, data.train.where: {digit: [0]}}, {name: two, objective.match.weight: 0.5}]"


def test_a_recipe_without_stages_is_one():
    [only] = stages(recipe := load(QUICKSTART))
    assert (only.first, only.last, only.recipe) == (0, 200, recipe)


def test_a_stage_is_the_recipe_with_its_keys_laid_over_it():
    recipe = load(QUICKSTART, [TWO, "evaluate.domains={zero: {digit: [0]}}"])
    one, two = stages(recipe)
    assert (one.first, one.last, two.first, two.last) == (0, 30, 30, 230)
    assert one.recipe.data.sources["train"].where == {"digit": [0]} and two.recipe.data.sources["train"].where == {}
    assert two.recipe.objective["match"].weight == 0.5 and one.recipe.objective["match"].weight == 1.0
    assert (
        (two.begins, two.of) == (30, 200) and stage_of(recipe, 30).name == "one" and stage_of(recipe, 31).name == "two"
    )
    assert stages(resolved(recipe.dump())) == [one, two]


def test_without_restart_schedules_run_over_the_whole_run():
    _, two = stages(load(QUICKSTART, [TWO.replace("name: two,", "name: two, restart: false,")]))
    assert (two.begins, two.of) == (0, 230)


def test_samples_are_those_of_each_stages_own_batches():
    one, two = stages(load(QUICKSTART, [TWO.replace("train.steps: 30", "train.steps: 30, train.batch: 16")]))
    assert (one.samples(1), one.samples(30), two.samples(30)) == (16, 480, 480)
    assert two.samples(32) == 480 + 2 * two.recipe.train.batch


WRONG = {
    "[{name: a, train.stpes: 5}]": "train.stpes: there is no such key. Did you mean 'steps'",
    "[{name: a}, {name: a}]": "stages.1.name: 'a' is given twice",
    "[{name: a b}]": "stages.0.name: 'a b' will not do",
    "[{train.steps: 5}]": "stages.0: the key 'name' is missing",
    "[{name: a, towers.image.head: {name: linear, width: 8}}]": "towers.image.head: a stage cannot change this",
    "[{name: a, data.train.where: {digti: [1]}}]": "there is no id of data.train 'digti'. Did you mean 'digit'",
    "[{name: a, teachers: {old: {name: previus}}}]": "no teacher 'previus'. Did you mean 'previous'",
    "[{name: a, teachers: {old: {name: previous, of: [imag]}}}]": "there is no tower 'imag'. Did you mean 'image'",
    "[{name: a, data.replay: {weight: 0.5}}]": "`share` .* or `samples`",
    "[{name: a, data.replay: {weight: 1.5, share: 0.1}}]": "data.replay.weight: 1.5 will not do",
    "[{name: a}, {name: b, restart: false, train.zero: 2}]": "stages.1.restart: the optimiser cannot go on",
    "[{name: a, objective.hold: {name: distance, rows: image, columns: old.image}}]": "no view .* 'old.image'",
}


@pytest.mark.parametrize("written,said", WRONG.items())
def test_a_wrong_stage_is_refused_where_it_is_written(written, said):
    with pytest.raises(RecipeError, match=f"override stages=.*{said}"):
        load(QUICKSTART, [f"stages={written}"])


def test_a_teachers_embedding_may_be_named():
    hold = "objective.hold={name: distance, rows: image, columns: old.image}"
    load(QUICKSTART, ["teachers={old: {name: previous, of: [image]}}", hold])
    with pytest.raises(RecipeError, match="'old.text'"):
        load(QUICKSTART, ["teachers={old: {name: previous, of: [image]}}", hold.replace("image}", "text}")])
