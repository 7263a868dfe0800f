"""A YAML file as plain data that remembers where each key came from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from distpre.errors import RecipeError

Key = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """YAML 1.1, except that 1e-3 is a number (it wants 1.0e-3)."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass
class Document:
    """data: the mapping; origins: {key path: "file:line" or the override as typed}."""

    data: dict[str, Any]
    origins: dict[Key, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, shown: str) -> Document:
        """Raises RecipeError with file, line and column for a file that is absent or is not YAML."""
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as e:
            raise RecipeError(f"{shown}: the recipe cannot be read ({e}).", "Name a YAML file.") from e
        try:
            node = yaml.compose(text, Loader=_Loader)
            data = yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
        except yaml.YAMLError as e:
            mark = getattr(e, "problem_mark", None)
            where = f"{shown}:{mark.line + 1}:{mark.column + 1}" if mark else shown
            line = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
            hint = (
                'A brace list inside {...} must stand in quotes: "train-{000..127}.tar".'
                if re.search(r"\{\d+\.\.\d+\}", line)
                else "Mend the line, or see recipes/quickstart.yaml for the form."
            )
            raise RecipeError(f"{where}: not YAML: {getattr(e, 'problem', e)}.", hint) from e
        if not isinstance(data, dict):
            raise RecipeError(f"{shown}:1: a recipe is a mapping of keys.", "See recipes/quickstart.yaml for the form.")
        document = cls(data)
        document._mark(node, (), shown)
        return document

    def _mark(self, node: yaml.Node, at: Key, shown: str) -> None:
        self.origins.setdefault(at, f"{shown}:{node.start_mark.line + 1}")
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                self.origins[*at, key.value] = f"{shown}:{key.start_mark.line + 1}"
                self._mark(value, (*at, key.value), shown)
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                self._mark(value, (*at, i), shown)

    def over(self, base: Document) -> Document:
        """This document laid over a base: mappings are merged, everything else is replaced."""
        return Document(_merged(base.data, self.data), {**base.origins, **self.origins})

    def set(self, dotted: str, value: Any, origin: str) -> None:
        """Sets one dotted key. Raises RecipeError where a part of the path is not a mapping."""
        keys = dotted.split(".")
        at = self.data
        for i, key in enumerate(keys[:-1]):
            if not isinstance(at.get(key), dict):
                if key in at:
                    raise RecipeError(f"{origin}: {'.'.join(keys[: i + 1])} has no keys below it.")
                at[key] = {}
            at = at[key]
        at[keys[-1]] = value
        self.origins[tuple(keys)] = origin

    def origin(self, key: Key) -> str:
        """Where a key, or the nearest one above it, was written."""
        while key not in self.origins and key:
            key = key[:-1]
        return self.origins.get(key, "recipe")


def value_of(text: str) -> Any:
    """An override's value, read as YAML."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    if "name" in above and above["name"] != below.get("name"):
        return above  # another component: the old one's keywords are not its
    return {**below, **{k: _merged(below.get(k), v) for k, v in above.items()}}
