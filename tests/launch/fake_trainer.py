"""Trainers that the launch tests put in the place of distpre.train: they train nothing, and fail in one way each.

Each is called in a worker as train(recipe, sink=, stop=). recipe.run.dir is where it leaves what the test looks at.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from distpre.errors import DataError

RANK = int(os.environ.get("RANK", 0))  # a worker has its rank before it imports its trainer


def to_the_end(recipe, sink, stop):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    _left(recipe, f"environment-{RANK}").write_text(" ".join(os.environ[name] for name in names))
    if RANK == 0:
        for step in (1, 2, 3):
            sink({"kind": "step", "step": step, "of": 3})
    return {"status": "finished"}


def raises_on_rank_1(recipe, sink, stop):
    if RANK == 1:
        time.sleep(0.3)
        raise KeyError("the root of it")
    raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1")


def refuses_its_data(recipe, sink, stop):
    raise DataError("train-000.tar is not there.", "Run tools.shard.")


def dies_once(recipe, sink, stop):
    """Rank 1 and a child of it are killed in its first life; rank 0 then sees a closed connection."""
    sink({"kind": "step", "step": 7, "of": 9})
    if _left(recipe, "died").exists():
        return {"status": "finished"}
    if RANK == 1:
        _left(recipe, "child").write_text(str(_child()))
        time.sleep(2)  # its step is heard
        _left(recipe, "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    while not _left(recipe, "died").exists():
        time.sleep(0.01)
    raise RuntimeError("Connection reset by peer")


def dies_always(recipe, sink, stop):
    if RANK == 1:
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)
    time.sleep(60)


def stands_still_once(recipe, sink, stop):
    """Rank 1's process is stopped in its first life, as on a frozen host; rank 0 waits for it."""
    if _left(recipe, "stood").exists():
        return {"status": "finished"}
    stop()
    time.sleep(2)  # a heartbeat says that it has begun
    if RANK == 1:
        _left(recipe, "stood").touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)


def stalls(recipe, sink, stop):
    """Both ranks begin; rank 1 then makes no more steps, in a process that is well."""
    while True:
        stop()
        if RANK == 1:
            time.sleep(60)
        time.sleep(0.1)


def until_stopped(recipe, sink, stop):
    """Trains until it is asked to stop, with a child process of its own, as a loader has."""
    _child()
    _meet(recipe)
    while stop() is None:
        sink({"kind": "note", "text": "training"})
        time.sleep(0.1)
    _left(recipe, f"committed-{RANK}").write_text(stop())
    return {"status": "stopped"}


def deaf(recipe, sink, stop):
    _meet(recipe)
    sink({"kind": "note", "text": "training"})
    time.sleep(120)


def _meet(recipe):
    """Waits for the other rank; each leaves its process's id."""
    _left(recipe, f"pid-{RANK}").write_text(str(os.getpid()))
    while not (_left(recipe, "pid-0").exists() and _left(recipe, "pid-1").exists()):
        time.sleep(0.01)


def _child():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)", "fake_child"]).pid


def _left(recipe, name):
    Path(recipe.run.dir).mkdir(parents=True, exist_ok=True)
    return Path(recipe.run.dir, name)


def grows(recipe, sink, stop):
    """Ends when it is two; alone, it trains until it is asked to stop."""
    workers = int(os.environ["WORLD_SIZE"])
    if RANK == 0:
        sink({"kind": "start", "workers": workers})
        sink({"kind": "step", "step": 1 if workers == 1 else 9})
    while workers == 1 and stop() is None:
        time.sleep(0.1)
    return {"status": "stopped" if workers == 1 else "finished"}


def one_is_slow(recipe, sink, stop):
    if RANK == 0:
        for step, seconds in enumerate((0.9, 0.31, 0.9, 0.9, 0.9, 0.9), 1):
            sink({"kind": "step", "step": step, "slowest": {"rank": 1, "seconds": seconds, "median": 0.3}})
    return {"status": "finished"}
