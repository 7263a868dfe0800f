import pytest

from launch.__main__ import main
from launch.arguments import REPOSITORY, found


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["launch", *arguments])
    return main()


def test_recipe_is_found_here_before_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert found("recipes/quickstart.yaml:small") == f"{REPOSITORY}/recipes/quickstart.yaml:small"
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/quickstart.yaml").touch()
    assert found("recipes/quickstart.yaml") == f"{tmp_path}/recipes/quickstart.yaml"


def test_missing_recipe_names_both_places_and_ends_with_2(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "nowhere.yaml") == 2
    told = capfd.readouterr().err
    assert "nowhere.yaml" in told and str(tmp_path) in told and str(REPOSITORY) in told and told.count("\n") == 1


def test_help_fits_one_screen(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--help")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 120
