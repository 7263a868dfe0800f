"""Processes that die, hang or lose their parent."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from distpre.data import workers
from distpre.data.loader import Loader
from distpre.data.workers import Workers
from distpre.errors import DataError
from tests.data.tars import VIEWS, source
from tests.processes import alive

REPOSITORY = Path(__file__).parents[2]


def made_by(work, tasks, count, **options):
    said = []
    workers = Workers(work, count, options.get("stall_seconds", 60), said.append)
    try:
        return list(workers.run(tasks)), said
    finally:
        workers.close()


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_results_come_in_the_order_of_the_tasks(count):
    def slow_if_even(task):
        time.sleep(0.01 * (task % 2 == 0))
        return task * task

    assert made_by(slow_if_even, range(20), count)[0] == [t * t for t in range(20)]


def test_a_killed_worker_loses_nothing(tmp_path):
    its, said = source(tmp_path, [60]), []
    plain = Loader(its, VIEWS, batch=4, seed=0)
    loader = Loader(its, VIEWS, batch=4, seed=0, workers=2, note=said.append)
    expected, stream = plain.batches(), loader.batches()
    for step in range(15):
        if step in (3, 4, 9):
            os.kill(loader.workers.workers[step % 2].process.pid, signal.SIGKILL)
        batch = next(stream)
        assert batch.ordinal.tolist() == next(expected).ordinal.tolist()
        loader.consumed(batch)
    loader.close()
    assert loader.epoch == 1.0
    assert said and all("ended with SIGKILL" in text and "nothing is lost" in text for text in said)


def test_a_task_that_kills_every_worker_is_given_up_with_its_name():
    def deadly(task):
        if task == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return task

    with pytest.raises(DataError, match=r"ended with SIGTERM.*3 times over the same batch \(3\).*out of memory"):
        made_by(deadly, range(6), 2)


def test_a_worker_that_dies_before_it_has_its_tasks_is_replaced_too(tmp_path, monkeypatch):
    made, begin = [], workers._Worker.__init__

    def second_dies(self, *arguments):
        begin(self, *arguments)
        made.append(self)
        if len(made) == 2:
            self.process.kill()
            self.process.join()

    def dies_once(task):
        if task == 3 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task

    monkeypatch.setattr(workers._Worker, "__init__", second_dies)
    assert made_by(dies_once, range(6), 1)[0] == list(range(6))
    assert len(made) == 3


def test_an_error_of_ours_arrives_as_it_was_raised():
    def fails(task):
        raise DataError("the sky fell", "Hold it up.")

    with pytest.raises(DataError) as raised:
        made_by(fails, [1], 1)
    assert (raised.value.what, raised.value.remedy) == ("the sky fell", "Hold it up.")


def test_an_error_of_a_library_arrives_with_its_traceback():
    def fails(task):
        return 1 // task

    with pytest.raises(RuntimeError, match="(?s)in a data worker, at 0:.*return 1 // task.*ZeroDivisionError"):
        made_by(fails, [0], 1)


def test_a_silent_worker_is_reported_once_with_its_stack():
    class Sleeps:
        says = None

        def __call__(self, task):
            self.says("read shard-007.tar")
            self.dreams()
            return task

        def dreams(self):
            time.sleep(5)

    results, said = made_by(Sleeps(), [5], 1, stall_seconds=1.5)
    assert results == [5] and len(said) == 1
    assert "silent" in said[0] and "read shard-007.tar" in said[0] and "dreams" in said[0]


def test_closing_ends_every_worker(tmp_path):
    loader = Loader(source(tmp_path, [9]), VIEWS, batch=2, seed=0, workers=3)
    next(loader.batches())
    pids = [worker.process.pid for worker in loader.workers.workers]
    assert len(alive(pids)) == 3
    loader.close()
    assert alive(pids) == []


def test_no_worker_outlives_a_parent_that_was_killed(tmp_path):
    source(tmp_path, [50])
    program = textwrap.dedent(f"""
        import time
        from distpre.data.loader import Loader
        from tests.data.tars import FIELDS, IDS, VIEWS
        from distpre.data.source import Source
        source = Source.open({str(tmp_path / "shard-000.tar")!r}, FIELDS, IDS)
        loader = Loader(source, VIEWS, batch=4, seed=0, workers=3)
        next(loader.batches())
        print(*[worker.process.pid for worker in loader.workers.workers], flush=True)
        time.sleep(60)
    """)
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(alive(pids)) == 3
    parent.kill()
    parent.wait()
    assert alive(pids, seconds=60) == []


def test_a_process_that_may_have_no_children_makes_batches_itself(tmp_path):
    import multiprocessing

    source(tmp_path, [9])
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_from_a_daemon, args=(theirs, str(tmp_path / "shard-000.tar")), daemon=True)
    child.start()
    assert ours.poll(60) and ours.recv() == (3, True)
    child.join()


def _from_a_daemon(end, shard):
    from distpre.data.source import Source
    from tests.data.tars import FIELDS, IDS

    said = []
    loader = Loader(Source.open(shard, FIELDS, IDS), VIEWS, batch=3, seed=0, workers=2, note=said.append)
    end.send((len(next(loader.batches())), "may not have children" in said[0]))
