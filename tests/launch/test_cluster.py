import contextlib
import os
import stat

import psutil
import pytest

from distpre.errors import ClusterError
from launch.cluster import cluster, cores
from launch.nodes import Node, Share, share


def node(cpus, gpus=0.0, name="a"):
    return Node(name, name, "10.0.0.1", 1, cpus, gpus)


CPU_8, GPU_4 = node(8.0), node(64.0, 4.0)


@pytest.mark.parametrize(
    "nodes, workers, cpus, gpus, each",
    [
        ([CPU_8], 2, None, None, Share(4, 0)),
        ([CPU_8], 3, None, None, Share(2, 0)),
        ([CPU_8], 2, 1, None, Share(1, 0)),
        ([CPU_8, node(4.0)], 3, None, None, Share(4, 0)),
        ([node(5.0), node(5.0), node(5.0)], 4, None, None, Share(2, 0)),
        ([GPU_4, GPU_4], 8, None, None, Share(16, 1)),
        ([GPU_4], 8, None, 0.5, Share(8, 0.5)),
        ([GPU_4], 8, None, 0, Share(8, 0)),
        ([GPU_4, node(64.0)], 4, None, None, Share(16, 1)),
    ],
)
def test_a_worker_gets_its_share(nodes, workers, cpus, gpus, each):
    assert share(nodes, workers, cpus, gpus) == each


@pytest.mark.parametrize(
    "nodes, workers, cpus, gpus, there_are",
    [
        ([CPU_8], 9, None, None, "8 cores on 1 node"),
        ([CPU_8, CPU_8], 3, 8, None, "16 cores on 2 nodes, at 8 a worker"),
        ([GPU_4], 5, None, None, "4 GPUs, at 1 a worker"),
        ([CPU_8], 1, None, 1, "0 GPUs, at 1 a worker"),
    ],
)
def test_too_many_workers_are_refused(nodes, workers, cpus, gpus, there_are):
    with pytest.raises(ClusterError, match=f"launch.workers={workers}: too many for {there_are}"):
        share(nodes, workers, cpus, gpus)


def test_too_many_workers_for_this_machine_are_refused_before_anything_starts():
    before = psutil.Process().children(recursive=True)
    with pytest.raises(ClusterError, match=f"too many for {cores()} cores"), cluster(None, cores() + 1):
        pass
    assert psutil.Process().children(recursive=True) == before


def test_an_address_where_nobody_answers_is_told():
    with pytest.raises(ClusterError, match="--address 127.0.0.1:1: no Ray cluster") as error, cluster("127.0.0.1:1", 1):
        pass
    assert error.value.exit_status == 2


@pytest.mark.cluster
def test_our_own_ray_listens_on_loopback_behind_a_private_token(ray_of_two):
    listening = []
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            listening += [c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert listening and all(ip.removeprefix("::ffff:") == "127.0.0.1" for ip in listening)
    assert os.environ["RAY_AUTH_MODE"] == "token"
    token = os.stat(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(token.st_mode) == 0o600 and token.st_size == 64
