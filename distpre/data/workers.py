"""Processes that make batches, and a parent that takes them in order.

Task i goes to worker i mod `count`, so each worker's results come in order. A worker keeps no state: one that dies is
started again and given its tasks again. A worker whose parent is gone ends within a second, SIGKILL of the parent
included; one that is silent for `stall_seconds` is reported with what it was doing and its stack.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from distpre.data.ship import receive, send
from distpre.errors import DataError, DistpreError

AHEAD = 2  # tasks a worker holds
DEATHS = 3  # of one task, before it is given up


class Workers:
    """work: task -> result, as made in each worker; it may have an attribute `says`, called with what it is doing."""

    def __init__(self, work: Callable[[Any], Any], count: int, stall_seconds: float, note: Callable[[str], None]):
        self.work, self.stall_seconds, self.note = work, stall_seconds, note
        if count and multiprocessing.current_process().daemon:
            note("data: this process may not have children; batches are made in it")
            count = 0
        self.workers = [_Worker(work, number) for number in range(count)]
        self.sequence = 0
        self.waiting: list[deque[tuple[int, Any]]] = [deque() for _ in range(count)]  # sent, not yet returned
        self.results: dict[int, tuple[Any, float]] = {}  # and the seconds it took from the worker to here
        self.transfer_seconds = 0.0  # of the latest result
        self.deaths: Counter[int] = Counter()

    def run(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Results in the order of the tasks; up to AHEAD tasks a worker are under way."""
        if not self.workers:
            yield from map(self.work, tasks)
            return
        tasks = iter(tasks)
        mine: deque[int] = deque()
        try:
            while True:
                while len(mine) < AHEAD * len(self.workers) and (task := next(tasks, None)) is not None:
                    mine.append(self._send(task))
                if not mine:
                    return
                yield self._result(mine.popleft())
        finally:
            for sequence in mine:  # abandoned
                self.results[sequence] = None, 0.0

    def _send(self, task: Any) -> int:
        sequence, self.sequence = self.sequence, self.sequence + 1
        number = sequence % len(self.workers)
        self.waiting[number].append((sequence, task))
        with contextlib.suppress(OSError):  # dead: noticed when its result is waited for
            self.workers[number].end.send((sequence, task))
        return sequence

    def _result(self, sequence: int) -> Any:
        while sequence not in self.results:
            self._receive(sequence % len(self.workers))
        result, self.transfer_seconds = self.results.pop(sequence)
        if isinstance(result, BaseException):
            raise result
        return result

    def _receive(self, number: int) -> None:
        worker = self.workers[number]
        began, told = time.monotonic(), False
        while not wait([worker.end, worker.process.sentinel], timeout=1.0):
            if not told and time.monotonic() - began > self.stall_seconds:
                self.note(f"data: {worker.stalled(self.stall_seconds)}")
                told = True
        began = time.monotonic()
        try:
            sequence, result = receive(worker.end)
        except (EOFError, OSError):
            self._again(number)
            return
        self.waiting[number].popleft()
        if sequence in self.results:  # nobody wants it any more
            del self.results[sequence]
        else:
            self.results[sequence] = result, time.monotonic() - began

    def _again(self, number: int) -> None:
        """A worker died: another takes its place and its tasks."""
        dead = self.workers[number]
        why = dead.epitaph()
        sequence, task = self.waiting[number][0]
        self.deaths[sequence] += 1
        if self.deaths[sequence] == DEATHS:
            raise DataError(
                f"data: {why}, {DEATHS} times over the same batch ({task}).",
                "SIGKILL: the machine is out of memory, use fewer data.workers; SIGSEGV: look at the decoder of what "
                "it was reading.",
            )
        self.note(f"data: {why}; started again, nothing is lost")
        dead.close()
        self.workers[number] = _Worker(self.work, number)
        with contextlib.suppress(OSError):  # dead again
            for entry in self.waiting[number]:
                self.workers[number].end.send(entry)

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.workers = []


class _Worker:
    """One process, and the parent's end of its pipe."""

    def __init__(self, work: Callable[[Any], Any], number: int):
        # A forked child must not meet an initialised CUDA; a fork is otherwise the fastest start, and shares memory.
        context = multiprocessing.get_context("forkserver" if torch.cuda.is_initialized() else "fork")
        self.number, self.doing = number, context.RawArray("c", 256)
        self.stack = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the worker)
        self.end, theirs = context.Pipe()
        stack = self.stack.fileno() if context.get_start_method() == "fork" else None
        self.process = context.Process(
            target=_serve, args=(theirs, work, self.doing, stack), daemon=True, name=f"data-worker-{number}"
        )
        self.process.start()
        theirs.close()

    def where(self) -> str:
        return self.doing.value.decode(errors="replace") or "nothing yet"

    def epitaph(self) -> str:
        self.process.join(5)
        code = self.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return f"worker {self.number} (pid {self.process.pid}) ended with {how} while at: {self.where()}"

    def stalled(self, seconds: float) -> str:
        """What it is doing and its Python stack, which it writes on SIGUSR2."""
        os.kill(self.process.pid, signal.SIGUSR2)
        time.sleep(0.5)
        self.stack.seek(0)
        stack = self.stack.read().decode(errors="replace")
        return f"worker {self.number} (pid {self.process.pid}) silent for {seconds:.0f} s at: {self.where()}\n{stack}"

    def close(self) -> None:
        self.end.close()
        self.process.kill()  # it holds no state
        self.process.join()
        self.stack.close()


def _serve(end: Connection, work: Callable[[Any], Any], doing: Any, stack: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C and the warning of SLURM are the trainer's to answer
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if stack is not None:
        faulthandler.register(signal.SIGUSR2, file=stack)
    else:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(work, "says"):

        def says(text: str) -> None:
            doing.value = text.encode()[:255]

        work.says = says
    parent = os.getppid()
    try:
        while True:
            while not end.poll(1.0):
                if os.getppid() != parent:
                    return
            sequence, task = end.recv()
            send(end, (sequence, _answer(work, task)), parent)
    except (EOFError, OSError):  # the parent closed its end, or is gone
        return


def _answer(work: Callable[[Any], Any], task: Any) -> Any:
    try:
        return work(task)
    except DistpreError as e:
        return e
    except Exception:
        return RuntimeError(f"in a data worker, at {task}:\n{traceback.format_exc()}")
