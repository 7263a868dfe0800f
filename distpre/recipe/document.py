"""A YAML file as plain data that remembers where each key was written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from distpre.errors import RecipeError
from distpre.schedule import SCHEDULES

Key = tuple[str | int, ...]

_TEXT = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
_FORM = "See recipes/quickstart.yaml for the form."
_BRACES = re.compile(r"\{[^{}\"']*(\.\.|,)[^{}\"':]*\}")


class _Loader(yaml.SafeLoader):
    """YAML 1.1, except that 1e-3 is a number (it wants 1.0e-3)."""


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that _Loader would take for numbers."""


_FLOAT = re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


@dataclass
class Document:
    """data: the mapping; origins: {key path: "file:line" or the override as typed}."""

    data: dict[str, Any]
    origins: dict[Key, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, shown: str) -> Document:
        """Raises RecipeError for a file that is absent, and as parse() does."""
        try:
            text = path.read_text()
        except FileNotFoundError as e:
            remedy = "Name a recipe, as in recipes/quickstart.yaml."
            raise RecipeError(f"{shown}: cannot be read: no such file.", remedy) from e
        except (OSError, UnicodeDecodeError) as e:
            raise RecipeError(f"{shown}: cannot be read: {e}.", "Name a YAML file.") from e
        return cls.parse(text, shown)

    @classmethod
    def parse(cls, text: str, shown: str) -> Document:
        """Raises RecipeError with file, line and column for what is not YAML, and for a key given twice."""
        try:
            node = yaml.compose(text, Loader=_Loader)
            data = yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
        except yaml.YAMLError as e:
            raise _not_yaml(e, text, shown) from e
        if not isinstance(data, dict):
            kind = "empty" if data is None else f"a {type(data).__name__}"
            raise RecipeError(f"{shown}:1: the file is {kind}; a recipe is a mapping of keys.", _FORM)
        document = cls(data)
        try:
            document._mark(node, (), shown)
        except RecursionError as e:
            raise RecipeError(f"{shown}: an alias stands inside its own anchor.", "Write it out.") from e
        return document

    def _mark(self, node: yaml.Node, at: Key, shown: str) -> None:
        self.origins.setdefault(at, f"{shown}:{node.start_mark.line + 1}")
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                here, origin = (*at, key.value), f"{shown}:{key.start_mark.line + 1}"
                if key.tag not in _TEXT:
                    what = f"{origin}: {dotted(at)}: YAML reads the key {key.value} as something other than text."
                    raise RecipeError(what, f'Put it in quotes: "{key.value}".')
                if here in self.origins:
                    what = f"{origin}: {dotted(here)} is given twice; the first is at {self.origins[here]}."
                    raise RecipeError(what, "Keep one of them.")
                self.origins[here] = origin
                self._mark(value, here, shown)
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                self._mark(value, (*at, i), shown)

    def over(self, base: Document) -> Document:
        """This document laid over a base: mappings are merged, everything else is replaced."""
        data = _merged(base.data, self.data)
        below = {key: origin for key, origin in base.origins.items() if found(data, key) == key}
        return Document(data, {**below, **self.origins})

    def set(self, path: str, value: Any, origin: str) -> None:
        """Sets one dotted key; a number steps into a list. Raises RecipeError where the path leads nowhere."""
        at, key = self.data, ()
        parts = path.split(".")
        for i, part in enumerate(parts):
            if isinstance(at, list):
                if not part.isdigit() or int(part) >= len(at):
                    what = f"{origin}: {dotted(key)} is a list of {len(at)}, and {part!r} is none of its places."
                    raise RecipeError(what, f"Count from 0, as in {dotted((*key, 0))}.")
                part = int(part)
            elif not isinstance(at, dict):
                what = f"{origin}: {dotted(key)} is {at!r}, which has no keys."
                raise RecipeError(what, f"Set {dotted(key)} itself.")
            key = (*key, part)
            if i == len(parts) - 1:
                self.origins = {k: o for k, o in self.origins.items() if k[: len(key)] != key}
                at[part] = value
            elif isinstance(at, dict) and at.get(part) is None:
                at[part] = {}
            self.origins.setdefault(key, origin)
            at = at[part]

    def origin(self, key: Key) -> str:
        """Where a key, or the nearest one above it, was written."""
        while key not in self.origins and key:
            key = key[:-1]
        return self.origins.get(key, "recipe")


def dotted(key: Key) -> str:
    return ".".join(map(str, key)) or "the recipe"


def found(data: Any, path: Key) -> Key:
    """The parts of a path that lead on in the data; others, as the type names in pydantic's, are left out."""
    key: Key = ()
    for part in path:
        there = part in data if isinstance(data, dict) else isinstance(data, list | tuple) and part in range(len(data))
        if there:
            data, key = data[part], (*key, part)
    return key


def value_at(data: Any, key: Key) -> Any:
    for part in key:
        data = data[part]
    return data


def value_of(text: str, origin: str) -> Any:
    """An override's value, read as YAML. Raises RecipeError."""
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.YAMLError as e:
        raise RecipeError(
            f"{origin}: {text!r} is not YAML: {getattr(e, 'problem', None) or e}.",
            """Quote a value that begins with a brace, for the shell and for YAML: 'run.dir="{a}"'.""",
        ) from e
    if not _has_text_keys(value):
        raise RecipeError(f"{origin}: YAML reads a key of {text!r} as something other than text.", "Put it in quotes.")
    return value


def _has_text_keys(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _has_text_keys(below) for key, below in value.items())
    return not isinstance(value, list) or all(map(_has_text_keys, value))


def text_of(data: dict[str, Any]) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=120)


def _not_yaml(e: yaml.YAMLError, text: str, shown: str) -> RecipeError:
    mark, lines = getattr(e, "problem_mark", None), text.splitlines()
    where = f"{shown}:{mark.line + 1}:{mark.column + 1}" if mark else shown
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    remedy = f"Mend that line. {_FORM}"
    if "\t" in line[: len(line) - len(line.lstrip())]:
        remedy = "Indent with spaces: YAML allows no tabs there."
    elif _BRACES.search(line):
        remedy = 'A brace list here must stand in quotes: "train-{000..127}.tar".'
    elif "expected ':'" in str(getattr(e, "problem", "")):
        remedy = "A key ends with a colon and a space, as in `steps: 200`; look at this line and the one before."
    return RecipeError(f"{where}: not YAML: {getattr(e, 'problem', None) or e}.", remedy)


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)) or _differ_in_kind(below, above):
        return above
    return {**below, **{k: _merged(below.get(k), v) for k, v in above.items()}}


def _differ_in_kind(below: dict[str, Any], above: dict[str, Any]) -> bool:
    """Two components of other names, or two schedules: the keywords of one are not the other's."""
    if "name" in below and "name" in above:
        return below["name"] != above["name"]
    schedules = len(below) == len(above) == 1 and {*below, *above} <= set(SCHEDULES)
    return schedules and set(below) != set(above)
