"""YAML with the place of every key."""

import pytest

from distpre.errors import RecipeError
from distpre.recipe.document import Document, text_of

NOT_YAML = {
    "a:\n  b: {c: train-{000..003}.tar, d: 1}\n": r'f.yaml:2:\d+: not YAML: .*must stand in quotes: "train-\{000',
    "a:\n  b: {x,y}.tar\n": r"f.yaml:2:\d+: not YAML: .*must stand in quotes",
    "a:\n  b: 1\nc\nd: 2\n": r"f.yaml:4:\d+: not YAML: .*A key ends with a colon",
    "a:\n\tb: 1\n": r"f.yaml:2:1: not YAML: .*Indent with spaces",
    "a: [1, 2\nb: 3\n": r"f.yaml:2:\d+: not YAML: expected ',' or '\]'.*quickstart.yaml",
    "a: *nowhere\n": r"f.yaml:1:4: not YAML: found undefined alias",
    "a: &a [*a]\n": "f.yaml: an alias stands inside its own anchor",
    "a: 1\n---\nb: 2\n": r"f.yaml:2:1: not YAML: but found another document",
    "- a\n": "f.yaml:1: the file is a list; a recipe is a mapping",
    "": "f.yaml:1: the file is empty; a recipe is a mapping",
}


@pytest.mark.parametrize("text,said", NOT_YAML.items(), ids=range(len(NOT_YAML)))
def test_what_is_not_a_recipe_is_told_with_line_column_and_remedy(text, said):
    with pytest.raises(RecipeError, match=f"(?s)^{said}") as error:
        Document.parse(text, "f.yaml")
    assert error.value.remedy


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(RecipeError, match="absent.yaml: cannot be read: no such file"):
        Document.read(tmp_path / "absent.yaml", "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes("a: é\n".encode("latin-1"))
    with pytest.raises(RecipeError, match="latin.yaml: cannot be read"):
        Document.read(tmp_path / "latin.yaml", "latin.yaml")
    with pytest.raises(RecipeError, match="folder: cannot be read: .*directory"):
        Document.read(tmp_path, "folder")


def test_every_key_knows_its_line_and_what_is_below_none_takes_its_parent_s():
    document = Document.parse("a:\n  b:\n    - {c: 1}\n    - 2\nd: 3\n", "f.yaml")
    lines = {("a",): 1, ("a", "b"): 2, ("a", "b", 0, "c"): 3, ("a", "b", 1): 4, ("d",): 5, ("a", "b", 9): 2}
    assert {key: document.origin(key) for key in lines} == {key: f"f.yaml:{line}" for key, line in lines.items()}


def test_an_override_takes_over_the_place_of_all_it_replaces():
    document = Document.parse("a: {b: {c: 1}}\n", "f.yaml")
    document.set("a.b", {"c": 2, "d": 3}, "override")
    assert document.origin(("a", "b", "c")) == document.origin(("a", "b", "d")) == "override"
    assert document.origin(("a",)) == "f.yaml:1"


def test_numbers_in_scientific_notation_are_numbers_and_such_text_stays_text():
    document = Document.parse("a: 1e-3\nb: 1.5E+2\nc: -2e3\nd: 1.0e-3\ne: '1e3'\nf: 1e3x\n", "f.yaml")
    assert document.data == {"a": 0.001, "b": 150.0, "c": -2000.0, "d": 0.001, "e": "1e3", "f": "1e3x"}
    assert Document.parse(text_of(document.data), "f.yaml").data == document.data


def test_laying_over_merges_mappings_and_replaces_other_components_and_schedules():
    base = Document.parse("e: {name: a, x: 1, y: 2}\nlr: {cosine: {start: 1, end: 0}}\nk: [1, 2]\nm: {p: 1}\n", "base")
    over = Document.parse("e: {x: 3}\nlr: {cosine: {start: 2}}\nk: [3]\nm: {q: 2}\n", "over").over(base)
    assert over.data == {
        "e": {"name": "a", "x": 3, "y": 2},
        "lr": {"cosine": {"start": 2, "end": 0}},
        "k": [3],
        "m": {"p": 1, "q": 2},
    }
    assert over.origin(("e", "y")) == "base:1" and over.origin(("e", "x")) == "over:1"
    other = Document.parse("e: {name: b, z: 3}\nlr: {linear: {start: 2, end: 1}}\n", "over").over(base)
    assert other.data["e"] == {"name": "b", "z": 3} and other.data["lr"] == {"linear": {"start": 2, "end": 1}}
    assert other.origin(("e", "x")).startswith("over")
