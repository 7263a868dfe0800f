"""Threads, seeds, and real data where it is at hand."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")  # else it kills workers where others fill the memory

import random  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

REPOSITORY = Path(__file__).parents[1]
settings.register_profile(
    "same", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")
TOGETHER = ("tests/launch/", "tests/test_train.py")  # the one has a Ray for all of its tests, the other a run


@pytest.fixture(autouse=True)
def seeded():
    """Each test draws the same numbers in every run and in any order; what it draws elsewhere it seeds there."""
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def shared_data() -> Path:
    """The folder of small real data sets beside the checkout; the test is skipped where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


def pytest_collection_modifyitems(items):
    """Those that start processes last. pytest-xdist begins with its largest group, tests/launch, which waits for Ray
    and looks at clocks: beside it the other process runs what takes one core.
    """
    items.sort(key=lambda item: item.get_closest_marker("cluster") is not None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each of TOGETHER goes to one process. The marks that pytest-xdist 3.8 has for that are lost under pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return next((place for place in TOGETHER if nodeid.startswith(place)), nodeid)

    return Together(config, log)
