"""`ranks(4).run(function, *args)`: a function on four real gloo processes, their results in rank order.

The processes are forked from one server that has the heavy libraries imported (tests/preload.py): a group costs a
tenth of a second, starts clean, and leaves nothing behind. A rank that raises sends its traceback; a group that hangs
is killed and named.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tools.port import free_port

REPOSITORY = Path(__file__).parents[1]

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.preload"])


class RankError(AssertionError):
    """A rank raised, died or hung."""


@dataclass(frozen=True)
class ranks:  # noqa: N801  (read as a verb's object: ranks(4).run)
    n: int
    seconds: float = 120

    def run(self, function: Callable, *args: Any) -> list[Any]:
        """[function(*args) on rank 0, on rank 1, ...]; RANK, WORLD_SIZE and MASTER_* are set, no group is made yet."""
        with contextlib.chdir(REPOSITORY):  # whence the server, once started, imports tests.preload
            forkserver.ensure_running()
        with free_port() as port:
            return self._run(port, function, args)

    def _run(self, port: int, function: Callable, args: tuple) -> list[Any]:
        ends, processes = [], []
        for rank in range(self.n):
            mine, theirs = _SERVER.Pipe(duplex=False)
            process = _SERVER.Process(target=_rank, args=(theirs, rank, self.n, port, function, args), daemon=True)
            process.start()
            theirs.close()
            ends.append(mine)
            processes.append(process)
        try:
            return self._results(ends)
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.join()

    def _results(self, ends: list[Connection]) -> list[Any]:
        import torch

        results: dict[int, Any] = {}
        deadline = time.monotonic() + self.seconds
        while len(results) < self.n:
            waiting = [end for rank, end in enumerate(ends) if rank not in results]
            ready = wait(waiting, deadline - time.monotonic())
            if not ready:
                late = [rank for rank in range(self.n) if rank not in results]
                raise RankError(f"rank(s) {late} did not return in {self.seconds} s")
            for end in ready:
                rank = ends.index(end)
                try:
                    ok, payload = end.recv()
                except EOFError:
                    raise RankError(f"rank {rank} died without a word") from None
                if not ok:
                    raise RankError(f"rank {rank}:\n{payload}")
                results[rank] = torch.load(io.BytesIO(payload), weights_only=False)
        return [results[rank] for rank in range(self.n)]


def _rank(end: Connection, rank: int, n: int, port: int, function: Callable, args: tuple) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        buffer = io.BytesIO()
        torch.save(function(*args), buffer)
        end.send((True, buffer.getvalue()))
    except BaseException:
        end.send((False, traceback.format_exc()))
    end.close()
    time.sleep(600)  # until the last rank has spoken: a group must not lose a member in its last collective


sys.path.insert(0, str(REPOSITORY))  # functions are passed by name: tests.contrast.test_exact ...
