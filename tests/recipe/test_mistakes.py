"""What a person is told who wrote a recipe wrong: where, what, what it may be, what to do. Each case is one mistake."""

import re
from pathlib import Path

import pytest

from distpre.errors import RecipeError
from distpre.recipe import load

QUICKSTART = Path(__file__).parents[2] / "recipes/quickstart.yaml"
SCENES = f"{QUICKSTART.parent / 'scenes/clip2scene.yaml'}:world_pixels"

# name: (text of the quickstart, what is written instead, what the error says after "mine.yaml:LINE: ")
IN_THE_FILE = {
    "misspelt key": ("  zero: 1", "  zeor: 1", "train.zeor: there is no such key. Did you mean 'zero' (0, 1, 2 or 3)?"),
    "misspelt key that must be there": ("  batch: 256", "  bacth: 256", "train.bacth: .*mean 'batch' (a whole number"),
    "misspelt section": ("towers:", "tower:", "tower: there is no such key. Did you mean 'towers'"),
    "misspelt key of a source": ("    shards:", "    shard:", "data.train.shard: .*Did you mean 'shards'"),
    "misspelt key of data": ("  prepare:", "  prepar:", "data.prepar: .*Did you mean 'prepare'"),
    "absent key": ("    field: text\n", "", "views.text: the key 'field' is missing. It is text."),
    "key given twice": ("  clip: 1.0", "  clip: 1.0\n  batch: 8", "train.batch is given twice; .*mine.yaml:"),
    "key that is not text": ("max_restarts: 3", "on: 3", "launch: YAML reads the key on as .*quotes"),
    "wrong kind": ("  keep: 2", "  keep: few", "train.keep: 'few' will not do. It may be a whole number above 0."),
    "out of bounds": ("  keep: 2", "  keep: 0", "train.keep: 0 will not do. It may be a whole number above 0."),
    "nothing": ("{workers: 2, max_restarts: 3}", "", "launch: nothing stands here. It may be a mapping with workers"),
    "none of a choice": ("precision: fp32", "precision: fp16", "train.precision: 'fp16' .*It may be fp32 or bf16."),
    "yes for text": ("[zero, one,", "[yes, one,", "classes.0: True will not do.*YAML reads yes, no"),
    "number for text": ("[zero, one,", "[0, one,", 'classes.0: 0 will not do.*Put it in quotes: "0"'),
    "text for a component": ("{name: same_id, id: caption}", "same_id", "match.targets: 'same_id' .*own_pair, sa"),
    "unknown term": (
        "{name: contrast,",
        "{name: contras,",
        "match.name: there is no term 'contras'. Did you mean",
    ),
    "term without name": ("{name: contrast, ", "{", "objective.match: the key 'name' is missing. It is contrast, "),
    "misspelt keyword": ("id: caption}}", "ids: caption}}", "match.targets.ids: same_id has no .*mean 'id' (text)"),
    "absent keyword": (
        ", pixels: 3",
        "",
        "views.image.ops.1: random_shift needs the key 'pixels'. It is a whole",
    ),
    "wrong keyword": ("pixels: 3", "pixels: three", "ops.1.pixels: 'three' will not do. It may be a whole number."),
    "no such module": ("name: open_clip_image", 'name: "my_lab.nets:Net"', "encoder.name: .*No module named 'my_lab'"),
    "no such class": ("name: open_clip_image", 'name: "distpre.towers.tower:Towr"', "no class .*mean 'Tower'"),
    "view nobody makes": ("views: [image]", "views: [imag]", "towers.image.views.0: there is no view 'imag'.*'image'"),
    "view in two towers": ("views: [text]", "views: [text, image]", "towers.text.views: the view 'image' .*2 times"),
    "view in no tower": ("\ntowers:", "  more: {field: text, ops: []}\n\ntowers:", "views.more: no tower embeds this"),
    "term's view": (
        "rows: image, columns: text, scale",
        "rows: picture, columns: text, scale",
        "match.rows: there is no",
    ),
    "term's scale": (
        "scale: logit,",
        "scale: logits,",
        "match.scale: there is no scale 'logits'. .*'logit'",
    ),
    "term's fact": ("scale: logit,", "scale: logit, facts: {x: y},", "match.facts.x: there is no view 'y'. There is"),
    "term's quality": (
        "scale: logit,",
        "scale: logit, quality: good,",
        "match.quality: there is no fact, weighting or",
    ),
    "targets' amount": (
        "{name: same_id, id: caption}",
        "{name: smoothed, amount: noise}",
        "match.targets.amount: there is no fact, weighting or id 'noise'. There is caption",
    ),
    "term's id": (
        "id: caption}}",
        "id: captoin}}",
        "match.targets.id: there is no id of data.train 'captoin'.*'",
    ),
    "evaluator's id": ("id: digit,\n", "id: digits,\n", "zero_shot.id: there is no id of data.test 'digits'.*'digit'"),
    "evaluator's view": ("image: image,", "image: img,", "zero_shot.image: there is no view that a tower embeds 'img'"),
    "evaluated source": ("data: test", "data: tets", "evaluate.data: there is no source 'tets'. Did you mean 'test'"),
    "view's field": ("field: image", "field: img", "views.image.field: there is no field of data.train 'img'"),
    "batch": ("batch: 256", "batch: 255", "train.batch: .*launch.workers 2 x train.accumulation 1.*254 or 256"),
    "unset variable": ('"runs/data/digits/test-000.tar"', "$NOWHERE_SET/a.tar", "data.test.shards: .*NOWHERE_SET"),
    "brace list alone": ('"runs/data/digits/test-000.tar"', "{000..003}", 'shards: .*in quotes: "{000..003}"'),
    "empty objective": ("  match: {name", "  # match: {name", "objective: nothing stands here"),
    "variant that is no mapping": ("  small: {", "  tiny: 3\n  small: {", "variants.tiny: 3 will not do"),
}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(old: str, new: str) -> int:
    """mine.yaml, the quickstart with a mistake in it; returns the mistake's line."""
    text = QUICKSTART.read_text()
    assert old in text
    Path("mine.yaml").write_text(text.replace(old, new, 1))
    return text[: text.index(old)].count("\n") + 1


