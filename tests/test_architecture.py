"""The arrows of ARCHITECTURE.md against the imports in the code; the contents tables against what they name."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NOUNS = {"types", "errors", "schedule", "anchors", "group"}
SIBLINGS = ("data", "views", "towers", "contrast", "weighting")
# Room -> the rooms it may import, besides itself and the nouns.
MAY = {
    **{room: set() for room in SIBLINGS},
    "recipe": set(),  # components are imported by name, when a recipe names them
    "objectives": {"contrast"},
    "evaluators": set(),
    "runtime": {*SIBLINGS, "objectives", "evaluators", "recipe"},
    "train": {"recipe", "runtime"},
    "evaluate": {"recipe", "runtime"},
    "checkpoint": {"runtime"},
    "export": {"recipe", "runtime", "towers"},
}
# Library -> the only places that may import it.
ONLY_IN = {
    "ray": ("launch/", "tools/shard/spread.py"),
    "deepspeed": ("distpre/runtime/engine.py", "tools/preload.py"),
    "webdataset": ("tools/",),
    "torch.distributed": ("distpre/contrast/", "distpre/group.py", "distpre/runtime/", "tools/bench/"),
}


def files(root: Path) -> list[Path]:
    return [p for room in ("distpre", "launch", "tools") for p in sorted((root / room).rglob("*.py"))]


def imports(path: Path, root: Path) -> list[tuple[int, str]]:
    """(line, dotted module) of every import, those inside functions too; `from a import b` counts as a.b."""
    found = []
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, name.name) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            found += [(node.lineno, f"{module}.{name.name}") for name in node.names]
    return found


def room_of(parts: list[str]) -> str | None:
    """distpre.data.order -> "data"; None outside distpre."""
    if parts[0] != "distpre" or len(parts) < 2:
        return None
    return parts[1]


def against_the_arrows(root: Path) -> list[str]:
    wrong = []
    for path in files(root):
        mine = room_of(list(path.relative_to(root).with_suffix("").parts))
        if mine in (None, "__init__"):
            continue
        allowed = {"types", "errors", "schedule"} if mine in NOUNS else {*NOUNS, *MAY.get(mine, ())}
        for line, module in imports(path, root):
            theirs = room_of(module.split("."))
            if theirs not in (None, mine) and theirs not in allowed:
                wrong.append(f"{path.relative_to(root)}:{line}: {mine} imports {module}")
            if module.split(".")[0] in ("launch", "tools"):
                wrong.append(f"{path.relative_to(root)}:{line}: distpre imports {module}")
    return wrong


def out_of_their_rooms(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{line}: imports {module}"
        for path in files(root)
        for line, module in imports(path, root)
        for library, places in ONLY_IN.items()
        if f"{module}.".startswith(f"{library}.") and not path.relative_to(root).as_posix().startswith(places)
    ]


def test_imports_go_one_way():
    wrong = against_the_arrows(REPOSITORY)
    assert not wrong, "\n".join(wrong)


def test_libraries_stay_in_their_rooms():
    wrong = out_of_their_rooms(REPOSITORY)
    assert not wrong, "\n".join(wrong)


def circle(root: Path) -> list[str]:
    """Files that import one another in a ring, those inside functions too."""
    names = {".".join(path.relative_to(root).with_suffix("").parts): path for path in files(root)}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    arrows = {}
    for name, path in names.items():
        found = [m if m in names else m.rpartition(".")[0] for _, m in imports(path, root)]
        arrows[name] = [m for m in found if m in names and m != name]
    done: set[str] = set()

    def down(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        ring = next(filter(None, (down(below, [*way, name]) for below in arrows[name])), [])
        done.add(name)
        return ring

    return next(filter(None, (down(name, []) for name in arrows)), [])


def test_no_file_imports_itself_by_way_of_others():
    assert not (ring := circle(REPOSITORY)), " imports ".join(ring)


def test_a_ring_of_imports_is_found(tmp_path):
    (tmp_path / "tools").mkdir()
    for name, other in ("ab", "bc", "ca"):
        (tmp_path / f"tools/{name}.py").write_text(f"def f():\n    from tools.{other} import g\n")
    assert circle(tmp_path) == ["tools.a", "tools.b", "tools.c", "tools.a"]


OFFENCES = {
    "distpre/views/a.py": ("from distpre.data import order", "views imports distpre.data.order"),
    "distpre/contrast/a.py": ("def f():\n    import distpre.towers.model", "contrast imports distpre.towers.model"),
    "distpre/data/a.py": ("from ..views import pipeline", "data imports distpre.views.pipeline"),
    "distpre/recipe/a.py": ("from distpre.runtime import build", "recipe imports distpre.runtime.build"),
    "distpre/objectives/a.py": ("from distpre.recipe import load", "objectives imports distpre.recipe.load"),
    "distpre/types.py": ("from distpre.group import rank", "types imports distpre.group.rank"),
    "distpre/group.py": ("from distpre.runtime import engine", "group imports distpre.runtime.engine"),
    "distpre/train.py": ("import launch.worker", "distpre imports launch.worker"),
    "distpre/towers/a.py": ("from torch import distributed", "imports torch.distributed"),
    "distpre/runtime/a.py": ("from deepspeed import zero", "imports deepspeed.zero"),
    "tools/a.py": ("import ray", "imports ray"),
    "distpre/data/b.py": ("import webdataset as wds", "imports webdataset"),
}


@pytest.mark.parametrize("path,source,said", [(p, *o) for p, o in OFFENCES.items()], ids=OFFENCES.keys())
def test_an_offence_is_found_with_its_file_and_line(path, source, said, tmp_path):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(f"import os\n{source}\n")
    [found] = [*against_the_arrows(tmp_path), *out_of_their_rooms(tmp_path)]
    assert found == f"{path}:{2 + source.count(chr(10))}: {said}"


def tables() -> list[tuple[str, str]]:
    from distpre.recipe.resolve import TABLES

    found = []
    for table in filter(None, TABLES.values()):
        module, name = table.split(":")
        found += [(table, path) for path in getattr(importlib.import_module(module), name).values()]
    return found


@pytest.mark.parametrize("table,path", tables())
def test_every_row_of_a_contents_table_names_something(table, path):
    module, name = path.split(":")
    assert callable(getattr(importlib.import_module(module), name))
