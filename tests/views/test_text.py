"""Text ops: the libraries' tokenizers, unchanged."""

import pickle
from collections import Counter

import numpy as np
import open_clip
import pytest

from distpre.errors import RecipeError
from distpre.recipe.resolve import build
from distpre.recipe.schema import Component
from distpre.views import CONTENTS, TOKENIZERS
from distpre.views.text import Eda, NgramTokenizer, OneOf, OpenClipTokenizer, Say, Tokenize, TransformersTokenizer


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_every_name_in_the_tables_can_be_imported():
    from distpre.recipe.resolve import named

    assert all(callable(named(name, "op")) for name in CONTENTS)
    assert all(callable(named(name, "tokenizer")) for name in TOKENIZERS)


@pytest.mark.parametrize("text", ["a handwritten seven", "", "naïve café ☕", "word " * 40])
def test_open_clip_ids_are_those_of_the_library(text, rng):
    ids = Tokenize(OpenClipTokenizer(context_length=12))(text, rng)
    assert ids.dtype == np.int64 and ids.shape == (12,)
    assert ids.tolist() == open_clip.SimpleTokenizer(context_length=12)([text])[0].tolist()


def test_a_model_name_gives_that_models_tokenizer(rng):
    ids = Tokenize(OpenClipTokenizer(model="ViT-B-32"))("a photo", rng)
    assert ids.tolist() == open_clip.get_tokenizer("ViT-B-32")(["a photo"])[0].tolist() and ids.shape == (77,)


def test_a_tokenizer_that_was_used_travels_to_another_process(rng):
    op = Tokenize(OpenClipTokenizer(context_length=8))
    ids = op("a dog", rng)
    assert (pickle.loads(pickle.dumps(op))("a dog", rng) == ids).all()


def test_a_recipe_builds_the_op_with_its_tokenizer(rng):
    op = build(Component(name="tokenize", tokenizer={"name": "open_clip", "context_length": 12}), "op")
    assert op("seven", rng).shape == (12,)


@pytest.fixture
def vocabulary(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "red": 2, "dog": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(tmp_path)
    return str(tmp_path)


def test_transformers_ids_have_the_texts_own_length_up_to_the_context(vocabulary, rng):
    op = Tokenize(TransformersTokenizer(vocabulary, context_length=3))
    assert op("a dog", rng).tolist() == [1, 3]
    assert op("a red dog dog dog", rng).tolist() == [1, 2, 3]
    assert op("a cat", rng).dtype == np.int64


def test_a_tokenizer_that_is_not_on_this_machine_is_a_recipe_error(tmp_path, rng):
    with pytest.raises(RecipeError, match="fetch: true"):
        TransformersTokenizer(str(tmp_path / "nowhere"), context_length=3)("a")


def test_one_of_chooses_among_a_list_or_lines_and_reaches_all(rng):
    for captions in (["a", "b", "c"], "a\nb\nc"):
        assert {OneOf()(captions, rng) for _ in range(60)} == {"a", "b", "c"}


@pytest.mark.parametrize("nothing", ["", []])
def test_one_of_nothing_says_so(nothing, rng):
    with pytest.raises(ValueError, match="no caption"):
        OneOf()(nothing, rng)


def test_eda_does_one_of_four_things_to_the_words_and_reaches_all(rng):
    text = "a small picture of a seven"
    op, seen = Eda(share=0.2, synonyms={"small": ["tiny"], "picture": ["photo"]}), set()
    for said in (op(text, rng).split() for _ in range(200)):
        before, after = Counter(text.split()), Counter(said)
        gone, come = before - after, after - before
        assert set(come) <= {"tiny", "photo"} and sum(come.values()) <= 1 and said
        seen.add("replace" if gone and come else "insert" if come else "delete" if gone else "swap")
        if come and gone:
            assert (*gone, *come) in {("small", "tiny"), ("picture", "photo")}
    assert seen == {"replace", "insert", "delete", "swap"}
    assert op("seven", rng) == "seven" and Eda()("a b", np.random.default_rng(1)).split() != ["a", "b", "b"]
    assert all(Eda(share=1.0)("a b c", np.random.default_rng(i)) for i in range(20))  # a word is left


def test_a_label_is_said_in_every_phrase_and_template_and_a_prompt_as_it_is(rng):
    say = Say("label", {"UP": ["rising", "getting up"]}, ["she is {}.", "{}"])
    said = Counter(say({"label": "UP"}, rng) for _ in range(400))
    assert set(said) == {"she is rising.", "she is getting up.", "rising", "getting up"} and min(said.values()) > 60
    assert say("a prompt", rng) == "a prompt"
    with pytest.raises(KeyError, match="DOWN"):
        say({"label": "DOWN"}, rng)


def test_ngrams_are_words_and_their_parts_in_any_language():
    def ids(text: str, **more: int) -> list[int]:
        return NgramTokenizer(**{"buckets": 10**6, "context_length": 99} | more)(text).tolist()

    assert len(ids("cat")) == 4  # cat, <ca, cat, at>: the word and the n-gram "cat" are one
    assert ids("cat")[0] == ids("cat")[2] and ids("Cat!") == ids("cat") and ids("a cat") == ids("a") + ids("cat")
    assert set(ids("東京都")) & set(ids("東京都庁")) and not set(ids("cat")) & set(ids("dog"))
    assert ids("cat cat", context_length=5) == (ids("cat") * 2)[:5] and ids("?!") == [0] == ids("")
    assert all(1 <= i <= 7 for i in ids("a long sentence with words", buckets=7))
    assert ids("seven")[0] == 1 + 2522131820 % 10**6  # crc32: the same on every machine
