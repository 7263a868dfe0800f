"""What a recipe says of its data: mixtures, orders by ids, fields that may be missing."""

import pytest

from distpre.data.mixture import Mixture
from distpre.data.pairing import Apart, Blocks
from distpre.errors import RecipeError
from distpre.recipe import load
from distpre.runtime import build
from tests.data.tars import numbered
from tests.recipe.test_load import QUICKSTART


@pytest.fixture
def shards(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    return numbered(tmp_path / "a", [6])[0], numbered(tmp_path / "b", [9])[0]


def recipe(shards, *more: str):
    fields = "fields={image: txt, text: txt}"
    ids = "ids={caption: json.group}"
    words = [f"data.{name}.{said}" for name in ("train", "other") for said in (fields, ids)]
    words += [f"data.train.shards={shards[0]}", f"data.other.shards={shards[1]}", "data.prepare=null", "evaluate=null"]
    return load(QUICKSTART, [*words, *more])


def test_a_mixture_draws_from_its_sources_by_weight(shards):
    source = build.training(recipe(shards, "data.mixture={train: 2, other: 1}"), lambda text: None)
    assert isinstance(source, Mixture) and source.quotas == [2, 1] and len(source) == 15
    assert len(build.training(recipe(shards), lambda text: None)) == 6


def test_pairings_are_components(shards):
    assert build.pairing(recipe(shards)) is None
    assert build.pairing(recipe(shards, "data.pairing={name: apart, id: caption}")) == Apart("caption")
    assert build.pairing(recipe(shards, "data.pairing={name: blocks, id: caption, size: 2}")) == Blocks("caption", 2)


@pytest.mark.parametrize(
    "words,said",
    [
        (["data.pairing={name: appart, id: caption}"], "there is no pairing 'appart'. Did you mean 'apart'"),
        (["data.pairing={name: apart, id: person}"], "there is no id of data.train 'person'"),
        (["data.mixture={train: 1, els: 2}"], "there is no source 'els'"),
        (["data.mixture={train: 0}"], "above 0"),
        (["data.mixture={train: 1}", "data.pairing={name: apart, id: caption}"], "are two orders of the training data"),
        (["data.train.optional=[depth]"], "there is no field of data.train 'depth'"),
        (["data.train.shapes={imag: [8]}"], "there is no field of data.train 'imag'. Did you mean 'image'"),
        (["data.train.shapes={image: [0]}"], "data.train.shapes.image.0: 0 will not do"),
    ],
)
def test_a_mistake_is_told(shards, words, said):
    with pytest.raises(RecipeError) as error:
        recipe(shards, *words)
    assert said in str(error.value)
