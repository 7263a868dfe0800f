"""The constructor is the schema: names are found, keywords checked, values made what the constructor declares."""

import sys
import types
from pathlib import Path

import pytest

from distpre.errors import RecipeError
from distpre.recipe import Component
from distpre.recipe.resolve import build, faults, named, schedule
from distpre.schedule import Constant, Cosine, Schedule, Steps


class Inner:
    def __init__(self, id: str):
        self.id = id


class Outer:
    made = 0

    def __init__(
        self,
        size: int,
        ratio: float = 0.5,
        pair: tuple[float, float] = (0.0, 1.0),
        path: Path | None = None,
        config: dict[str, object] | None = None,
        targets: Inner | None = None,
        temperature: Schedule | None = None,
    ):
        Outer.made += 1
        self.size, self.ratio, self.pair, self.path, self.config = size, ratio, pair, path, config
        self.targets, self.temperature = targets, temperature


def open_ended(size: int, **more: int) -> dict[str, int]:
    return {"size": size, **more}


@pytest.fixture(autouse=True)
def _lab(monkeypatch):
    module = types.ModuleType("lab")
    module.Outer, module.Inner, module.open_ended, module.constant = Outer, Inner, open_ended, 3
    monkeypatch.setitem(sys.modules, "lab", module)


def outer(**keywords) -> Component:
    return Component(name="lab:Outer", **keywords)


def said(component: Component) -> list[str]:
    return [f"{'.'.join(map(str, at))}: {what} {remedy}" for at, what, remedy in faults(component, "encoder")]


def test_components_are_built_with_those_inside_them_and_values_become_what_is_declared():
    inside = {"targets": {"name": "lab:Inner", "id": "x"}, "temperature": {"cosine": {"start": 1}}}
    made = build(outer(size="3", pair=[1, 2], path="a/b", **inside), "encoder")
    assert (made.size, made.pair, made.path, made.ratio) == (3, (1.0, 2.0), Path("a/b"), 0.5)
    assert made.targets.id == "x" and made.temperature == Cosine(start=1.0)
    assert build(outer(size=3, temperature=0.1), "encoder").temperature == Constant(0.1)
    assert build(outer(size=3, targets=None, temperature=None), "encoder").temperature is None


def test_checking_builds_nothing():
    before = Outer.made
    assert said(outer(size=3, targets={"name": "lab:Inner", "id": "x"})) == []
    assert Outer.made == before


FAULTS = {
    "unknown": ({"size": 1, "sise": 2}, "sise: lab:Outer has no key 'sise'. Did you mean 'size' (a whole number)?"),
    "missing": ({}, ": lab:Outer needs the key 'size'. It is a whole number."),
    "wrong": ({"size": "x"}, "size: 'x' will not do. It may be a whole number."),
    "wrong inside": ({"size": 1, "pair": [0, "x"]}, "pair.1: 'x' will not do. It may be a number."),
    "too short": ({"size": 1, "pair": [0]}, "pair: [0] will not do. It may be a list of 2, each a number."),
    "null": ({"size": None}, "size: None will not do."),
    "schedule": (
        {"size": 1, "temperature": "hot"},
        "temperature: 'hot' will not do. It may be a number, or a schedule",
    ),
    "nested": ({"size": 1, "targets": {"name": "lab:Inner"}}, "targets: lab:Inner needs the key 'id'. It is text."),
    "nested name": ({"size": 1, "targets": {"name": "sam_id"}}, "targets.name: there is no targets 'sam_id'. Did you"),
    "nested text": ({"size": 1, "targets": "same_id"}, "targets: 'same_id' will not do. It may be a mapping of `name`"),
}


@pytest.mark.parametrize("keywords,expected", FAULTS.values(), ids=FAULTS.keys())
def test_what_a_constructor_would_refuse_is_told_with_the_key(keywords, expected):
    assert said(outer(**keywords))[0].startswith(expected)


def test_a_function_that_takes_any_keyword_is_given_any():
    component = Component(name="lab:open_ended", size=1, more=2)
    assert said(component) == [] and build(component, "encoder") == {"size": 1, "more": 2}


def test_what_a_module_has_not_or_cannot_be_called_is_told():
    with pytest.raises(RecipeError, match="lab has no class or function 'Outr'. Did you mean 'Outer'"):
        named("lab:Outr", "encoder")
    with pytest.raises(RecipeError, match="lab has no class or function 'constant'"):
        named("lab:constant", "encoder")
    with pytest.raises(RecipeError, match="cannot be imported: No module named 'no_lab'.*python -c 'import no_lab.a'"):
        named("no_lab.a:B", "encoder")
    with pytest.raises(RecipeError, match="no prepare 'digits'. It may be \"module:Name\" of your own"):
        named("digits", "prepare")


def test_schedules_are_numbers_or_named():
    assert schedule(1) == Constant(1.0)
    assert schedule({"cosine": {"start": 1e-3, "end": 0, "warm_up": 2}}) == Cosine(1e-3, 0.0, 2)
    assert schedule({"steps": {"at_steps": [0, 5], "values": [1, 2]}}) == Steps((0, 5), (1.0, 2.0))


@pytest.mark.parametrize(
    "value",
    [True, "1", None, {}, {"cosine": 3}, {"cosine": {}, "linear": {}}, {"sine": {}}]
    + [{"steps": {"at_steps": a, "values": [1, 2]}} for a in ([5, 6], [0], [0, 0], [0, 5, 3], ["x", 1])],
    ids=str,
)
def test_what_is_no_schedule_is_refused(value):
    with pytest.raises(RecipeError) as error:
        schedule(value)
    assert error.value.remedy
