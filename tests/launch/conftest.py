import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent


@pytest.fixture(scope="session")
def path_to_trainers():
    """PYTHONPATH with fake_trainer.py on it, for workers and subprocesses."""
    return os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="package")
def ray_of_two(path_to_trainers):
    """A Ray of our own, as `python -m launch` starts it; one for all: a process keeps the first token it reads."""
    from launch.cluster import cluster

    before = dict(os.environ)
    os.environ["PYTHONPATH"] = path_to_trainers
    with cluster(None, 2):
        yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def recipe(tmp_path):
    """A resolved recipe whose run.dir is the test's own; `run` inside tmp_path."""
    from distpre.recipe import load

    overrides = [f"run.dir={tmp_path / 'run'}", "data.prepare=null"]
    return load(str(REPOSITORY / "recipes/quickstart.yaml:small"), overrides=overrides).dump()


@pytest.fixture
def run_driver(path_to_trainers):
    """Starts drive.py in a session of its own, away from the repository."""
    import subprocess

    started = []

    def start(trainer: str, recipe: str, folder: Path) -> subprocess.Popen:
        path = os.pathsep.join([str(REPOSITORY), path_to_trainers])
        (folder / "resolved.yaml").write_text(recipe)
        process = subprocess.Popen(
            [sys.executable, str(HERE / "drive.py"), trainer, str(folder / "resolved.yaml")],
            env={**os.environ, "PYTHONPATH": path},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