def pattern(said: str) -> str:
    return ".*".join(re.escape(part) for part in said.split(".*"))


@pytest.mark.parametrize("old,new,said", IN_THE_FILE.values(), ids=IN_THE_FILE.keys())
def test_a_mistake_in_the_file_is_told_with_its_place_and_its_remedy(old, new, said):
    line = written(old, new)
    with pytest.raises(RecipeError) as error:
        load("mine.yaml")
    told = re.fullmatch(r"mine\.yaml:(\d+): (.*)", str(error.value))
    assert told, str(error.value)
    assert re.search(pattern(said), told[2]), told[2]
    assert int(told[1]) in range(line - 1, line + 3)
    assert error.value.remedy and error.value.exit_status == 2


def test_the_line_is_the_key_s_own():
    line = written("  steps: ", "  stesp: ")
    with pytest.raises(RecipeError, match=f"mine.yaml:{line}: train.stesp"):
        load("mine.yaml")


OVERRIDES = {
    "train.stpes=5": "train.stpes: there is no such key. Did you mean 'steps' (a whole number above 0)?",
    "train.steps=many": "train.steps: 'many' will not do. It may be a whole number above 0.",
    "train.steps.x=3": "train.steps is .*, which has no keys. Set train.steps itself.",
    "data.worker=3": "data.worker: there is no such key. Did you mean 'workers'",
    "towers.imag.encoder.embed_dim=3": "towers.imag: the key 'views' is missing. .*Did you mean 'image'?",
    "towers.image.encoder.embed_dim=wide": "towers.image.encoder.embed_dim: 'wide' will not do.",
    "views.image.ops.9.size=16": "views.image.ops is a list of 3, and '9' is none of its places.",
    "views.image.ops.0.sise=16": "views.image.ops.0.sise: resize has no key 'sise'. Did you mean 'size'",
    "train.optimiser.lr=fast": "train.optimiser.lr: 'fast' .*a number, or a schedule: {cosine | linear | steps",
    "train.optimiser.lr={cosin: {start: 1}}": "lr.cosin: there is no schedule 'cosin'. Did you mean 'cosine'",
    "train.optimiser.lr={cosine: {strat: 1}}": "lr.cosine.strat: cosine has no key 'strat'. Did you mean 'start'",
    "train.optimiser.lr={steps: {at_steps: [5], values: [1]}}": "at_steps begins with 0",
    "train.optimiser.lr={cosine: ": "'{cosine: ' is not YAML",
    "train.optimiser.betas=[0.9]": "betas: [0.9] will not do. It may be a list of 2, each a number.",
    "train.optimiser={3: 4}": "YAML reads a key of '{3: 4}' as something other than text.",
    "objective.match.weight=heavy": "objective.match.weight: 'heavy' will not do.",
    "objective.match.temperature={cosine: {}}": "match.temperature.cosine: cosine needs the key 'start'.",
    "objective.match={name: of_parts, of: [image], term: {name: distance, rows: imag, columns: text}}": (
        "objective.match.term.rows: there is no view that a tower embeds 'imag'. Did you mean 'image'"
    ),
    "base=other.yaml": "base and variants belong to the file.",
}


