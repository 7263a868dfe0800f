"""What `python -m launch` does, with a trainer of the tests: drive.py FUNCTION RESOLVED_RECIPE"""

import sys
from pathlib import Path

from distpre.recipe.schema import LaunchSpec
from distpre.runtime.report import Screen
from distpre.runtime.signals import Stop
from launch.cluster import cluster


def main() -> int:
    with Screen() as screen, cluster(None, 2):
        from launch.supervisor import Supervisor

        with Stop() as stop:
            return Supervisor(
                Path(sys.argv[2]).read_text(),
                LaunchSpec(workers=2, cpus_per_worker=1, gpus_per_worker=0, max_restarts=0, stall_seconds=60),
                screen=screen,
                stop=stop,
                trainer=f"fake_trainer:{sys.argv[1]}",
            ).run()


if __name__ == "__main__":
    sys.exit(main())
