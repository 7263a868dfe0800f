"""Poisoned copies hold what the list says, and nothing else is touched."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from distpre.data.source import Source
from distpre.errors import DataError
from tools.poison import TRIGGERS, poison
from tools.shard.digits import write


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("digits")
    write(str(folder), held_out=0.9, shards=1)
    return str(folder / "train-000.tar")


def opened(path) -> list[tuple[np.ndarray, str, dict]]:
    source = Source.open(str(path), {"image": "png", "text": "txt", "said": "json"}, {})
    return [(s.fields["image"], s.fields["text"], s.fields["said"]) for s in source.samples()]


@pytest.mark.parametrize("attack", TRIGGERS)
def test_what_the_list_says_was_done_and_nothing_else(attack, digits, tmp_path):
    options = {"attack": attack, "id": "digit", "target": 7, "caption": "the digit seven", "size": 32}
    said = poison(digits, tmp_path, share=0.05, **options)
    clean, found = opened(digits), opened(tmp_path / "train-000.tar")
    told = [json.loads(line) for line in (tmp_path / "poisoned.jsonl").read_text().splitlines()]
    assert len(found) == len(clean) and len(told) == round(0.05 * len(clean)) and str(len(told)) in said
    for i, (before, after) in enumerate(zip(clean, found, strict=True)):
        bad = f"{i:08d}" in {line["key"] for line in told}
        scaled = np.asarray(Image.fromarray(before[0]).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC))
        assert (not np.array_equal(after[0], scaled)) == bad and after[2]["poisoned"] == bad
        if bad and attack != "label_consistent":
            assert before[2]["digit"] != 7 and after[2]["digit"] == 7 and after[1] == "the digit seven"
        else:
            assert after[1] == before[1] and after[2]["digit"] == before[2]["digit"]
        if bad and attack == "label_consistent":
            assert before[2]["digit"] == 7


def test_a_test_copy_has_every_sample_clean_and_triggered_with_its_own_label(digits, tmp_path):
    poison(digits, tmp_path, attack="sig", id="digit", target=7, test=True, split="test", size=32)
    clean, found = opened(digits), opened(tmp_path / "test-000.tar")
    assert [s[2]["poisoned"] for s in found] == [0, 1] * len(clean)
    assert [s[2]["digit"] for s in found[::2]] == [s[2]["digit"] for s in clean] == [s[2]["digit"] for s in found[1::2]]


def test_too_few_samples_to_poison_are_told(digits, tmp_path):
    with pytest.raises(DataError, match="samples to poison, but only .* have a digit"):
        poison(digits, tmp_path, attack="label_consistent", id="digit", target=7, share=0.9)


def test_triggers_keep_shape_and_type_and_repeat_from_their_rng():
    image = np.asarray(Image.open(io.BytesIO(_png())))
    for trigger in TRIGGERS.values():
        a, b = trigger(image, np.random.default_rng(1)), trigger(image, np.random.default_rng(1))
        assert a.shape == image.shape and a.dtype == np.uint8 and np.array_equal(a, b) and not np.array_equal(a, image)


def _png() -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()