@pytest.mark.parametrize("override,said", OVERRIDES.items(), ids=OVERRIDES.keys())
def test_a_mistake_in_an_override_is_told_as_it_was_typed(override, said):
    with pytest.raises(RecipeError) as error:
        load(str(QUICKSTART), [override])
    place, what = str(error.value)[: len(f"override {override}: ")], str(error.value)[len(f"override {override}: ") :]
    assert place == f"override {override}: "
    assert re.search(pattern(said), what), what
    assert error.value.exit_status == 2


def test_a_mistake_in_a_variant_is_told_where_the_variant_is_written():
    line = written("small: {train.steps: 8", "small: {train.stpes: 8")
    load("mine.yaml")
    with pytest.raises(RecipeError, match=f"mine.yaml:{line}: train.stpes: .*'steps'"):
        load("mine.yaml:small")
    with pytest.raises(RecipeError, match="mine.yaml: there is no variant 'smal'. It has small."):
        load("mine.yaml:smal")


def test_what_is_no_override_is_refused():
    with pytest.raises(RecipeError, match="'nonsense' is not an override. Write key=value"):
        load(str(QUICKSTART), ["nonsense"])


def test_a_brace_list_that_the_shell_expanded_is_noticed():
    with pytest.raises(RecipeError, match="the shell has expanded a brace list. Quote it"):
        load(str(QUICKSTART), ["data.train.shards=a-000.tar", "data.train.shards=a-001.tar"])


def test_names_that_are_also_names_of_types_do_not_hide_the_place():
    text = QUICKSTART.read_text().replace("views: [image]", "views: [float]").replace("rows: image", "rows: float")
    text = text.replace("views:\n  image:", "views:\n  float:").replace("image: image, text", "image: float, text")
    Path("mine.yaml").write_text(text)
    assert "float" in load("mine.yaml").views
    with pytest.raises(RecipeError, match="views.float.feild: there is no such key. Did you mean 'field'"):
        load("mine.yaml", ["views.float.feild=image"])


def test_what_parts_are_of_is_an_id_for_the_term_within():
    same = "objective.pairs.term.targets={name: same_id, id: label}"
    assert load(SCENES, ["objective.pairs.facts={label: label}", same])
    with pytest.raises(RecipeError, match="objective.pairs.term.targets.id: there is no id of data.train 'lable'"):
        load(SCENES, [same.replace("id: label", "id: lable")])


def test_what_samples_say_of_a_teacher_must_be_in_every_sample():
    words = ["views.said={field: said, ops: []}", "data.train.fields.said=said.npy", "data.test.fields.said=said.npy"]
    words += ["teachers.old={name: cached, facts: {image: said}}", "views.image.eval_ops=null"]
    load(str(QUICKSTART), words)
    with pytest.raises(RecipeError, match="teachers.old.facts.image: it is read from the field 'said', which samples"):
        load(str(QUICKSTART), [*words, "data.train.optional=[said]"])
