from typing import Any, Literal

import pytest

from distpre.recipe.kinds import Misfit, fitted, listed, may_be, nearest
from distpre.recipe.schema import Component, Rate, TowerSpec, TrainSpec

KINDS = {
    "a whole number": int,
    "a number, or null": float | None,
    "text, or a list, each text": str | list[str],
    "a, b or 3": Literal["a", "b", 3],
    "a list of 2, each a number": tuple[float, float],
    "a mapping of names to text": dict[str, str],
    "a mapping": dict[str, Any],
    "a mapping with views, encoder, head": TowerSpec,
    "a number, or a schedule: {cosine | linear | steps: {its keys}}": Rate,
}


@pytest.mark.parametrize("said,hint", KINDS.items(), ids=KINDS.keys())
def test_a_type_is_told_in_words(said, hint):
    assert may_be(hint) == said


def test_bounds_are_told():
    keep, fraction = TrainSpec.model_fields["keep"], Component.model_fields["name"]
    assert may_be(keep.annotation, keep.metadata) == "a whole number above 0"
    assert may_be(fraction.annotation, fraction.metadata) == "text"


def test_a_misfit_names_the_first_part_that_does_not_fit():
    with pytest.raises(Misfit) as misfit:
        fitted(dict[str, list[int]], {"a": [1, 2], "b": [3, "x"]})
    assert (misfit.value.at, misfit.value.value, misfit.value.hint) == (("b", 1), "x", int)


def test_a_type_that_yaml_cannot_hold_is_left_alone():
    class Foreign:
        def __get_pydantic_core_schema__(self, *_):
            raise RuntimeError

    assert fitted(Foreign(), "anything") == "anything"


def test_lists_and_nearest_names_are_sentences():
    assert [listed(x) for x in ((), "a", "ab", "abc")] == ["nothing", "a", "a and b", "a, b and c"]
    assert nearest("stpes", ["steps", "batch"]) == "Did you mean 'steps'? " and nearest("x", ["steps"]) == ""
