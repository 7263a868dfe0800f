"""Work over processes of this machine, or over the cores of a Ray cluster."""

from __future__ import annotations

import argparse
import contextlib
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

from distpre.errors import DataError

REPOSITORY = Path(__file__).parents[2]
Job, Result = TypeVar("Job"), TypeVar("Result")
Workers = int | str  # processes of this machine; or "ray:HOST:PORT", or "ray", the cluster that Ray finds by itself


def spread(
    function: Callable[[Job], Result], jobs: list[Job], workers: Workers, doing: str, chunk: int = 1
) -> Iterator[Result]:
    """function(job) of each, in order, with a progress bar that says what is being done.

    Over Ray, every node must see the files under the same paths. Raises DataError where no cluster answers.
    """
    with contextlib.closing(_results(function, jobs, workers, chunk)) as results:
        screen = Console(stderr=True)
        yield from track(results, doing, len(jobs), console=screen, transient=True, disable=not screen.is_terminal)


def _results(function: Callable, jobs: list, workers: Workers, chunk: int) -> Iterator[Any]:
    if isinstance(workers, str):
        with _ray_pool(workers.removeprefix("ray").removeprefix(":") or "auto") as pool:
            yield from pool.imap(function, jobs, chunksize=chunk)
    elif workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            yield from pool.map(function, jobs, chunksize=chunk)
    else:
        yield from map(function, jobs)


@contextlib.contextmanager
def _ray_pool(address: str) -> Iterator[Any]:
    import ray
    from ray.util.multiprocessing import Pool

    code = {"env_vars": {"PYTHONPATH": str(REPOSITORY)}}
    try:
        if address.count(":") == 1:  # Ray itself would try for minutes
            host, port = address.split(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, runtime_env=code, log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError) as e:
        said = str(e).splitlines()[0]
        raise DataError(
            f"--workers ray:{address}: no Ray cluster answers there ({said}).", "Start it, or give a number."
        ) from e
    try:
        with Pool() as pool:
            yield pool
    finally:
        ray.shutdown()


def add_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=_workers,
        default=1,
        metavar="N|ray[:HOST:PORT]",
        help="processes, or Ray (default 1)",
    )


def _workers(text: str) -> Workers:
    if text == "ray" or text.startswith("ray:"):
        return text
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of processes nor ray[:HOST:PORT]")
    return int(text)
