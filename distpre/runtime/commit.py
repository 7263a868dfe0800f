"""Commits: checkpoints that count only once their COMMIT file exists.

    checkpoints/step-00000100/engine/...   DeepSpeed's files, one part a rank: weights and optimiser, to resume from
                              weights.safetensors   the whole model, to evaluate, export or teach from
                              memory/...   what terms remember (queues, sample states), one part a rank
                              state.json   step, data cursor, world size, ZeRO stage
                              COMMIT       size and SHA-256 of all that; written last, by rank 0, once it is on the disk

A directory without COMMIT is what a crash left behind: it is never read, and removed before the next commit. One whose
files are not what its COMMIT says is damaged: a resume names it, takes the newest whole one, and renames it to
damaged-STEP. A commit that cannot be written (full disk, no permission) costs nothing but itself: see Run.commit.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from distpre.errors import CheckpointError
from distpre.runtime import group
from distpre.runtime.engine import Engine
from distpre.runtime.fingerprint import Progress, fault, sha256, share, size_fault, sizes
from distpre.types import Memory

ENGINE, WEIGHTS, MEMORY, STATE, MARK = "engine", "weights.safetensors", "memory", "state.json", "COMMIT"
T = TypeVar("T")
NONE: Mapping[str, Memory] = MappingProxyType({})


@dataclass(frozen=True)
class Commit:
    path: Path

    @property
    def step(self) -> int:
        return int(self.path.name.removeprefix("step-"))

    def weights(self) -> dict[str, Tensor]:
        """The whole model's fp32 state dict."""
        return load_file(self.path / WEIGHTS)

    def files(self) -> dict[str, tuple[int, str]]:
        """{path in the commit: (bytes, sha256)}, as its COMMIT says. Raises CheckpointError if that cannot be read."""
        try:
            files = json.loads((self.path / MARK).read_text())["files"]
            return {name: (int(size), str(digest)) for name, (size, digest) in files.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            raise CheckpointError(f"{MARK} does not say what the commit holds ({type(e).__name__}: {e})") from e

    def bytes(self) -> int:
        """Of all its files; 0 where COMMIT cannot be read."""
        try:
            return sum(size for size, _ in self.files().values())
        except CheckpointError:
            return 0

    def has_full_length(self) -> bool:
        """Whether every file is there with all its bytes, whatever they are."""
        try:
            return not any(size_fault(self.path / name, size) for name, (size, _) in self.files().items())
        except CheckpointError:
            return False

    def state(self) -> dict[str, Any]:
        """What state.json says. Raises CheckpointError if it cannot be read."""
        try:
            return json.loads((self.path / STATE).read_text())
        except (OSError, ValueError) as e:
            raise CheckpointError(
                f"{self.path}: the commit's state.json cannot be read ({e}).",
                "Remove this commit; the one before holds.",
            ) from e


def commits(run_dir: str | Path) -> list[Commit]:
    """Those that count, oldest first."""
    return sorted(
        (Commit(mark.parent) for mark in Path(run_dir, "checkpoints").glob(f"step-*/{MARK}")), key=lambda c: c.step
    )


def newest(run_dir: str | Path) -> Commit | None:
    return next(reversed(commits(run_dir)), None)


def faults(commit: Commit, part: str = "", progress: Progress = lambda n: None) -> list[str]:
    """What of the commit is not as it was written, a file an entry; every rank calls it and reads its share.

    part: how the names of the files that matter begin. progress: is told how many bytes more were read.
    """
    try:
        listed = {name: its for name, its in commit.files().items() if name.startswith(part)}
    except CheckpointError as e:
        listed, mine = {}, [e.what]
    else:
        own = share({name: size for name, (size, _) in listed.items()}, group.rank(), group.world_size())
        found = {name: fault(commit.path / name, *listed[name], progress) for name in own}
        mine = [f"{name} {wrong}" for name, wrong in found.items() if wrong]
    return sorted({wrong for its in group.from_all(mine) for wrong in its})


def newest_whole(
    run_dir: str | Path, note: Callable[[str], None], part: str = ""
) -> tuple[Commit | None, list[Commit]]:
    """(the newest commit that is as it was written, the damaged ones after it, newest first); every rank calls it.

    note: is told which are damaged and how. part: as in faults(). (None, []) where there is no commit at all.
    Raises CheckpointError where there are commits and none is whole.
    """
    damaged, said = [], []
    for step in group.from_rank_zero([c.step for c in reversed(commits(run_dir))]):
        found = Commit(_path(run_dir, step))
        if wrong := faults(found, part):
            damaged.append(found)
            more = f" and {len(wrong) - 3} files more" if len(wrong) > 3 else ""
            said.append(f"{found.path} is damaged: {', '.join(wrong[:3])}{more}.")
            continue
        if damaged:
            note(f"{' '.join(said)} The newest whole commit is of step {step} and is used instead.")
        return found, damaged
    if damaged:
        what = f"No commit of {run_dir} is whole. {' '.join(said)}"
        raise CheckpointError(what, "Put back what is damaged from a copy, or train in a new run.dir.")
    return None, []


def set_aside(damaged: list[Commit]) -> None:
    """Renames them to damaged-STEP: they count no more and stay, but for one that was damaged at the same step."""
    for commit in damaged:
        to = commit.path.with_name(f"damaged-{commit.step:08d}")
        shutil.rmtree(to, ignore_errors=True)
        commit.path.rename(to)


def save(
    run_dir: str | Path,
    engine: Engine,
    *,
    step: int,
    state: dict[str, Any],
    keep: int,
    memories: Mapping[str, Memory] = NONE,
) -> Commit:
    """Writes the commit of `step` and prunes all but the newest `keep`; every rank calls it.

    Raises CheckpointError on every rank if any could not write; what was written is removed, earlier commits stay.
    """
    commit = Commit(_path(run_dir, step))
    first = group.rank() == 0

    def begin() -> None:
        for left in commit.path.parent.glob("step-*"):
            if left == commit.path or not (left / MARK).exists():
                (left / MARK).unlink(missing_ok=True)
                shutil.rmtree(left)
        commit.path.mkdir(parents=True)

    def write_own() -> None:
        if first:
            save_file(weights, commit.path / WEIGHTS)
            facts = {"step": step, "world_size": group.world_size(), "zero": engine.zero, **state}
            _write(commit.path / STATE, json.dumps(facts, indent=1))
        for name, memory in memories.items():
            file = commit.path / MEMORY / f"{name}-{group.rank():05d}.safetensors"
            file.parent.mkdir(exist_ok=True)
            tensors, facts = memory.parts()
            save_file(tensors, file, facts)

    def digests() -> dict[str, tuple[int, str]]:
        own = share(written, group.rank(), group.world_size())
        return {name: (written[name], sha256(commit.path / name)) for name in own}

    try:
        _on_every_rank(commit, begin if first else _nothing)
        _on_every_rank(commit, lambda: engine.save(str(commit.path), ENGINE))
        weights = engine.full_weights()
        _on_every_rank(commit, write_own)  # after it no file is being written or renamed any more
        _on_every_rank(commit, lambda: _sync_files(commit.path))
        written = _on_every_rank(commit, lambda: sizes(commit.path) if first else None)[0]
        files = {name: its for part in _on_every_rank(commit, digests) for name, its in part.items()}
        text = json.dumps({"step": step, "files": dict(sorted(files.items()))}, indent=1)
        _on_every_rank(commit, (lambda: _write(commit.path / MARK, text)) if first else _nothing)
    except CheckpointError:
        if first:
            shutil.rmtree(commit.path, ignore_errors=True)
        raise
    if first:
        _prune(run_dir, step, keep)
    group.wait_for_all()
    return commit


def _prune(run_dir: str | Path, step: int, keep: int) -> None:
    """Removes what is older than the newest `keep` up to `step` that have all their files in full length."""
    full = [c for c in commits(run_dir) if c.step <= step and c.has_full_length()]
    for old in commits(run_dir):
        if full and old.step < full[-keep:][0].step:
            with contextlib.suppress(OSError):  # the next commit tries again
                (old.path / MARK).unlink()  # first: a half-removed commit must not count
                shutil.rmtree(old.path)


def load(commit: Commit, engine: Engine, memories: Mapping[str, Memory] = NONE) -> dict[str, Any]:
    """Fills the engine and the memories from a commit and returns its state; every rank calls it.

    Another world size is converted for. Raises CheckpointError for another ZeRO stage.
    """
    state = commit.state()
    if state["zero"] != engine.zero:
        raise CheckpointError(
            f"{commit.path} was written under train.zero={state['zero']}, the recipe says {engine.zero}.",
            f"Resume with train.zero={state['zero']}, or give another run.dir.",
        )
    if engine.zero and state["world_size"] != group.world_size():
        try:
            engine.load_of_other_ranks(str(commit.path), ENGINE)
            still = {name for name, p in engine.model.named_parameters() if not p.requires_grad}
            engine.assign({name: w for name, w in commit.weights().items() if name in still})  # not in that format
        except OSError as e:
            raise CheckpointError(
                f"{commit.path} was written by {state['world_size']} workers and could not be converted for "
                f"{group.world_size()}: {e}.",
                f"Resume with launch.workers={state['world_size']}, or mend what it says.",
            ) from e
    else:
        engine.load(str(commit.path), ENGINE)
    for name, memory in memories.items():
        files = sorted((commit.path / MEMORY).glob(f"{name}-*.safetensors"))
        if len(files) != state["world_size"]:
            what = f"{commit.path / MEMORY} has {len(files)} parts of {name} for {state['world_size']} workers."
            raise CheckpointError(what, "Train in a new run.dir: this commit is of a recipe without it, or damaged.")
        memory.load(files)
    return state


def _path(run_dir: str | Path, step: int) -> Path:
    return Path(run_dir, "checkpoints", f"step-{step:08d}")


def _nothing() -> None:
    return None


def _on_every_rank(commit: Commit, write: Callable[[], T]) -> list[T]:
    """What `write` returned on each rank, when all are done. If it failed on one, every rank raises CheckpointError."""
    try:
        mine = write(), None
    except (OSError, SafetensorError) as e:
        mine = None, f"rank {group.rank()}: {e}"
    every = group.from_all(mine)
    if wrong := [its for _, its in every if its]:
        more = f" and {len(wrong) - 1} ranks more" if len(wrong) > 1 else ""
        what = f"{commit.path} could not be written ({wrong[0]}{more}). The commits before it stand."
        raise CheckpointError(what, "Free room there, or give the permission to write.")
    return [result for result, _ in every]


def _write(path: Path, text: str) -> None:
    """The whole file or none of it, on the disk when this returns."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    os.replace(partial, path)
    _sync(path.parent)


def _sync_files(folder: Path) -> None:
    """Every file and folder below, on the disk."""
    for file in sorted(folder.rglob("*")):
        _sync(file)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
