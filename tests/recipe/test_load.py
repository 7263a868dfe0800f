"""A recipe is its base, itself, a variant and overrides, in this order; the environment fills its paths."""

from pathlib import Path

import pytest
import yaml

from distpre.errors import DataError, RecipeError
from distpre.recipe import Recipe, load, prepare, resolved
from distpre.recipe.resolve import build, schedule
from distpre.schedule import Constant, Cosine

QUICKSTART = "recipes/quickstart.yaml"
RECIPES = sorted(str(p) for p in Path(__file__).parents[2].glob("recipes/**/*.yaml"))


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: Path(p).stem)
def test_every_recipe_loads_and_has_a_small_variant(path, monkeypatch):
    monkeypatch.setenv("DATA", "/data")
    small = load(f"{path}:small")
    assert small.train.steps < load(path).train.steps and small.launch.workers.max <= 2


def test_resolved_recipe_reads_back_the_same():
    recipe = load(QUICKSTART, ["train.steps=7", "evaluate.tables.zero_shot.classes=['1e3', 'yes', '007', '0x1']"])
    assert resolved(recipe.dump()) == recipe and recipe.train.steps == 7


def test_a_resolved_recipe_is_itself_a_recipe(tmp_path):
    recipe = load(f"{QUICKSTART}:small")
    (tmp_path / "recipe.yaml").write_text(recipe.dump())
    assert load(str(tmp_path / "recipe.yaml")) == recipe


def test_a_resolved_recipe_that_was_damaged_is_told_with_its_line():
    text = load(QUICKSTART).dump()
    line = next(i for i, row in enumerate(text.splitlines(), 1) if row.startswith("  zero:"))
    with pytest.raises(RecipeError, match=f"recipe.yaml:{line}: train.zeor: .*Did you mean 'zero'"):
        resolved(text.replace("  zero:", "  zeor:"))


def test_overrides_lie_over_the_variant_and_the_variant_over_the_recipe():
    recipe = load(f"{QUICKSTART}:small", ["train.batch=64", "towers.image.encoder.config.width=64", "run.dir=x"])
    assert recipe.train.steps == 8 and recipe.train.batch == 64 and recipe.run.dir == "x"
    assert recipe.towers["image"].encoder.keywords()["config"]["width"] == 64
    assert recipe.towers["image"].encoder.keywords()["config"]["layers"] == 1


def test_an_override_reaches_into_lists_and_sections_that_were_left_out():
    recipe = load(QUICKSTART, ["views.image.ops.0.size=16", "paper.title=ours", "objective.match.weight=0.5"])
    assert recipe.views["image"].ops[0].keywords() == {"size": 16}
    assert recipe.paper.title == "ours" and recipe.objective["match"].weight == 0.5


def test_a_number_without_a_point_in_its_exponent_is_a_number():
    assert schedule(load(QUICKSTART, ["train.optimiser.lr=1e-3"]).train.optimiser.lr) == Constant(0.001)
    assert schedule(load(QUICKSTART).train.optimiser.lr) == Cosine(start=1e-3, end=0, warm_up=20)


def test_components_are_built_with_the_components_inside_them():
    term = build(load(QUICKSTART).objective["match"].component, "term")
    assert type(term).__name__ == "PairContrast" and term.asked["targets"].id == "caption"


def write(tmp_path, change=lambda data: None) -> str:
    data = yaml.safe_load(Path(QUICKSTART).read_text())
    change(data)
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return str(path)


def test_a_view_that_only_a_table_names_is_left_out_of_training():
    voco = load("recipes/volumes/voco.yaml:hippocampus")
    assert list(voco.views) == ["parts", "overlap", "place", "patches", "tissue"]
    assert voco.trained_views() == ["parts", "overlap"]
    taught = load("recipes/biosignals/ecg.yaml")  # b is named as the teacher's, "ema.b", too
    assert taught.trained_views() == ["a", "b"]


def test_an_evaluation_makes_the_views_that_its_tables_name():
    cleaned = "recipes/robust/cleanclip.yaml"
    assert list(load(cleaned).views) == ["image", "text", "image_again", "text_again"]
    assert load(cleaned).evaluated_views() == ["image", "text"]
    every = load(cleaned, ["evaluate.domains={two: {digit: [2]}}"])  # of which all views are embedded
    assert every.evaluated_views() == list(every.views)
    other = load(cleaned, ["evaluate.tables={mine: {name: 'collections:OrderedDict', view: image}}"])  # it may read any
    assert other.evaluated_views() == list(other.views)
    of_facts = load("recipes/volumes/voco.yaml:hippocampus")
    assert set(of_facts.evaluated_views()) == {"parts", "overlap", "place", "patches", "tissue"}


def test_a_source_needs_the_fields_of_the_views_that_are_made_of_it():
    voco = "recipes/volumes/voco.yaml:hippocampus"
    bare = "{shards: a.tar, fields: {volume: npy}, ids: {participant: json.participant}}"
    load(voco, [f"data.train={bare}"])  # labels are for a table alone
    with pytest.raises(RecipeError, match="views.tissue.field: there is no field of data.test 'label'"):
        load(voco, [f"data.test={bare}"])


