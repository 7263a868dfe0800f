"""Commits against what disks do: bytes that change, files that go, no room to write."""

import errno
import json
import os
import resource
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from distpre import checkpoint
from distpre.errors import CheckpointError
from distpre.runtime import commit
from distpre.runtime.committer import Committer
from tests.ranks import ranks
from tests.runtime.test_commit import an_engine, save, updates

RECIPE = str(Path(__file__).parents[2] / "recipes/quickstart.yaml") + ":small"


@dataclass
class Files:
    """What a commit asks of an engine; `refuse` is the errno that its writing ends with."""

    zero: int = 0
    refuse: int = 0

    def snapshot(self, folder: str, tag: str) -> dict:
        from distpre import group

        def write(path: Path) -> None:
            path.write_bytes(os.urandom(1000))
            if self.refuse:
                raise OSError(self.refuse, os.strerror(self.refuse))

        return {f"part-{group.rank()}": write}

    def full_weights(self) -> dict[str, torch.Tensor]:
        return {"w": torch.randn(64)}


def saved(folder, *steps: int, keep: int = 9) -> list[commit.Commit]:
    return [save(folder, Files(), step=step, state={}, keep=keep) for step in steps]


def flipped(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)


DAMAGES = {
    "byte": (lambda path: flipped(path / "engine/part-0"), "engine/part-0 holds other bytes"),
    "state": (lambda path: flipped(path / "state.json"), "state.json holds other bytes"),
    "truncated": (lambda path: os.truncate(path / "engine/part-0", 999), "part-0 has 999 bytes instead of 1,000"),
    "longer": (lambda path: os.truncate(path / "engine/part-0", 1001), "part-0 has 1,001 bytes instead of 1,000"),
    "missing": (lambda path: (path / "weights.safetensors").unlink(), "weights.safetensors is missing"),
    "empty mark": (lambda path: os.truncate(path / "COMMIT", 0), "COMMIT does not say what the commit holds"),
}


