"""What `python -m launch` is told on its command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from distpre.errors import RecipeError

REPOSITORY = Path(__file__).resolve().parent.parent

DESCRIPTION = """\
Train a recipe on Ray workers: on this machine, or on a running cluster.

  python -m launch recipes/quickstart.yaml                    train; again: resume from the last commit
  python -m launch recipes/quickstart.yaml:small              a variant of the recipe
  python -m launch recipes/quickstart.yaml train.steps=200 launch.workers=4 run.dir=runs/try
  python -m launch recipes/quickstart.yaml --check            show the resolved plan, start nothing
  python -m launch submit RECIPE --address http://HOST:8265   the same as a Ray job, on the cluster's head
  python -m launch doctor [RECIPE] [--address HOST:6379]      are the nodes fit for it? Green or red, with the remedy
"""
EPILOGUE = """\
A relative recipe is looked for in this folder, then in the repository. Ctrl-C finishes the step, commits and ends
(130); again, it kills at once. SIGUSR1 does as the first Ctrl-C (75: requeue). Faults of the input end with 2.
"""


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m launch",
        description=DESCRIPTION,
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE[:variant]", help="a YAML file, and the variant of it to train")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="dotted recipe keys and their YAML values")
    parser.add_argument("--check", action="store_true", help="print the resolved plan and end")
    parser.add_argument("--address", metavar="ADDR", help="a running Ray cluster (default: RAY_ADDRESS, else our own)")
    return parser.parse_intermixed_args(given)


def found(recipe: str) -> str:
    """The recipe's path, in the caller's folder or else in the repository. Raises RecipeError naming both."""
    path, colon, variant = recipe.partition(":")
    for folder in (Path.cwd(), REPOSITORY):
        if (folder / path).is_file():
            return f"{folder / path}{colon}{variant}"
    folders = " or ".join(dict.fromkeys(map(str, (Path.cwd(), REPOSITORY))))
    raise RecipeError(f"{path}: there is no such recipe in {folders}.", "Name a file as in recipes/quickstart.yaml.")
