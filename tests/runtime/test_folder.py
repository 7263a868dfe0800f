import json
import os
import signal
import subprocess
import sys
import time

import pytest

from distpre.errors import CheckpointError
from distpre.runtime.folder import RunFolder, refuse_if_in_use

# Claims the folder, forks a child as a DataLoader does, says so, and waits.
HOLD = """
import os, sys, time
from distpre.runtime.folder import RunFolder
RunFolder(sys.argv[1]).claim()
child = os.fork()
if child: print(child, flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    yield tmp_path / "run", process
    process.kill()
    process.wait()
    os.kill(child, signal.SIGKILL)


def test_second_run_is_refused_with_the_holder_named(holder):
    path, process = holder
    for attempt in (lambda: refuse_if_in_use(path), lambda: RunFolder(path).claim(patience=0)):
        with pytest.raises(CheckpointError, match=f"process {process.pid} on {os.uname().nodename}") as error:
            attempt()
        assert error.value.exit_status == 2 and error.value.remedy


def test_claim_ends_with_its_process_though_a_forked_child_lives_on(holder):
    path, process = holder
    process.send_signal(signal.SIGKILL)
    RunFolder(path).claim(patience=5)


def test_claim_waits_for_a_process_that_is_just_ending(tmp_path):
    ending = RunFolder(tmp_path)
    ending.claim()
    if not (pid := os.fork()):
        try:
            RunFolder(tmp_path).claim(patience=5)
            os._exit(0)
        finally:
            os._exit(1)
    time.sleep(0.2)
    ending.release()
    assert os.waitpid(pid, 0)[1] == 0


def test_released_folder_is_free_again(tmp_path):
    for _ in range(2):
        folder = RunFolder(tmp_path)
        folder.claim(patience=0)
        with pytest.raises(CheckpointError):
            RunFolder(tmp_path).claim(patience=0)
        folder.release()


def test_asking_leaves_nothing_behind(tmp_path):
    refuse_if_in_use(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_path_that_cannot_be_a_folder_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="run.dir"):
        RunFolder(tmp_path / "file").claim()


def test_write_records_the_recipe_and_the_versions(tmp_path):
    RunFolder(tmp_path).write("seed: 3\n", {"workers": 2})
    assert (tmp_path / "recipe.yaml").read_text() == "seed: 3\n"
    facts = json.loads((tmp_path / "environment.json").read_text())
    assert facts["workers"] == 2 and facts["packages"]["torch"] and facts["command"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["environment.json", "recipe.yaml"]
