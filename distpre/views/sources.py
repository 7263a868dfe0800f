"""One vector of several sources: captions of one thing, pictures of one shape, embedded beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class OneSource:
    """{source: (d,) or (k, d)} -> a unit vector (d,): of the groups one, of it a source, of that a row, each evenly.

    groups: lists of names of sources; those that a sample has count. OpenShape's texts (Liu et al. 2023, section 3.2)
    are [[raw], [blip, azure], [retrieved]], its pictures [[thumbnail], [renders]]. unless: {source: flag}: the source
    is left out where the sample has an array `flag` that is not 0, as for a text that has been judged to say nothing.
    Where nothing is left the sample has no such view, and its field is `optional`.
    """

    groups: list[list[str]]
    unless: dict[str, str] = field(default_factory=dict)

    def __call__(self, value: dict[str, Array], rng: np.random.Generator) -> Array | None:
        there = [[name for name in group if self._usable(value, name)] for group in self.groups]
        there = [group for group in there if group]
        if not there:
            return None
        group = there[rng.integers(len(there))]
        rows = np.atleast_2d(value[group[rng.integers(len(group))]])
        row = rows[rng.integers(len(rows))].astype(np.float32)
        length = np.linalg.norm(row)
        if not length > 0:
            raise ValueError(f"a vector of length {length}")
        return row / length

    def _usable(self, value: dict[str, Array], name: str) -> bool:
        flag = self.unless.get(name)
        return name in value and value[name].size > 0 and not (flag in value and np.any(value[flag]))
