from tests.data.tars import numbered
from tools.index import main


def test_it_indexes_and_says_what_it_found(tmp_path, capsys):
    names = numbered(tmp_path, [3, 4])
    assert main([tmp_path.as_posix() + "/shard-{000..001}.tar", "--id", "json.n", "--workers", "2"]) == 0
    said = capsys.readouterr().out
    assert "indexing 2 of 2 shards" in said and "json 7, txt 7" in said
    assert all((tmp_path / f"shard-00{i}.tar.index").exists() for i in range(len(names)))
    assert main(names) == 0 and "indexing" not in capsys.readouterr().out


def test_missing_shards_end_with_status_2(tmp_path, capsys):
    assert main([str(tmp_path / "none.tar")]) == 2
    assert "none.tar" in capsys.readouterr().err
