"""`python -m distpre.checkpoint verify RUN`: whether every file of every commit is as it was written.

Ends with 0 where all is whole and with 1 where something is damaged, with the list of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from distpre.errors import CheckpointError, program
from distpre.runtime import commit
from distpre.runtime.commit import Commit


def verify(run_dir: str | Path, console: Console) -> dict[Commit, list[str]]:
    """{commit: what is wrong with its files}, oldest first; shows how far it is. Raises CheckpointError for no commit.

    A commit that a running training prunes meanwhile is left out.
    """
    found = commit.commits(run_dir)
    if not found:
        raise CheckpointError(f"{run_dir} holds no commit.", "Train it first, or name another run folder.")
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    faults = {}
    with Progress(*columns, console=console, transient=True) as progress:
        tasks = {its: progress.add_task(f"step {its.step}", total=its.bytes() or None) for its in found}
        for its, task in tasks.items():
            faults[its] = commit.faults(its, progress=lambda n, task=task: progress.advance(task, n))
    return {its: wrong for its, wrong in faults.items() if (its.path / commit.MARK).exists()}


@program
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m distpre.checkpoint", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    verbs.add_parser("verify", help="read every commit and compare it").add_argument("run", help="a run folder")
    run = parser.parse_args().run
    faults = verify(run, Console(stderr=True))
    table = Table("commit", "size", "state")
    for its, wrong in faults.items():
        table.add_row(its.path.name, decimal(its.bytes()), f"{len(wrong)} damaged" if wrong else "whole")
    Console().print(table)
    for its, wrong in faults.items():
        for line in wrong:
            print(f"{its.path}: {line}")
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())