def test_environment_variables_are_filled_in_or_missed_by_name(tmp_path, monkeypatch):
    path = write(tmp_path, lambda d: d["run"].update(dir="$WHERE/${WHAT}/run"))
    monkeypatch.setenv("WHERE", "/somewhere")
    with pytest.raises(RecipeError, match=r"r.yaml:\d+: run.dir: .* wants the environment's WHAT, which is not set"):
        load(path)
    monkeypatch.setenv("WHAT", "a")
    assert load(path).run.dir == "/somewhere/a/run"
    prices = "evaluate.tables.zero_shot.templates=['it costs $5: {}']"
    assert load(path, [prices]).evaluate.tables["zero_shot"].keywords()["templates"] == ["it costs $5: {}"]


def test_a_base_is_laid_under_and_may_not_have_one(tmp_path):
    write(tmp_path)
    (tmp_path / "over.yaml").write_text("base: r.yaml\ntrain: {steps: 3}\nvariants: {small: {train.batch: 4}}\n")
    over = str(tmp_path / "over.yaml")
    assert load(over).train.steps == 3 and load(over).train.batch == load(QUICKSTART).train.batch
    assert load(f"{over}:small").train.batch == 4 and load(f"{over}:small").train.steps == 3
    with pytest.raises(RecipeError, match=r"r.yaml:\d+: train.batch: .*does not divide"):
        load(over, ["launch.workers=3"])
    (tmp_path / "third.yaml").write_text("seed: 1\nbase: over.yaml\n")
    with pytest.raises(RecipeError, match=r"third.yaml:2: base: .*over.yaml has a base of its own"):
        load(str(tmp_path / "third.yaml"))
    (tmp_path / "fourth.yaml").write_text("base: nowhere.yaml\n")
    with pytest.raises(RecipeError, match=r"fourth.yaml:1: base: there is no file .*nowhere.yaml"):
        load(str(tmp_path / "fourth.yaml"))


def digits_in(folder: Path | str, *more: str) -> Recipe:
    shards = [f"data.train.shards={folder}/train-000.tar", f"data.test.shards={folder}/test-000.tar"]
    return load(QUICKSTART, [f"data.prepare.out={folder}", "data.prepare.shards=1", *shards, *more])


def prepared(folder: str) -> list[str]:
    said: list[str] = []
    prepare(digits_in(folder), said.append)
    return said


@pytest.mark.cluster
def test_of_several_processes_one_prepares_the_data(tmp_path):
    from tests.ranks import ranks

    assert sorted(map(len, ranks(3).run(prepared, str(tmp_path / "digits")))) == [0, 0, 1]


def test_data_is_prepared_where_a_shard_is_absent_and_left_alone_where_none_is(tmp_path):
    assert len(prepared(str(tmp_path / "digits"))) == 1 and prepared(str(tmp_path / "digits")) == []
    before = (tmp_path / "digits/train-000.tar").stat().st_mtime_ns
    (tmp_path / "digits/test-000.tar").unlink()
    assert len(prepared(str(tmp_path / "digits"))) == 1 and (tmp_path / "digits/test-000.tar").exists()
    assert (tmp_path / "digits/train-000.tar").stat().st_mtime_ns == before


def test_shards_that_were_prepared_by_other_keywords_are_told_and_left_alone(tmp_path):
    folder = tmp_path / "digits"
    prepared(str(folder))
    before = (folder / "train-000.tar").read_bytes()
    with pytest.raises(DataError, match=r"made with other keywords: wrong 0.0, not 0.4\. Give `out` and"):
        prepare(digits_in(folder, "data.prepare.wrong=0.4"), lambda text: pytest.fail("prepared"))
    assert (folder / "train-000.tar").read_bytes() == before
    prepare(digits_in(folder, "data.prepare.wrong=0"), lambda text: pytest.fail("prepared"))  # the default, said
    (folder / "prepared.json").unlink()  # made by hand: whoever did it knows
    prepare(digits_in(folder, "data.prepare.wrong=0.4"), lambda text: pytest.fail("prepared"))


def test_data_prepared_in_another_place_than_the_sources_is_told(tmp_path):
    recipe = digits_in(tmp_path / "digits", f"data.test.shards={tmp_path}/elsewhere/test-000.tar")
    with pytest.raises(DataError, match="data.prepare: tools.shard.digits:write has run, but 1 of 2 shards are not"):
        prepare(recipe, lambda text: None)


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="data.prepare: .*file/digits, where the shards go, cannot be written"):
        prepared(str(tmp_path / "file/digits"))


def test_remote_shards_are_not_prepared_and_make_no_folder(tmp_path, monkeypatch):
    remote = ["data.train.shards=s3://bucket/train-000.tar", "data.test.shards=s3://bucket/test-000.tar"]
    recipe = load(QUICKSTART, remote)
    monkeypatch.chdir(tmp_path)
    prepare(recipe, lambda text: pytest.fail("prepared"))
    assert not list(tmp_path.iterdir())


def test_workers_may_be_a_range_and_the_batch_holds_at_each():
    elastic = load(QUICKSTART, ["launch.workers={min: 1, max: 4}", "train.accumulation=2", "train.batch=64"])
    assert [elastic.accumulation(workers) for workers in (4, 3, 2, 1)] == [2, 3, 4, 8]
    assert resolved(elastic.dump()).launch == elastic.launch
    assert "workers: 3\n" in load(QUICKSTART, ["launch.workers=3", "train.batch=6"]).dump()
