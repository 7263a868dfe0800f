import os
import re
import signal
from pathlib import Path

import pytest

from distpre.runtime.signals import Stop
from tests.processes import alive

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_of_two")]


class Shown:
    """A screen that keeps what it is given; `hook` sees each record."""

    def __init__(self, hook=lambda record: None):
        self.records, self.lines, self.hook = [], [], hook

    def show(self, record):
        self.records.append(record)
        self.hook(record)

    def say(self, text):
        self.lines.append(text)


def supervise(recipe, trainer, *, screen=None, stop=None, max_restarts=1, stall_seconds=60.0, silent_seconds=15.0):
    from distpre.recipe.schema import LaunchSpec
    from launch.supervisor import Supervisor

    return Supervisor(
        recipe,
        LaunchSpec(
            workers=2, cpus_per_worker=1, gpus_per_worker=0, max_restarts=max_restarts, stall_seconds=stall_seconds
        ),
        screen=screen or Shown(),
        stop=stop or Stop(),
        silent_seconds=silent_seconds,
        patience=10.0,  # what the test before held comes free by and by
        trainer=f"fake_trainer:{trainer}",
    ).run()


def test_every_rank_gets_its_place_and_the_screen_every_record(recipe, tmp_path):
    screen = Shown()
    assert supervise(recipe, "to_the_end", screen=screen) == 0
    seen = [(tmp_path / "run" / f"environment-{rank}").read_text().split() for rank in (0, 1)]
    assert [s[:4] for s in seen] == [["0", "0", "2", "2"], ["1", "1", "2", "2"]]
    assert seen[0][4:] == seen[1][4:] and seen[0][4] == "127.0.0.1" and seen[0][6] == "1"
    assert [r["step"] for r in screen.records] == [1, 2, 3]


def test_exception_is_told_once_with_its_rank_and_not_restarted(recipe, capfd):
    screen = Shown()
    assert supervise(recipe, "raises_on_rank_1", screen=screen) == 1
    told = "".join(capfd.readouterr())
    assert "error: rank 1 failed before the first step:\nTraceback" in told
    assert told.count("KeyError: 'the root of it'") == 1 and "Connection closed" not in told and not screen.lines


def test_fault_of_the_input_is_one_paragraph_and_ends_with_2(recipe, capfd):
    assert supervise(recipe, "refuses_its_data") == 2
    assert "".join(capfd.readouterr()) == "error: train-000.tar is not there. Run tools.shard.\n"


def test_killed_worker_brings_a_new_group_and_takes_its_children_along(recipe, tmp_path, capfd):
    screen = Shown()
    assert supervise(recipe, "dies_once", screen=screen) == 0
    (line,) = screen.lines
    assert line.startswith("the process of rank 1 died after step 7; restarting from the last commit")
    assert alive([int((tmp_path / "run" / "child").read_text())], seconds=30) == []
    assert "".join(capfd.readouterr()) == ""


def test_used_up_restarts_end_the_run_with_the_last_words(recipe, capfd):
    screen = Shown()
    assert supervise(recipe, "dies_always", screen=screen) == 1
    assert len(screen.lines) == 1
    told = capfd.readouterr().err
    assert "the process of rank 1 died before the first step; launch.max_restarts=1 are used up" in told
    assert "  | last words" in told


def test_silent_process_is_a_fault_with_its_rank(recipe):
    screen = Shown()
    assert supervise(recipe, "stands_still_once", screen=screen, silent_seconds=4) == 0
    (line,) = screen.lines
    assert re.match(r"rank 1 has not answered for \d s before the first step; restarting", line), line


def test_trainer_without_progress_is_a_fault_with_its_rank(recipe, capfd):
    assert supervise(recipe, "stalls", max_restarts=0, stall_seconds=2) == 1
    assert re.search(r"rank 1 has made no step for \d s", capfd.readouterr().err)


def test_signal_lets_every_rank_commit(recipe, tmp_path):
    with Stop() as stop:
        screen = Shown(lambda record: os.kill(os.getpid(), signal.SIGUSR1))
        assert supervise(recipe, "until_stopped", screen=screen, stop=stop) == 75
    assert screen.lines[-1] == "stopped before the first step; the same command goes on"
    assert [(tmp_path / "run" / f"committed-{rank}").read_text() for rank in (0, 1)] == ["usr1", "usr1"]


def test_second_interrupt_kills_a_group_that_does_not_listen(recipe, tmp_path):
    screen = Shown(lambda record: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    with Stop() as stop, pytest.raises(KeyboardInterrupt):
        supervise(recipe, "deaf", screen=screen, stop=stop)
    pids = [int(Path(tmp_path / "run" / f"pid-{rank}").read_text()) for rank in (0, 1)]
    assert alive(pids, seconds=30) == []


def test_room_for_more_workers_is_taken_after_a_commit(recipe, tmp_path):
    """Of two cores one is taken at first: training goes on alone, and with two when it is given back."""
    import ray

    from distpre.recipe.schema import LaunchSpec
    from launch.supervisor import Supervisor

    total = int(ray.cluster_resources()["CPU"])
    held = ray.util.placement_group([{"CPU": total - 1}])
    assert held.wait(60)
    screen = Shown(lambda record: ray.util.remove_placement_group(held) if record.get("step") == 1 else None)
    spec = LaunchSpec(workers={"min": 1, "max": 2}, cpus_per_worker=1, gpus_per_worker=0)
    supervisor = Supervisor(recipe, spec, screen=screen, stop=Stop(), patience=10.0, trainer="fake_trainer:grows")
    assert supervisor.run() == 0
    assert [line for line in screen.lines if "room for 2 workers: committing" in line]
    assert [r["workers"] for r in screen.records if r["kind"] == "start"] == [1, 2]


def test_a_straggler_is_named_once(recipe):
    screen = Shown()
    assert supervise(recipe, "one_is_slow", screen=screen) == 0
    (line,) = screen.lines
    assert line == "rank 1 holds the others up: 0.90 s of its own in each step, where the median rank takes 0.30 s"
