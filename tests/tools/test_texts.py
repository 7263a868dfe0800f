"""Texts from a table: every row once, its texts as they are, and no value of the split column in both parts."""

import json

import pytest

from distpre.data.source import Source
from distpre.errors import DataError
from tools.shard import texts


def _table(folder, n=40):
    rows = [{"english": f"sentence {i % 10}", "other": f"S\u00e4tze \u2028 {i}", "language": "deu"} for i in range(n)]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, rows


def _read(folder, split):
    fields = {"other": "other.txt", "english": "english.txt", "facts": "json"}
    source = Source.open([str(p) for p in sorted(folder.glob(f"{split}-*.tar"))], fields, {"language": "json.language"})
    return [source.sample(source.raw(i)).fields for i in range(len(source))]


def test_rows_come_back_and_a_text_is_in_one_part_only(tmp_path):
    table, rows = _table(tmp_path)
    said = texts.write(table, tmp_path / "out", ["english", "other"], split_by="english", share=0.4, shard_samples=7)
    parts = {split: _read(tmp_path / "out", split) for split in ("train", "test")}
    back = [{k: x[k] for k in ("english", "other")} | x["facts"] for part in parts.values() for x in part]
    assert sorted(back, key=lambda x: x["other"]) == sorted(rows, key=lambda x: x["other"])
    english = {split: {x["english"] for x in part} for split, part in parts.items()}
    assert all(english.values()) and not english["train"] & english["test"]
    assert said.startswith(f"wrote {len(parts['train'])} rows for training and {len(parts['test'])} held out of ")


def test_a_column_that_is_not_there_is_told(tmp_path):
    table, _ = _table(tmp_path)
    with pytest.raises(DataError, match="row 1 has no column 'englsh'. Did you mean 'english'"):
        texts.write(table, tmp_path / "out", ["englsh", "other"])
    with pytest.raises(DataError, match="row 1 has no column 'langauge'. Did you mean 'language'"):
        texts.write(table, tmp_path / "out", ["english"], split_by="langauge")
    assert not (tmp_path / "out").exists()
