"""Commits: checkpoints that count only once their COMMIT file exists.

    checkpoints/step-00000100/engine/...   DeepSpeed's files, one part a rank: weights and optimiser, to resume from
                              weights.safetensors   the whole model, to evaluate, export or teach from
                              memory/...   what terms remember (queues, sample states), one part a rank
                              state.json   step, data cursor, world size, ZeRO stage
                              COMMIT       written last, by rank 0, after everything above is on the disk

A directory without COMMIT is what a crash left behind: it is never read, and removed before the next commit.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from distpre.errors import CheckpointError
from distpre.runtime import group
from distpre.runtime.engine import Engine
from distpre.types import Memory

ENGINE, WEIGHTS, MEMORY = "engine", "weights.safetensors", "memory"
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

    def state(self) -> dict[str, Any]:
        """What state.json says. Raises CheckpointError if it cannot be read."""
        try:
            return json.loads((self.path / "state.json").read_text())
        except (OSError, ValueError) as e:
            raise CheckpointError(
                f"{self.path}: the commit's state.json cannot be read ({e}).",
                "Remove this commit; the one before holds.",
            ) from e


def commits(run_dir: str | Path) -> list[Commit]:
    """Those that count, oldest first."""
    return sorted(
        (Commit(mark.parent) for mark in Path(run_dir, "checkpoints").glob("step-*/COMMIT")), key=lambda c: c.step
    )


def newest(run_dir: str | Path) -> Commit | None:
    return next(reversed(commits(run_dir)), None)


def save(
    run_dir: str | Path,
    engine: Engine,
    *,
    step: int,
    state: dict[str, Any],
    keep: int,
    memories: Mapping[str, Memory] = NONE,
) -> Commit:
    """Writes the commit of `step` and prunes all but the newest `keep`; every rank calls it."""
    commit = Commit(Path(run_dir, "checkpoints", f"step-{step:08d}"))
    if group.rank() == 0:
        for left in Path(run_dir, "checkpoints").glob("step-*"):
            if not (left / "COMMIT").exists():
                shutil.rmtree(left)
        commit.path.mkdir(parents=True, exist_ok=True)
    group.wait_for_all()
    engine.save(str(commit.path), ENGINE)
    weights = engine.full_weights()
    if group.rank() == 0:
        save_file(weights, commit.path / WEIGHTS)
    for name, memory in memories.items():
        file = commit.path / MEMORY / f"{name}-{group.rank():05d}.safetensors"
        file.parent.mkdir(exist_ok=True)
        tensors, facts = memory.parts()
        save_file(tensors, file, facts)
    group.wait_for_all()  # no file below is being written or renamed any more
    _sync_files(commit.path)
    group.wait_for_all()
    if group.rank() == 0:
        facts = {"step": step, "world_size": group.world_size(), "zero": engine.zero, **state}
        _write(commit.path / "state.json", json.dumps(facts, indent=1))
        _write(commit.path / "COMMIT", json.dumps({"step": step}))
        for old in commits(run_dir)[:-keep]:
            (old.path / "COMMIT").unlink()  # first: a half-removed commit must not count
            shutil.rmtree(old.path)
    group.wait_for_all()
    return commit


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