@pytest.mark.parametrize("damage,said", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_commit_is_told_of_and_the_newest_whole_one_taken(damage, said, tmp_path):
    one, two, three = saved(tmp_path, 1, 2, 3)
    notes = []
    assert commit.newest_whole(tmp_path, notes.append) == (three, []) and not notes
    damage(three.path)
    assert commit.newest_whole(tmp_path, notes.append) == (two, [three])
    assert len(notes) == 1 and f"{three.path} is damaged" in notes[0] and said in notes[0] and "step 2" in notes[0]
    flipped(two.path / "weights.safetensors")
    assert commit.newest_whole(tmp_path, notes.append) == (one, [three, two])
    flipped(one.path / "state.json")
    with pytest.raises(CheckpointError, match="No commit of .* is whole.*train in a new run.dir"):
        commit.newest_whole(tmp_path, notes.append)


def test_what_reads_only_the_weights_asks_only_for_them(tmp_path):
    one, two = saved(tmp_path, 1, 2)
    flipped(two.path / "engine/part-0")
    assert commit.newest_whole(tmp_path, print, commit.WEIGHTS) == (two, [])


def test_damaged_ones_are_set_aside_and_outlive_pruning(tmp_path):
    saved(tmp_path, 1, 2)
    for _ in range(2):  # the same step may be damaged twice
        flipped(tmp_path / "checkpoints/step-00000002/state.json")
        commit.set_aside(commit.newest_whole(tmp_path, print)[1])
        saved(tmp_path, 2)
    saved(tmp_path, 3, keep=1)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["damaged-00000002", "step-00000003"]


def test_pruning_counts_only_what_is_there_in_full_length(tmp_path):
    """Of 1 (whole), 2 (whole) and 3 (truncated), keep=2 after step 4 keeps 2 and 4, not 3 and 4."""
    saved(tmp_path, 1, 2, 3)
    os.truncate(tmp_path / "checkpoints/step-00000003/engine/part-0", 5)
    saved(tmp_path, 4, keep=2)
    assert [c.step for c in commits_whole(tmp_path)] == [2, 4]


def test_pruning_leaves_the_only_good_one_whatever_lies_after_it(tmp_path):
    """Back at step 1, because 3 is damaged: what is written at 2 is not removed for the sake of 3."""
    saved(tmp_path, 1, 3)
    flipped(tmp_path / "checkpoints/step-00000003/state.json")
    saved(tmp_path, 2, keep=1)
    assert [c.step for c in commits_whole(tmp_path)] == [2]


def commits_whole(folder) -> list[commit.Commit]:
    return [c for c in commit.commits(folder) if not commit.faults(c)]


def refused_on_one(run_dir: str) -> list[str]:
    """Commits 1, 2 and 3; the second cannot be written on rank 1. Returns what this rank heard."""
    from distpre import group
    from distpre.runtime.engine import join_group

    join_group()
    heard = []
    for step in (1, 2, 3):
        engine = Files(refuse=errno.ENOSPC if step == 2 and group.rank() == 1 else 0)
        try:
            save(run_dir, engine, step=step, state={}, keep=9)
        except CheckpointError as e:
            heard.append(e.what)
            assert not commit.faults(commit.newest(run_dir)) and commit.newest(run_dir).step == 1
            group.wait_for_all()
            assert not Path(run_dir, "checkpoints/step-00000002").exists()
    return heard


@pytest.mark.cluster
def test_a_full_disk_on_one_rank_is_heard_by_all_and_costs_only_that_commit(tmp_path):
    heard = ranks(3).run(refused_on_one, str(tmp_path))
    assert heard[0] == heard[1] == heard[2] and len(heard[0]) == 1
    assert "rank 1: [Errno 28] No space left on device" in heard[0][0] and "step-00000002" in heard[0][0]
    assert [c.step for c in commits_whole(tmp_path)] == [1, 3]


def out_of_room(run_dir: str, zero: int) -> str:
    """Rank 1 may write no file beyond 10 kB in the second commit: what DeepSpeed writes breaks off in the middle."""
    from distpre import group

    engine = an_engine(zero)
    updates(engine, 0, 1)
    save(run_dir, engine, step=1, state={}, keep=9)
    if group.rank() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    with pytest.raises(CheckpointError) as error:
        save(run_dir, engine, step=2, state={}, keep=9)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    updates(engine, 1, 2)
    save(run_dir, engine, step=2, state={}, keep=9)
    return error.value.what


@pytest.mark.cluster
@pytest.mark.parametrize("zero", [1, 3])
def test_deepspeeds_ranks_do_not_wait_for_the_one_that_cannot_write(zero, tmp_path):
    heard = ranks(2).run(out_of_room, str(tmp_path), zero)
    assert heard[0] == heard[1] and "rank 1: " in heard[0] and "_states.pt" in heard[0]
    assert [c.step for c in commits_whole(tmp_path)] == [1, 2]


def test_training_goes_on_while_a_commit_is_written(tmp_path):
    slow = Slow()
    committer = Committer(tmp_path, keep=2)
    committer.begin(slow, 1, {}, {})
    assert not committer.is_written() and commit.newest(tmp_path) is None
    slow.disk.set()
    written = committer.settle()
    assert written.commit == commit.newest(tmp_path) and written.waited < written.seconds
    assert committer.settle() is None


class Slow(Files):
    """Its disk takes nothing until it is set."""

    def __init__(self):
        super().__init__()
        self.disk = threading.Event()

    def snapshot(self, folder: str, tag: str) -> dict:
        return {"part-0": lambda path: self.disk.wait(60) and path.write_bytes(b"x")}


def test_a_folder_that_cannot_be_made_is_a_commit_that_failed(tmp_path):
    (tmp_path / "checkpoints").write_text("not a folder")
    with pytest.raises(CheckpointError, match="could not be written .rank 0: .Errno .*permission to write"):
        saved(tmp_path, 1)


def verified(run_dir, monkeypatch, capfd) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["distpre.checkpoint", "verify", str(run_dir)])
    status = checkpoint.main()
    return status, "".join(capfd.readouterr())


def test_verify_tells_what_is_damaged_by_status_and_line(tmp_path, monkeypatch, capfd):
    status, said = verified(tmp_path, monkeypatch, capfd)
    assert status == 2 and "holds no commit" in said
    one, two = saved(tmp_path, 1, 2)
    status, said = verified(tmp_path, monkeypatch, capfd)
    assert status == 0 and said.count("whole") == 2 and "step-00000001" in said
    flipped(one.path / "engine/part-0")
    (two.path / "state.json").unlink()
    status, said = verified(tmp_path, monkeypatch, capfd)
    assert status == 1 and "whole" not in said
    assert f"{one.path}: engine/part-0 holds other bytes" in said and f"{two.path}: state.json is missing" in said
    shutil.rmtree(two.path)
    assert verified(tmp_path, monkeypatch, capfd)[0] == 1


