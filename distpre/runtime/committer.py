"""Writing commits in the background: training waits only while the weights are copied to host memory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import save_file

from distpre import group
from distpre.errors import CheckpointError
from distpre.runtime.commit import ENGINE, MARK, MEMORY, STATE, WEIGHTS, Commit, commits, path_of
from distpre.runtime.engine import Engine, Write, to_host
from distpre.runtime.fingerprint import sha256
from distpre.types import Memory

PATIENCE = 60.0
T = TypeVar("T")


@dataclass(frozen=True)
class Written:
    """A commit that counts. seconds: from begin() until it did; waited: of them, training's."""

    commit: Commit
    seconds: float
    waited: float


class Committer:
    """The commits of one run, at most one of them in flight; all but the newest `keep` are pruned.

    begin() and settle() are called by every rank at the same steps; between them a thread of each rank writes, syncs
    and hashes its files. The threads agree over a group of their own, so that they never meet the training's
    collectives. Costs host memory: this rank's part of the optimiser, on rank 0 the whole weights as well.
    """

    def __init__(self, run_dir: str | Path, keep: int):
        self.run_dir, self.keep = run_dir, keep
        self.threads = group.aside()
        self.flight: Future[Written] | None = None

    def begin(self, engine: Engine, step: int, state: dict[str, Any], memories: Mapping[str, Memory]) -> None:
        """Copies everything that the commit of `step` holds; it is written from now on.

        Raises CheckpointError on every rank where no folder for it can be made; earlier commits stand.
        """
        began = time.monotonic()
        commit = Commit(path_of(self.run_dir, step))
        _on_every_rank(commit, partial(_make_room, commit) if group.rank() == 0 else _nothing)
        files = {f"{ENGINE}/{name}": write for name, write in engine.snapshot(str(commit.path), ENGINE).items()}
        weights = engine.full_weights()
        for name, memory in memories.items():
            tensors, facts = memory.parts()
            write = partial(save_file, to_host(tensors), metadata=facts)
            files[f"{MEMORY}/{name}-{group.rank():05d}.safetensors"] = write
        if group.rank() == 0:
            facts = {"step": step, "world_size": group.world_size(), "zero": engine.zero, **state}
            files[WEIGHTS] = partial(save_file, weights)
            files[STATE] = partial(_write, text=json.dumps(facts, indent=1))
        waited = time.monotonic() - began
        self.flight = Future()

        def work(flight: Future[Written]) -> None:
            try:
                self._write(commit, files)
                flight.set_result(Written(commit, time.monotonic() - began, waited))
            except BaseException as e:  # settle() raises it
                flight.set_exception(e)

        threading.Thread(target=work, args=(self.flight,), name=f"commit of step {step}", daemon=True).start()

    def is_written(self) -> bool:
        """Whether there is one in flight that settle() need not wait for; ranks may differ."""
        return self.flight is not None and self.flight.done()

    def settle(self) -> Written | None:
        """Waits for the commit in flight, if there is one. Raises CheckpointError on every rank if any could not write:
        what was written of it is removed, earlier commits stand.
        """
        if self.flight is None:
            return None
        try:
            return self.flight.result()
        finally:
            self.flight = None

    def close(self) -> None:
        """Where the run ends for a reason of its own: what is in flight gets PATIENCE seconds more."""
        if self.flight is not None:
            wait([self.flight], PATIENCE)

    def _write(self, commit: Commit, files: dict[str, Write]) -> None:
        """This rank's files; when all ranks' are on the disk, COMMIT."""
        first = group.rank() == 0
        try:
            own = _on_every_rank(commit, partial(_write_files, commit, files), self.threads)
            every = {name: its for part in own for name, its in part.items()}
            mark = json.dumps({"step": commit.step, "files": dict(sorted(every.items()))}, indent=1)
            _on_every_rank(commit, partial(_complete, commit, mark) if first else _nothing, self.threads)
        except CheckpointError:
            if first:
                shutil.rmtree(commit.path, ignore_errors=True)
            raise
        if first:
            _prune(self.run_dir, commit.step, self.keep)


def _make_room(commit: Commit) -> None:
    """An empty folder; and away with what crashes left of other commits."""
    for left in commit.path.parent.glob("step-*"):
        if left == commit.path or not (left / MARK).exists():
            (left / MARK).unlink(missing_ok=True)
            shutil.rmtree(left)
    (commit.path / ENGINE).mkdir(parents=True)
    (commit.path / MEMORY).mkdir()


def _write_files(commit: Commit, files: dict[str, Write]) -> dict[str, tuple[int, str]]:
    """{name: (bytes, sha256)} of what it wrote, on the disk when this returns; lets go of each copy once written."""
    written = {}
    for name in list(files):
        path = commit.path / name
        try:
            files.pop(name)(path)
        except RuntimeError as e:  # torch.save raises it for a full disk, or OSError
            raise OSError(f"{path}: {e}") from e
        _sync(path)
        written[name] = path.stat().st_size, sha256(path)
    return written


def _complete(commit: Commit, mark: str) -> None:
    """COMMIT, once the folders are on the disk too."""
    if not any((commit.path / MEMORY).iterdir()):
        (commit.path / MEMORY).rmdir()
    for folder in (commit.path / ENGINE, commit.path, commit.path.parent):
        _sync(folder)
    _write(commit.path / MARK, mark)


def _prune(run_dir: str | Path, step: int, keep: int) -> None:
    """Removes what is older than the newest `keep` up to `step` that have all their files in full length."""
    full = [c for c in commits(run_dir) if c.step <= step and c.has_full_length()]
    for old in commits(run_dir):
        if full and old.step < full[-keep:][0].step:
            with contextlib.suppress(OSError):  # the next commit tries again
                (old.path / MARK).unlink()  # first: a half-removed commit must not count
                shutil.rmtree(old.path)


def _nothing() -> None:
    return None


def _on_every_rank(commit: Commit, work: Callable[[], T], among: group.Aside = None) -> list[T]:
    """What `work` returned on each rank, when all are done. If it failed on one, every rank raises CheckpointError."""
    try:
        mine = work(), None
    except (OSError, SafetensorError) as e:
        mine = None, f"rank {group.rank()}: {e}"
    every = group.from_all(mine, among)
    if wrong := [its for _, its in every if its]:
        more = f" and {len(wrong) - 1} ranks more" if len(wrong) > 1 else ""
        what = f"{commit.path} could not be written ({wrong[0]}{more}). The commits before it stand."
        raise CheckpointError(what, "Free room there, or give the permission to write.")
    return [result for result, _ in every]


def _write(path: Path, text: str) -> None:
    """The whole file or none of it, on the disk when this returns."""
    unfinished = path.with_name(path.name + ".partial")
    with open(unfinished, "w") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    os.replace(unfinished, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
