"""Shards: what is in them, that they repeat, go on after a kill, never mix, and what is said of wrong sources."""

import io
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from distpre.data.source import Source
from distpre.errors import DataError
from tools.shard import class_folder, digits, emoji, image_text, people, writer

REPOSITORY = Path(__file__).parents[2]


def _samples(*shards: Path) -> list[dict]:
    """As webdataset itself reads them."""
    return list(webdataset.WebDataset([str(s) for s in shards], shardshuffle=False, empty_check=False))


def _tars(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.tar"))}


def _shard(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "tools.shard", *map(str, arguments)], cwd=REPOSITORY, capture_output=True, text=True
    )


def _letters(row: int) -> dict[str, bytes]:
    return {"txt": f"row {row}".encode()}


def _fails_at_seven(row: int) -> dict[str, bytes]:
    if row == 7:
        raise RuntimeError("killed")
    return _letters(row)


def _png(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), shade).save(path)
    return path


# the writer


def test_shards_hold_every_row_once_in_order(tmp_path):
    paths = writer.write_shards(tmp_path, "train", list(range(10)), _letters, shard_samples=4)
    assert [p.name for p in paths] == ["train-000.tar", "train-001.tar", "train-002.tar"]
    read = _samples(*paths)
    assert [s["txt"].decode() for s in read] == [f"row {i}" for i in range(10)]
    assert [s["__key__"] for s in read] == [f"{i:08d}" for i in range(10)]


def test_the_same_rows_give_the_same_bytes_by_any_number_of_processes(tmp_path):
    for folder, workers in (("a", 1), ("b", 3)):
        writer.write_shards(tmp_path / folder, "train", list(range(10)), _letters, shard_samples=3, workers=workers)
    assert _tars(tmp_path / "a") == _tars(tmp_path / "b") and len(_tars(tmp_path / "a")) == 4


def test_a_stopped_writer_leaves_whole_shards_and_goes_on(tmp_path):
    rows = list(range(10))
    with pytest.raises(RuntimeError):
        writer.write_shards(tmp_path / "cut", "train", rows, _fails_at_seven, shard_samples=3)
    assert sorted(_tars(tmp_path / "cut")) == ["train-000.tar", "train-001.tar"]
    first = (tmp_path / "cut" / "train-000.tar").stat().st_mtime_ns
    writer.write_shards(tmp_path / "cut", "train", rows, _letters, shard_samples=3)
    writer.write_shards(tmp_path / "whole", "train", rows, _letters, shard_samples=3)
    assert _tars(tmp_path / "cut") == _tars(tmp_path / "whole")
    assert (tmp_path / "cut" / "train-000.tar").stat().st_mtime_ns == first


@pytest.mark.parametrize("rows, size", [(list(range(9)), 4), (list(range(10)), 5), (list(range(10))[::-1], 4)])
def test_shards_of_other_rows_or_size_are_not_mixed_in(tmp_path, rows, size):
    writer.write_shards(tmp_path, "train", list(range(10)), _letters, shard_samples=4)
    before = _tars(tmp_path)
    with pytest.raises(DataError, match="other rows"):
        writer.write_shards(tmp_path, "train", rows, _letters, shard_samples=size)
    assert _tars(tmp_path) == before


def test_rows_that_differ_in_the_middle_of_a_large_array_are_other_rows(tmp_path):
    row = np.zeros(5000)
    writer.write_shards(tmp_path, "train", [(row, 1)], _letter, shard_samples=1)
    writer.write_shards(tmp_path, "train", [(row.copy(), 1)], _letter, shard_samples=1)
    row[2500] = 1
    with pytest.raises(DataError, match="other rows"):
        writer.write_shards(tmp_path, "train", [(row, 1)], _letter, shard_samples=1)


def _letter(row: object) -> dict[str, bytes]:
    return {"txt": b"a"}


def test_the_sums_are_those_of_sha256sum(tmp_path):
    writer.write_shards(tmp_path, "train", list(range(5)), _letters, shard_samples=2)
    checked = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0 and checked.stdout.count("OK") == 3


def test_held_out_follows_the_share_and_a_larger_share_only_adds():
    names = [f"person {i}" for i in range(4000)]
    small, large = ({n for n in names if writer.held_out(n, share)} for share in (0.15, 0.3))
    assert abs(len(small) - 600) < 4 * np.sqrt(4000 * 0.15 * 0.85)
    assert small < large
    assert not any(writer.held_out(n, 0.0) for n in names) and all(writer.held_out(n, 1.0) for n in names)


# digits


@pytest.fixture(scope="module")
def digit_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    assert "1438" in digits.write(str(folder))
    return folder


