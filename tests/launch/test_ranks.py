from launch.ranks import Place, ranks

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")


def place(node, *gpus):
    return Place(node=node, host=f"host{node}", address=f"10.0.0.{node}", pid=1, gpus=gpus, log="")


def test_ranks_count_within_their_node_and_meet_at_rank_zero():
    environments = ranks([place("1"), place("1"), place("2")], port=1234, threads=3)
    assert [tuple(e[name] for name in NAMES) for e in environments] == [
        ("0", "0", "3", "2", "10.0.0.1", "1234", "3"),
        ("1", "1", "3", "2", "10.0.0.1", "1234", "3"),
        ("2", "0", "3", "1", "10.0.0.1", "1234", "3"),
    ]
    assert not any("CUDA_VISIBLE_DEVICES" in e for e in environments)


def test_workers_of_a_node_see_each_of_its_gpus_once():
    environments = ranks([place("1", "0"), place("1", "2"), place("2", "1"), place("2", "1")], port=1, threads=1)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == ["0,2", "0,2", "1", "1"]
