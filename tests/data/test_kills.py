"""A real process, killed by SIGKILL at twenty random moments, with 1 to 4 workers, consumes what an unbroken does."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import psutil

from distpre.data.loader import Loader
from distpre.data.source import Source
from tests.data.tars import FIELDS, IDS, VIEWS, numbered

KILLS = 20
CONTEXT = multiprocessing.get_context("fork")


def loader(names, workers):
    return Loader(Source.open(names, FIELDS, IDS), VIEWS, batch=7, seed=5, window=60, workers=workers)


def train(names, commit, workers):
    """For ever: a batch, and a commit of the state with all that was consumed, whole or not at all."""
    its = loader(names, workers)
    state, consumed = json.loads(commit.read_text()) if commit.exists() else (None, [])
    if state:
        its.load_state_dict(state)
    for batch in its.batches():
        its.consumed(batch)
        consumed.append(batch.views["number"].tolist())
        part = commit.with_suffix(".part")
        part.write_text(json.dumps([its.state_dict(), consumed]))
        os.replace(part, commit)


def committed(commit: Path) -> list:
    return json.loads(commit.read_text())[1] if commit.exists() else []


def test_twenty_kills_change_nothing(tmp_path):
    names, commit, rng = numbered(tmp_path, [40, 0, 25, 31]), tmp_path / "commit.json", random.Random(0)
    for life in range(KILLS + 1):
        before = len(committed(commit))
        process = CONTEXT.Process(target=train, args=(names, commit, 1 + life % 4))
        process.start()
        deadline = time.monotonic() + 60
        while len(committed(commit)) <= before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.06))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert len(committed(commit)) > before, "it got nowhere"
    consumed = committed(commit)
    unbroken, expected = loader(names, 0), []
    for _, batch in zip(range(len(consumed)), unbroken.batches(), strict=False):
        unbroken.consumed(batch)
        expected.append(batch.views["number"].tolist())
    assert consumed == expected
    numbers = np.concatenate(consumed)[:, 0]
    for epoch in range(len(numbers) // 96):
        assert sorted(numbers[96 * epoch : 96 * (epoch + 1)].tolist()) == list(range(96))
    assert len(numbers) > 96, "not one whole epoch was proved"


def test_the_killed_leave_no_process_behind(tmp_path):
    names = numbered(tmp_path, [40])
    process = CONTEXT.Process(target=train, args=(names, tmp_path / "commit.json", 3))
    process.start()
    while not committed(tmp_path / "commit.json"):
        time.sleep(0.002)
    children = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(children) == 3
    assert psutil.wait_procs(children, timeout=20)[1] == []
