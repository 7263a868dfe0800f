"""Commits: checkpoints that count only once their COMMIT file exists.

    checkpoints/step-00000100/engine/...   DeepSpeed's files, one part a rank: weights and optimiser, to resume from
                              weights.safetensors   the whole model, to evaluate, export or teach from
                              memory/...   what terms remember (queues, sample states), one part a rank
                              state.json   step, data cursor, world size, ZeRO stage
                              COMMIT       size and SHA-256 of all that; written last, by rank 0, once it is on the disk

A directory without COMMIT is what a crash left behind: it is never read, and removed before the next commit. One whose
files are not what its COMMIT says is damaged: a resume names it, takes the newest whole one, and renames it to
damaged-STEP. They are written by committer.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from distpre import group
from distpre.errors import CheckpointError
from distpre.runtime.engine import Engine
from distpre.runtime.fingerprint import Progress, fault, share, size_fault
from distpre.types import Memory

ENGINE, WEIGHTS, MEMORY, STATE, MARK = "engine", "weights.safetensors", "memory", "state.json", "COMMIT"
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
        found = Commit(path_of(run_dir, step))
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


def path_of(run_dir: str | Path, step: int) -> Path:
    return Path(run_dir, "checkpoints", f"step-{step:08d}")
