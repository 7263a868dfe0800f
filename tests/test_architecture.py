"""The arrows of ARCHITECTURE.md against the imports in the code; the contents tables against what they name."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NOUNS = {"types", "errors", "schedule", "runtime.group"}
SIBLINGS = ("data", "views", "towers", "contrast")
# Room -> the rooms it may import, besides itself and the nouns.
MAY = {
    **{room: set() for room in SIBLINGS},
    "recipe": set(),  # components are imported by name, when a recipe names them
    "objectives": {"contrast"},
    "evaluators": set(),
    "runtime": {*SIBLINGS, "objectives", "evaluators", "recipe"},
    "train": {"recipe", "runtime"},
    "evaluate": {"recipe", "runtime"},
    "export": {"recipe", "runtime", "towers"},
}
# Library -> the only places that may import it.
ONLY_IN = {
    "ray": ("launch/",),
    "deepspeed": ("distpre/runtime/engine.py",),
    "webdataset": ("tools/",),
    "torch.distributed": ("distpre/contrast/", "distpre/runtime/"),
}


def files() -> list[Path]:
    return [p for room in ("distpre", "launch", "tools") for p in sorted((REPOSITORY / room).rglob("*.py"))]


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, dotted module) of every import, those inside functions too; `from a import b` counts as a.b and a."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, name.name) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.lineno, f"{node.module}.{name.name}") for name in node.names]
    return found


def room_of(module: str) -> str | None:
    """ "distpre.runtime.group.total" -> "runtime.group"; "distpre.data.order" -> "data"; None outside distpre."""
    parts = module.split(".")
    if parts[0] != "distpre" or len(parts) < 2:
        return None
    return "runtime.group" if parts[1:3] == ["runtime", "group"] else parts[1]


def test_imports_go_one_way():
    wrong = []
    for path in files():
        relative = path.relative_to(REPOSITORY)
        if relative.parts[0] != "distpre" or relative.name == "__init__.py" and len(relative.parts) == 2:
            continue
        mine = relative.parts[1].removesuffix(".py")
        if relative.as_posix() == "distpre/runtime/group.py":
            mine = "runtime.group"
        for line, module in imports(path):
            theirs = room_of(module)
            if theirs is None or theirs in NOUNS or theirs == mine:
                continue
            allowed = MAY.get(mine, set())
            if theirs not in allowed and not any(module.startswith(f"distpre.{a}") for a in allowed):
                wrong.append(f"{relative}:{line}: {mine} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_libraries_stay_in_their_rooms():
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line}: imports {module}"
        for path in files()
        for line, module in imports(path)
        for library, places in ONLY_IN.items()
        if (module == library or module.startswith(f"{library}."))
        and not path.relative_to(REPOSITORY).as_posix().startswith(places)
    ]
    assert not wrong, "\n".join(wrong)


def test_distpre_imports_neither_launch_nor_tools():
    wrong = [
        f"{path}:{line}: {module}"
        for path in files()
        if path.is_relative_to(REPOSITORY / "distpre")
        for line, module in imports(path)
        if module.split(".")[0] in ("launch", "tools")
    ]
    assert not wrong, "\n".join(wrong)


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
