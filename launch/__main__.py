"""python -m launch RECIPE[:variant] [key=value ...]"""

from __future__ import annotations

import argparse
import os
import sys

from distpre.errors import DistpreError
from launch.arguments import arguments, found
from launch.watch import watch


def main() -> int:
    try:
        if sys.argv[1:2] == ["submit"]:
            from launch.submit import submit

            return submit(sys.argv[2:])
        if sys.argv[1:2] == ["doctor"]:
            from launch.doctor import doctor

            return doctor(sys.argv[2:])
        given = arguments()
        return check(given) if given.check else train(given)
    except DistpreError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_status
    except KeyboardInterrupt:
        return 130


def check(given: argparse.Namespace) -> int:
    from distpre.recipe import load
    from distpre.runtime.activations import activations
    from distpre.runtime.plan import plan

    recipe = load(found(given.recipe), overrides=given.overrides)
    print(plan(recipe), flush=True)
    print(activations(recipe))
    return 0


def train(given: argparse.Namespace) -> int:
    """In a process of its own: Ray may end the one that it is connected in."""
    return watch([sys.executable, "-m", "launch.driver", *sys.argv[1:]], given.address or os.environ.get("RAY_ADDRESS"))


if __name__ == "__main__":
    sys.exit(main())