def test_digits_are_the_scans_of_scikit_learn_each_once(digit_folder):
    from sklearn.datasets import load_digits

    expected = sorted(
        (np.round(s * 255 / 16).astype(np.uint8).tobytes(), int(t))
        for s, t in zip(*load_digits(return_X_y=True), strict=True)
    )
    found = []
    for sample in _samples(*sorted(digit_folder.glob("*.tar"))):
        picture = np.array(Image.open(io.BytesIO(sample["png"])))
        assert picture.shape == (8, 8)
        found.append((picture.tobytes(), json.loads(sample["json"])["digit"]))
    assert sorted(found) == expected


def test_captions_of_digits_name_the_digit_in_several_ways(digit_folder):
    captions: dict[int, set[str]] = {}
    for sample in _samples(*sorted(digit_folder.glob("*.tar"))):
        captions.setdefault(json.loads(sample["json"])["digit"], set()).add(sample["txt"].decode())
    for digit, said in captions.items():
        assert len(said) == len(digits.TEMPLATES) and all(digits.WORDS[digit] in s for s in said)


def test_the_quickstart_finds_its_digits(digit_folder, monkeypatch):
    from distpre.recipe import load

    data = load(str(REPOSITORY / "recipes/quickstart.yaml")).data
    assert {Path(p).name for s in data.sources.values() for p in _names(s.shards)} == set(_tars(digit_folder))
    test = data.sources["test"]
    source = Source.open(str(digit_folder / Path(test.shards).name), test.fields, test.ids, note=lambda text: None)
    assert len(source) == 359


def _names(shards) -> list[str]:
    from distpre.data.shards import expand

    return expand(shards)


def test_digits_without_a_test_part_and_with_another_seed(tmp_path, digit_folder):
    digits.write(str(tmp_path / "a"), held_out=0.0, shards=2)
    assert sorted(_tars(tmp_path / "a")) == ["train-000.tar", "train-001.tar"]
    digits.write(str(tmp_path / "b"), seed=1)
    assert _tars(tmp_path / "b")["test-000.tar"] != _tars(digit_folder)["test-000.tar"]


def test_copies_of_digits_are_shifted_and_captioned_anew_and_held_out_scans_have_none(tmp_path):
    digits.write(str(tmp_path / "once"), held_out=0.97, shards=1, side=16)
    digits.write(str(tmp_path / "thrice"), held_out=0.97, shards=1, side=16, copies=3)
    once, thrice = _tars(tmp_path / "once"), _tars(tmp_path / "thrice")
    assert once["test-000.tar"] == thrice["test-000.tar"]
    plain, found = (_samples(tmp_path / name / "train-000.tar") for name in ("once", "thrice"))
    assert len(found) == 3 * len(plain) and all(a["png"] == b["png"] for a, b in zip(plain, found, strict=False))
    others = [found[len(plain) : 2 * len(plain)], found[2 * len(plain) :]]
    for scan, *copies in zip(plain, *others, strict=True):
        pixels = np.array(Image.open(io.BytesIO(scan["png"])))
        around = np.pad(pixels, 2, mode="edge")
        shifted = {around[top : top + 16, left : left + 16].tobytes() for top in range(5) for left in range(5)}
        for copy in copies:
            assert copy["json"] == scan["json"]
            assert np.array(Image.open(io.BytesIO(copy["png"]))).tobytes() in shifted
    assert sum(a["txt"] != b["txt"] for a, b in zip(*others, strict=True)) > len(plain) / 2


# pictures and captions


@pytest.fixture
def table(tmp_path) -> Path:
    rows = [{"file": f"pictures/{i}.png", "title": f"title, {i}", "who": f"p{i // 4}"} for i in range(40)]
    for i, row in enumerate(rows):
        _png(tmp_path / row["file"], i)
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    lines = ["file,title,who"] + [f'{r["file"]},"{r["title"]}",{r["who"]}' for r in rows]
    (tmp_path / "t.csv").write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "t.tsv").write_text("\n".join(["file\ttitle\twho"] + ["\t".join(r.values()) for r in rows]) + "\n")
    return tmp_path / "t.csv"


def test_csv_tsv_and_jsonl_say_the_same(table):
    said = [list(image_text.from_table(table.with_suffix(s), "file", "title")) for s in (".csv", ".tsv", ".jsonl")]
    assert said[0] == said[1] == said[2] and len(said[0]) == 40
    assert said[0][5].caption == "title, 5" and said[0][5].facts == {"who": "p1"}


