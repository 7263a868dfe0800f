"""Real hosts, as far as one machine has them: `python -m tools.chaos` measures all faults, this is the sharpest one."""

import time

import pytest

from tools.chaos.hosts import cluster_of, missing
from tools.chaos.run import Training, digits

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(missing() is not None, reason=str(missing()))]


def test_training_goes_on_without_a_dead_host(tmp_path):
    """Rank 1's host is gone with all that ran on it; one worker resumes from the commit, with the same batch."""
    overrides = (
        f"run.dir={tmp_path}/run",
        "train.batch=16",
        "train.steps=100000",
        "train.commit_every=5",
    )
    with cluster_of(2, tmp_path / "hosts", prefix="ptest", subnet="10.77.9") as cluster:
        training = Training(cluster, *overrides, digits(tmp_path / "digits"), "launch.workers={min: 1, max: 2}")
        training.first(lambda line: line.text.startswith("2 workers"), 0)
        training.first(lambda line: line.text.startswith("committed step 10"), 0)
        began = time.time()
        cluster.hosts.kill(2)
        told = training.first(lambda line: "restarting" in line.text, began)
        assert told.text.startswith("host2 (10.77.9.2) is gone, with rank 1 after step")
        again = training.first(lambda line: line.text.startswith("1 worker on"), told.at)
        assert "global batch 16," in again.text
        resumed = int(again.text.rsplit(" ", 1)[1])
        assert resumed >= 10 and resumed % 5 == 0
        assert training.first(lambda line: line.step is not None, again.at).step == resumed + 1
