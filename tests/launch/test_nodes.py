import socket

import pytest

from distpre.errors import ClusterError
from distpre.recipe.schema import LaunchSpec
from launch.nodes import Node, Share, answering, layout


def node(name, cpus, gpus=0.0):
    return Node(name, name, f"10.0.0.{name}", 1, cpus, gpus)


@pytest.mark.parametrize(
    "nodes, workers, where",
    [
        ([node("1", 4.0), node("2", 4.0)], 4, "1122"),
        ([node("1", 1.0), node("2", 1.0), node("3", 1.0)], {"min": 1, "max": 3}, "123"),
        ([node("1", 1.0), node("3", 1.0)], {"min": 1, "max": 3}, "13"),
        ([node("1", 64.0, 4.0), node("2", 64.0, 8.0)], 8, "22222222"),
        ([node("1", 64.0, 4.0), node("2", 64.0, 8.0)], {"min": 2, "max": 16}, "222222221111"),
        ([node("1", 64.0, 4.0), node("2", 64.0, 4.0)], 4, "1111"),
    ],
)
def test_as_many_workers_as_there_is_room_for_node_by_node(nodes, workers, where):
    placed = layout(nodes, LaunchSpec(workers=workers))
    assert "".join(n.id for n in placed.nodes) == where


def test_no_room_for_the_least_is_refused():
    with pytest.raises(ClusterError, match="launch.workers=2: too many for 1 cores on 1 node"):
        layout([node("1", 1.0)], LaunchSpec(workers={"min": 2, "max": 4}))


def test_what_is_busy_counts_as_taken():
    spec = LaunchSpec(workers={"min": 1, "max": 4}, cpus_per_worker=2)
    assert layout([node("1", 3.0), node("2", 0.0)], spec).share == Share(2, 0)
    assert len(layout([node("1", 3.0), node("2", 0.0)], spec).nodes) == 1


def test_who_answers():
    with socket.socket() as there, socket.socket() as nobody:
        for s in (there, nobody):
            s.bind(("127.0.0.1", 0))
        there.listen()
        places = [s.getsockname() for s in (there, nobody)]
        assert answering(places) == {places[0]}
    assert answering([]) == set()
