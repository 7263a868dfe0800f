"""What a recipe may say, and what a person is told when it says something else."""

from pathlib import Path

import pytest
import yaml

from distpre.errors import RecipeError
from distpre.recipe import Recipe, load
from distpre.recipe.resolve import build, schedule
from distpre.schedule import Constant, Cosine

QUICKSTART = "recipes/quickstart.yaml"
RECIPES = sorted(str(p) for p in Path("recipes").rglob("*.yaml"))


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])


@pytest.mark.parametrize("path", RECIPES)
def test_every_recipe_loads_and_has_a_small_variant(path):
    assert load(path).train.steps > load(f"{path}:small").train.steps


def test_resolved_recipe_reads_back_the_same():
    recipe = load(QUICKSTART, ["train.steps=7"])
    assert Recipe.from_resolved(recipe.dump()) == recipe and recipe.train.steps == 7


def test_overrides_lie_over_the_variant_and_the_variant_over_the_recipe():
    recipe = load(f"{QUICKSTART}:small", ["train.batch=64", "towers.image.encoder.config.width=64", "run.dir=x"])
    assert recipe.train.steps == 8 and recipe.train.batch == 64 and recipe.run.dir == "x"
    assert recipe.towers["image"].encoder.keywords()["config"]["width"] == 64
    assert recipe.towers["image"].encoder.keywords()["config"]["layers"] == 1


def test_a_number_without_a_point_in_its_exponent_is_a_number():
    assert schedule(load(QUICKSTART, ["train.optimiser.lr=1e-3"]).train.optimiser.lr) == Constant(0.001)
    assert schedule(load(QUICKSTART).train.optimiser.lr) == Cosine(start=1e-3, end=0, warm_up=20)


def test_components_are_built_with_the_components_inside_them():
    term = build(load(QUICKSTART).objective["match"].component, "term")
    assert type(term).__name__ == "Contrast" and term.targets.id == "caption"


def write(tmp_path, change) -> str:
    data = yaml.safe_load(Path(QUICKSTART).read_text())
    change(data)
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return str(path)


MISTAKES = [
    (["train.stpes=5"], r"override train.stpes=5: train.stpes: there is no such key.*Did you mean 'steps'"),
    (["train.steps=many"], r"train.steps: 'many' is no good"),
    (["train.batch=255"], r"does not divide by 2 workers x 1.*254 and 256"),
    (["data.worker=3"], r"data.worker: there is no such key.*Did you mean 'workers'"),
    (["objective.match.targets.id=digits"], r"no id of data.train 'digits'.*caption, digit"),
    (["objective.match.scale=logits"], r"no scale 'logits'.*logit"),
    (["objective.match.rows=picture"], r"no view that a tower embeds 'picture'"),
    (["objective.match.targets.name=same_ids"], r"no targets 'same_ids'.*did you mean 'same_id'"),
    (["objective.match.tempreture=0.1"], r"Contrast has no key 'tempreture'.*did you mean 'temperature'"),
    (["towers.image.encoder.name=open_clip_imag"], r"no encoder.*did you mean 'open_clip_image'"),
    (["towers.image.encoder.embed_dim=wide"], r"'wide' does not fit"),
    (["train.optimiser.lr={cosin: {start: 1}}"], r"no schedule"),
    (["train.optimiser.lr={cosine: {strat: 1}}"], r"Cosine has no key 'strat'.*did you mean 'start'"),
    (["evaluate.data=testing"], r"no source 'testing'.*train, test"),
    (["views.image.field=picture"], r"no field of data\.\w+ 'picture'"),
    (["train.zero=4"], r"train.zero: 4 is no good"),
    (["nonsense"], r"'nonsense' is not an override"),
]


@pytest.mark.parametrize("overrides,message", MISTAKES, ids=[m[0][0] for m in MISTAKES])
def test_a_mistake_is_named_with_its_remedy(overrides, message):
    with pytest.raises(RecipeError, match=f"(?s){message}") as error:
        load(QUICKSTART, overrides)
    assert error.value.exit_status == 2


def test_a_mistake_in_the_file_is_named_with_file_and_line(tmp_path):
    path = write(tmp_path, lambda d: d["train"].update(stesp=3))
    line = next(i for i, text in enumerate(Path(path).read_text().splitlines(), 1) if "stesp" in text)
    with pytest.raises(RecipeError, match=f"r.yaml:{line}: train.stesp: .*'steps'"):
        load(path)


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(RecipeError, match="run.dir: this key is missing"):
        load(write(tmp_path, lambda d: d["run"].pop("dir")))
    with pytest.raises(RecipeError, match="RandomShift needs the key 'pixels'"):
        load(write(tmp_path, lambda d: d["views"]["image"]["ops"][1].pop("pixels")))


def test_what_is_not_yaml_is_named_with_line_and_column(tmp_path):
    (tmp_path / "r.yaml").write_text("data:\n  train: {shards: train-{000..003}.tar, fields: {}}\n")
    with pytest.raises(RecipeError, match=r'r.yaml:2:\d+: not YAML.*must stand in quotes: "train-\{000'):
        load(str(tmp_path / "r.yaml"))
    (tmp_path / "r.yaml").write_text("- a list\n")
    with pytest.raises(RecipeError, match="a recipe is a mapping"):
        load(str(tmp_path / "r.yaml"))
    with pytest.raises(RecipeError, match="cannot be read"):
        load(str(tmp_path / "absent.yaml"))


def test_environment_variables_are_filled_in_or_missed_by_name(tmp_path, monkeypatch):
    path = write(tmp_path, lambda d: d["run"].update(dir="$WHERE/run"))
    with pytest.raises(RecipeError, match="run.dir: the environment has no WHERE"):
        load(path)
    monkeypatch.setenv("WHERE", "/somewhere")
    assert load(path).run.dir == "/somewhere/run"


def test_a_base_is_laid_under_and_may_not_have_one(tmp_path):
    write(tmp_path, lambda d: None)
    (tmp_path / "over.yaml").write_text("base: r.yaml\ntrain: {steps: 3}\n")
    assert load(str(tmp_path / "over.yaml")).train.steps == 3
    assert load(str(tmp_path / "over.yaml")).train.batch == load(QUICKSTART).train.batch
    (tmp_path / "third.yaml").write_text("base: over.yaml\n")
    with pytest.raises(RecipeError, match="may not have a base"):
        load(str(tmp_path / "third.yaml"))


def prepared(folder: str) -> list[str]:
    from distpre.recipe import prepare

    said: list[str] = []
    out = [f"data.prepare.out={folder}", f"data.train.shards={folder}/train-000.tar", "data.prepare.shards=1"]
    prepare(load(QUICKSTART, [*out, f"data.test.shards={folder}/test-000.tar"]), said.append)
    return said


@pytest.mark.cluster
def test_of_several_processes_one_prepares_the_data(tmp_path):
    from tests.ranks import ranks

    assert sorted(map(len, ranks(3).run(prepared, str(tmp_path / "digits")))) == [0, 0, 1]