def test_a_split_by_a_column_keeps_its_values_together(table, tmp_path):
    out = tmp_path / "out"
    arguments = ("--image", "file", "--caption", "title", "--split-by", "who", "--held-out", "0.4", "--workers", "2")
    done = _shard("image-text", table, "--out", out, "--shard-samples", "8", *arguments)
    assert done.returncode == 0, done.stderr
    people = {
        split: {json.loads(s["json"])["who"] for s in _samples(*sorted(out.glob(f"{split}-*.tar")))}
        for split in ("train", "test")
    }
    assert people["train"] and people["test"] and not people["train"] & people["test"]
    assert people["train"] | people["test"] == {f"p{i}" for i in range(10)}


def test_a_share_of_training_captions_is_anothers_and_says_so(table, tmp_path):
    pairs = list(image_text.from_table(table, "file", "title"))
    mixed = image_text.shuffled(pairs, 0.4)
    wrong = [pair.facts["wrong"] == 1 for pair in mixed]
    said, before = (sorted(pair.caption for pair in its) for its in (mixed, pairs))
    assert sum(wrong) == round(0.4 * len(pairs)) and said == before
    assert [a.caption != b.caption for a, b in zip(mixed, pairs, strict=True)] == wrong
    columns = ("--image", "file", "--caption", "title")
    done = _shard("image-text", table, "--out", tmp_path / "o", *columns, "--wrong", "0.4")
    assert done.returncode == 0, done.stderr
    told = [json.loads(s["json"])["wrong"] for s in _samples(*sorted((tmp_path / "o").glob("train-*.tar")))]
    assert sum(told) == sum(wrong)


def test_concepts_stand_before_the_caption_in_a_member_of_their_own(table, tmp_path):
    pairs = list(image_text.from_table(table, "file", "title"))
    image_text.write(pairs, tmp_path / "out", concepts="who")
    for s, pair in zip(_samples(*sorted((tmp_path / "out").glob("train-*.tar"))), pairs, strict=True):
        assert s["txt"].decode() == pair.caption
        assert s["concepts.txt"].decode() == f"{pair.facts['who']}. {pair.caption}"
    with pytest.raises(DataError, match="no column 'nouns' to put in front of captions. There is .*who"):
        image_text.write(pairs, tmp_path / "other", concepts="nouns")


