"""What a person at the terminal is told. Every error says what is wrong and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps


class DistpreError(Exception):
    """A fault that its reader can mend. `remedy` is the next thing to try; exit_status is what a program ends with."""

    exit_status = 1

    def __init__(self, what: str, remedy: str = ""):
        super().__init__(what, remedy)  # both in args: exceptions cross process borders by pickle
        self.what, self.remedy = what, remedy

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}".strip()


class RecipeError(DistpreError):
    """The recipe, or an override of it, cannot be what was meant."""

    exit_status = 2


class DataError(DistpreError):
    """Shards, samples or manifests are missing, damaged or not what the recipe says."""

    exit_status = 2


class CheckpointError(DistpreError):
    """A run folder or a commit cannot be used."""

    exit_status = 2


class ClusterError(DistpreError):
    """Workers, devices or the network are not there or not as asked."""

    exit_status = 2


class NumericError(DistpreError):
    """A loss is not finite."""

    exit_status = 2


def program(main: Callable[..., int]) -> Callable[..., int]:
    """A program's `main` that tells a DistpreError in a line and returns its exit status."""

    @wraps(main)
    def run(*arguments: list[str]) -> int:
        try:
            return main(*arguments)
        except DistpreError as e:
            print(f"error: {e}", file=sys.stderr)
            return e.exit_status

    return run
