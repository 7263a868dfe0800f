import re
from pathlib import Path

from distpre.recipe import load
from distpre.runtime import build
from distpre.runtime.plan import plan

QUICKSTART = str(Path(__file__).parents[2] / "recipes/quickstart.yaml")


def figures(*overrides: str) -> dict[str, str]:
    lines = plan(load(f"{QUICKSTART}:small", list(overrides))).splitlines()
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines)


def test_the_plan_counts_what_the_model_has():
    model = build.model(load(f"{QUICKSTART}:small"))
    for name, tower in model.towers.items():
        count = sum(p.numel() for p in tower.parameters())
        assert figures()[f"tower {name}"].startswith(f"{count:,} parameters")


def test_memory_falls_with_the_zero_stage_as_the_formula_says():
    """4 tensors of 4 bytes a parameter, sharded over 2 workers: none, 2, 3 and 4 of them."""
    mib = [float(figures(f"train.zero={stage}")["memory a worker"].split()[0]) for stage in range(4)]
    assert [round(m / mib[0], 2) for m in mib] == [1.0, 0.75, 0.62, 0.5]


def test_a_plan_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures()
    assert not list(tmp_path.iterdir())