def test_a_folder_of_pictures_and_texts_keeps_bytes_and_captions(tmp_path):
    for name in ("b", "sub/a"):
        _png(tmp_path / "in" / f"{name}.png", len(name)).with_suffix(".txt").write_text(f"caption of {name}\n")
    image_text.write(list(image_text.from_folder(tmp_path / "in")), tmp_path / "out")
    read = {s["txt"].decode(): s["png"] for s in _samples(tmp_path / "out" / "train-000.tar")}
    assert read == {f"caption of {n}": (tmp_path / "in" / f"{n}.png").read_bytes() for n in ("b", "sub/a")}


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--image", "file", "--caption", "titel"], ["no column 'titel'", "Did you mean 'title'?"]),
        (["--image", "file", "--caption", "title", "--split-by", "person"], ["no column 'person'", "who"]),
    ],
)
def test_a_wrong_column_is_named_with_the_right_one(table, tmp_path, arguments, says):
    done = _shard("image-text", table, "--out", tmp_path / "out", *arguments)
    assert done.returncode == 2 and all(s in done.stderr for s in says) and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_missing_pictures_are_listed_or_left_out(table, tmp_path):
    for i in (3, 4):
        os.remove(tmp_path / f"pictures/{i}.png")
    pairs = list(image_text.from_table(table, "file", "title"))
    with pytest.raises(DataError, match=r"2 pictures are missing: .*3\.png, .*4\.png"):
        image_text.write(pairs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "2 missing" in image_text.write(pairs, tmp_path / "out", skip_missing=True)
    assert len(_samples(tmp_path / "out" / "train-000.tar")) == 38


def test_a_picture_without_a_caption_is_listed(tmp_path):
    _png(tmp_path / "a.png").with_suffix(".txt").write_text("a")
    _png(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"1 of 2 pictures have no \.txt .*b\.png"):
        list(image_text.from_folder(tmp_path))


@pytest.mark.parametrize("kind", ["image-text", "class-folder"])
def test_an_empty_folder_and_a_missing_one_are_plain_errors(tmp_path, kind):
    for source in (tmp_path, tmp_path / "absent"):
        done = _shard(kind, source, "--out", tmp_path / "out")
        assert done.returncode == 2 and done.stderr.startswith("error: ") and str(source) in done.stderr


def test_a_refusal_comes_before_torch_which_takes_seconds(tmp_path):
    words = ["-X", "importtime", "-m", "tools.shard", "image-text", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 2 and "tools.shard.writer" in imported and "torch" not in imported


def test_a_folder_of_links_to_folders_is_told_so(tmp_path):
    _png(tmp_path / "there/a/b.png")
    (tmp_path / "here").mkdir()
    (tmp_path / "here/link").symlink_to(tmp_path / "there")
    with pytest.raises(DataError, match="here: holds no samples. .*here/link is a link to a folder, which is not foll"):
        writer.counted(image_text.from_folder(tmp_path / "here"), str(tmp_path / "here"))


@pytest.mark.parametrize(
    "name, text, says",
    [("t.jsonl", '{"image": "a"}\n{"image": \n', "t.jsonl:2"), ("t.jsonl", "[1]\n", "not an object"),
     ("t.csv", "image,caption\na.png,b\na.png,red, round\n", "t.csv:3: more values")],
)  # fmt: skip
def test_a_broken_row_is_named_by_its_line(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says):
        list(image_text.table_rows(tmp_path / name))


# classes


def test_class_folders_become_captions_and_labels(tmp_path):
    for name in ("River", "Annual_Crop"):
        for i in range(30):
            _png(tmp_path / "in" / name / f"{i}.png", i)
    done = _shard(
        "class-folder", tmp_path / "in", "--out", tmp_path / "out", "--held-out", "0.3", "--template", "a {}."
    )
    assert done.returncode == 0, done.stderr
    read = _samples(*sorted((tmp_path / "out").glob("*.tar")))
    said = {(s["txt"].decode(), json.loads(s["json"])["class"], json.loads(s["json"])["label"]) for s in read}
    assert said == {("a Annual Crop.", "Annual_Crop", 0), ("a River.", "River", 1)} and len(read) == 60
    assert {p.name for p in (tmp_path / "out").glob("*.tar")} == {"train-000.tar", "test-000.tar"}
    with pytest.raises(DataError, match="no {}"):
        list(class_folder.pairs(tmp_path / "in", "a photo"))


# emoji


def test_a_variant_takes_its_bases_name_and_an_unnamed_picture_is_left_out(tmp_path):
    for codes in ("1f44b", "1f44b_1f3fb", "2764", "1f9ff"):
        _png(tmp_path / "png" / f"emoji_u{codes}.png")
    names = {"👋": {"name": "waving hand", "group": "People"}, "❤️": {"name": "red heart", "group": "Smileys"}}
    (tmp_path / "names_data-by-emoji.json").write_text(json.dumps(names))
    (tmp_path / "keywords_emoji-en-US.json").write_text(json.dumps({"👋": ["waving hand", "say_hello"]}))
    found = {p.image.stem: (p.caption, p.facts["base"]) for p in emoji.pairs(tmp_path)}
    assert found == {
        "emoji_u1f44b": ("waving hand, say hello", "1f44b"),
        "emoji_u1f44b_1f3fb": ("waving hand, say hello", "1f44b"),
        "emoji_u2764": ("red heart", "2764"),
    }


def test_the_emoji_recipe_finds_the_shards_that_its_command_writes(shared_data, tmp_path):
    from distpre.recipe import load

    recipe = REPOSITORY / "recipes/image_text/emoji.yaml"
    [command] = [line for line in recipe.read_text().splitlines() if "tools.shard" in line]
    words = command.split("tools.shard ")[1].replace("FOLDER", str(shared_data / "emoji_noto")).split()
    words[words.index("--out") + 1] = str(tmp_path)
    done = _shard(*words)
    assert done.returncode == 0, done.stderr
    sources = load(str(recipe)).data.sources
    assert {Path(p).name for s in sources.values() for p in _names(s.shards)} == set(_tars(tmp_path))
    bases = {}
    for split in sources:
        read = _samples(*sorted(tmp_path.glob(f"{split}-*.tar")))
        assert all({"png", "txt", "json"} <= set(s) for s in read)
        bases[split] = {json.loads(s["json"])["base"] for s in read}
    assert not bases["train"] & bases["test"] and len(bases["train"] | bases["test"]) == 1336


def test_shards_of_the_same_rows_with_other_contents_are_not_taken_for_new_ones(tmp_path):
    for _ in range(2):
        writer.write_shards(tmp_path, "train", [1, 2], partial(told, "old"), shard_samples=2, of=("old",))
    with pytest.raises(DataError, match="shards of other rows, contents"):
        writer.write_shards(tmp_path, "train", [1, 2], partial(told, "new"), shard_samples=2, of=("new",))


def told(said, row):
    return {"txt": said.encode()}


def test_facts_of_participants_are_found_by_their_numbers_too(tmp_path):
    table = tmp_path / "people.jsonl"
    table.write_text('{"participant": 7, "age": 30}\n')
    assert people.facts(str(table), "participant") == {"7": {"age": 30}}
