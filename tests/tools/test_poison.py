"""Poisoned copies hold what the list says, and nothing else is touched."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from distpre.data.source import Source
from distpre.errors import DataError
from tools.poison import OF_SIGNALS, TRIGGERS, YUV, ctrl, poison
from tools.shard.digits import write
from tools.shard.writer import write_shards


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("digits")
    write(str(folder), held_out=0.9, shards=1)
    return str(folder / "train-000.tar")


def opened(path) -> list[tuple[np.ndarray, str, dict]]:
    source = Source.open(str(path), {"image": "png", "text": "txt", "said": "json"}, {})
    return [(s.fields["image"], s.fields["text"], s.fields["said"]) for s in source.samples()]


@pytest.mark.parametrize("attack", [a for a in TRIGGERS if a not in OF_SIGNALS])
def test_what_the_list_says_was_done_and_nothing_else(attack, digits, tmp_path):
    options = {"attack": attack, "id": "digit", "target": 7, "captions": ["the digit seven"], "size": 32}
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


def test_a_target_that_no_sample_has_is_told(digits, tmp_path):
    with pytest.raises(DataError, match="no sample has the digit '7'.*are 0, 1, 2, .*JSON"):
        poison(digits, tmp_path, attack="sig", id="digit", target="7")


def test_ctrl_adds_two_frequencies_to_the_colours_alone_in_windows_that_fit():
    from scipy.fft import dctn

    image = np.full((64, 40, 3), 128, np.uint8)
    changed = (ctrl(image, np.random.default_rng(0)) - 128.0) @ YUV.T
    assert not changed[:, 32:].any() and np.abs(changed[..., 0]).max() < 1.5  # half a level of rounding in R, G and B
    for window in (changed[:32, :32], changed[32:, :32]):
        for colour in (1, 2):
            found = dctn(window[..., colour], norm="ortho")
            assert found[15, 15] == pytest.approx(100, abs=2) and found[31, 31] == pytest.approx(100, abs=2)
            found[[15, 31], [15, 31]] = 0
            assert np.abs(found).max() < 3


def test_pictures_too_small_for_ctrl_are_refused(digits, tmp_path):
    with pytest.raises(DataError, match="windows of 32 pixels, and an image has 8 x 8.*--size 32"):
        poison(digits, tmp_path, attack="ctrl", id="digit", target=7)


def test_a_signal_gets_a_burst_in_one_place_and_keeps_its_type(tmp_path):
    def members(i: int) -> dict[str, bytes]:
        content = io.BytesIO()
        np.save(content, np.random.default_rng(i).normal(size=(2, 400)).astype(np.float32))
        facts = json.dumps({"person": i % 4}).encode()
        return {"ecg.npy": content.getvalue(), "ppg.npy": content.getvalue(), "json": facts}

    write_shards(tmp_path, "train", list(range(40)), members, shard_samples=40)
    shard, asked = str(tmp_path / "train-000.tar"), {"attack": "burst", "id": "person", "target": 3, "share": 0.1}
    with pytest.raises(DataError, match="2 of the kind among ecg.npy, json, ppg.npy"):
        poison(shard, tmp_path / "no", **asked)
    with pytest.raises(DataError, match="none among"):
        poison(shard, tmp_path / "no", **asked | {"attack": "blended"})
    poison(shard, tmp_path / "out", **asked, field="ecg.npy")
    before, after = (
        list(Source.open(str(path), {"ecg": "ecg.npy", "ppg": "ppg.npy", "said": "json"}, {}).samples())
        for path in (shard, tmp_path / "out" / "train-000.tar")
    )
    bad = [i for i, sample in enumerate(after) if sample.fields["said"]["poisoned"]]
    assert len(bad) == 4 and all(after[i].fields["said"]["person"] == 3 for i in bad)
    for i, (was, now) in enumerate(zip(before, after, strict=True)):
        assert np.array_equal(was.fields["ppg"], now.fields["ppg"]) and now.fields["ecg"].dtype == np.float32
        changed = (was.fields["ecg"] != now.fields["ecg"]).any(0).nonzero()[0]
        assert len(changed) == 0 if i not in bad else 40 < np.ptp(changed) + 1 <= 400 // 8


def test_triggers_keep_shape_and_type_and_repeat_from_their_rng():
    image = np.asarray(Image.open(io.BytesIO(_png())))
    for trigger in (trigger for name, trigger in TRIGGERS.items() if name not in OF_SIGNALS):
        a, b = trigger(image, np.random.default_rng(1)), trigger(image, np.random.default_rng(1))
        assert a.shape == image.shape and a.dtype == np.uint8 and np.array_equal(a, b) and not np.array_equal(a, image)


def _png() -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()
