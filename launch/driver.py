"""The process that is connected to Ray: `python -m launch` starts it and starts it again if it is lost."""

from __future__ import annotations

import os
import shlex
import signal
import sys

from distpre.errors import DistpreError
from distpre.recipe import load, prepare
from distpre.runtime.folder import refuse_if_in_use
from distpre.runtime.report import Screen
from distpre.runtime.signals import EXIT_STATUS, Stop
from launch.arguments import arguments, found
from launch.cluster import cluster
from launch.watch import HEAD_LOST, end_with_parent

_JOIN_SECONDS = 120.0  # for the nodes of a running cluster


def main() -> int:
    end_with_parent()
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(EXIT_STATUS["usr1"]))  # until there is something to commit
    given = arguments()
    try:
        recipe = load(found(given.recipe), overrides=given.overrides)
        refuse_if_in_use(recipe.run.dir)
        others = [o for o in given.overrides if not o.startswith("train.steps=")]  # the screen says how many more
        command = shlex.join(["python", "-m", "launch", given.recipe, *others])
        workers, address = recipe.launch.workers, given.address or os.environ.get("RAY_ADDRESS")
        with Screen(command) as screen, cluster(address, workers.min):
            from launch.supervisor import HeadLost, Supervisor

            prepare(recipe, screen.say)
            with Stop() as stop:
                try:
                    patience = _JOIN_SECONDS if address else 0.0
                    return Supervisor(recipe.dump(), recipe.launch, screen=screen, stop=stop, patience=patience).run()
                except HeadLost as e:
                    screen.say(str(e))
                    sys.stdout.flush()
                    os._exit(HEAD_LOST)  # ray.shutdown would wait for the head
    except DistpreError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