def shares_read(run_dir: str) -> tuple[list[str], list[str]]:
    """The files that this rank hashed at writing and at verifying."""
    from distpre.runtime import committer, fingerprint
    from distpre.runtime.engine import join_group

    join_group()
    read, sha256 = [], fingerprint.sha256

    def counted(file, *rest):
        read.append(file.name)
        return sha256(file, *rest)

    fingerprint.sha256 = committer.sha256 = counted
    saved_one = save(run_dir, Files(), step=1, state={}, keep=2)
    written, read[:] = list(read), []
    assert not commit.faults(saved_one)
    return written, read


@pytest.mark.cluster
def test_ranks_share_the_files_and_none_is_read_twice(tmp_path):
    for phase in zip(*ranks(3).run(shares_read, str(tmp_path)), strict=True):
        names = sorted(name for own in phase for name in own)
        assert names == ["part-0", "part-1", "part-2", "state.json", "weights.safetensors"]
        assert all(own for own in phase)


def trained(folder: str, refused: list[int]) -> tuple[list[str], str]:
    """Six steps, a commit every second. On rank 1 the disk is full at the steps `refused`; on rank 0 metrics.jsonl
    cannot be written at the first of them. Returns what rank 0 told, and what this rank raised.
    """
    from distpre import group
    from distpre.recipe import load, prepare
    from distpre.runtime.engine import Engine, join_group
    from distpre.runtime.report import Reporter
    from distpre.train import train

    os.chdir(folder)
    words = ["run.dir=run", "launch.workers=2", "data.workers=0", "evaluate=null", "train.log_every=1"]
    recipe = load(RECIPE, [*words, "train.steps=6", "train.commit_every=2", "train.zero=1"])
    if os.environ["RANK"] == "0":
        prepare(recipe, print)
    join_group()
    group.wait_for_all()
    snapshot, write = Engine.snapshot, Reporter.write

    def refuse(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(self: Engine, to: str, tag: str) -> dict:
        files = snapshot(self, to, tag)
        return {**files, "more": refuse} if group.rank() == 1 and int(Path(to).name[5:]) in refused else files

    def full_too(self: Reporter, record: dict) -> None:
        if record["kind"] == "step" and record["step"] in refused[:1]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, record)

    Engine.snapshot, Reporter.write = full, full_too
    told = []
    try:
        train(recipe, sink=told.append, stop=lambda: None)
    except CheckpointError as e:
        return [t["text"] for t in told if t["kind"] == "note"], str(e)
    return [t["text"] for t in told if t["kind"] == "note"], ""


def steps_of(run: Path) -> list[int]:
    return [c.step for c in commits_whole(run)]


@pytest.mark.cluster
def test_a_run_goes_on_over_commits_that_fail_and_takes_up_the_newest_whole_one(tmp_path):
    run = tmp_path / "run"
    (told, raised), (_, other) = ranks(2).run(trained, str(tmp_path), [4, 6])
    assert raised == other and "step-00000006 could not be written (rank 1: [Errno 28]" in raised
    assert sum("step-00000004 could not be written" in text and "Training goes on" in text for text in told) == 1
    assert sum("metrics.jsonl" in text and "No space left" in text for text in told) == 1
    assert steps_of(run) == [2]
    ranks(2).run(trained, str(tmp_path), [])
    assert steps_of(run) == [4, 6]
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    weights = {name: w.clone() for name, w in commit.newest(run).weights().items()}  # they lie in the file's pages
    flipped(run / "checkpoints/step-00000006/weights.safetensors")
    (told, raised), _ = ranks(2).run(trained, str(tmp_path), [])
    assert not raised and "step-00000006 is damaged: weights.safetensors holds other bytes" in told[0]
    assert steps_of(run) == [4, 6] and (run / "checkpoints/damaged-00000006/COMMIT").exists()
    again = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert again == losses and len(losses) == 6
    assert all(torch.equal(weights[name], w) for name, w in commit.newest(run).weights().items())
