from distpre.data.source import Source
from tests.data.tars import FIELDS, IDS, numbered
from tools.reshard import main


def samples(folder, split):
    names = sorted(str(p) for p in folder.glob(f"{split}-*.tar"))
    return [(s.key, s.fields["facts"]) for s in Source.open(names, {**FIELDS, "facts": "json"}, IDS).samples()]


def test_samples_keep_their_order_and_members(tmp_path, capsys):
    names = numbered(tmp_path, [5, 0, 8])
    assert main([*names, "--out", str(tmp_path / "new"), "--samples", "6", "--workers", "2"]) == 0
    assert "train: 13 samples in 3 shards" in capsys.readouterr().out
    there = samples(tmp_path / "new", "train")
    assert [facts["n"] for _, facts in there] == list(range(13))
    assert [key for key, _ in there] == [f"{i:08d}" for i in range(13)]


def test_a_split_keeps_an_id_together(tmp_path):
    names = numbered(tmp_path, [100], group=lambda n: f"person {n % 20}")
    options = ["--samples", "50", "--held-out", "0.3", "--id", "json.group"]
    assert main([*names, "--out", str(tmp_path / "new"), *options]) == 0
    train, test = ([f["group"] for _, f in samples(tmp_path / "new", s)] for s in ("train", "test"))
    assert len(train) + len(test) == 100 and test and not set(train) & set(test)


def test_what_cannot_be_split_is_said(tmp_path, capsys):
    names = numbered(tmp_path, [4], group=lambda n: None if n == 2 else n)
    arguments = [*names, "--out", str(tmp_path / "new"), "--samples", "2", "--held-out", "0.5", "--id", "json.group"]
    assert main(arguments) == 2
    assert "1 samples have no json.group" in capsys.readouterr().err
