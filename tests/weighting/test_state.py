"""Numbers a sample, over ranks: what one rank writes every rank reads, also after a resize."""

import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from distpre.errors import CheckpointError
from tests.ranks import ranks

N = 1003


def batches(world: int, rank: int):
    """Every sample once in a random order, in uneven shares; its value is a function of the ordinal."""
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    for chunk in order.split(97):
        cut = [0, len(chunk) // 3, len(chunk)] if world == 2 else [0] * world + [len(chunk)]
        yield chunk[cut[rank] : cut[rank + 1]]


def written(folder: str):
    from distpre import group
    from distpre.runtime.engine import join_group
    from distpre.weighting.state import SampleState

    join_group()
    state = SampleState(N, ("loss", "noise"), "digest")
    for ordinals in batches(group.world_size(), group.rank()):
        state.write("loss", ordinals, ordinals.double().sqrt())
    tensors, facts = state.parts()
    save_file(tensors, Path(folder, f"state-{group.rank()}.safetensors"), facts)
    return len(state.values)


def read(folder: str, digest: str = "digest"):
    from distpre import group
    from distpre.runtime.engine import join_group
    from distpre.weighting.state import SampleState

    join_group()
    state = SampleState(N, ("loss", "noise"), digest)
    state.load(sorted(Path(folder).glob("state-*")))
    for ordinals in batches(group.world_size(), group.rank()):
        found = state.read(ordinals)
        assert torch.equal(found[:, 0], ordinals.double().sqrt().float()) and found[:, 1].isnan().all()
    return True


@pytest.mark.cluster
def test_every_number_comes_back_at_another_number_of_ranks(tmp_path):
    assert ranks(2).run(written, str(tmp_path)) == [501, 502]
    assert all(ranks(3).run(read, str(tmp_path))) and all(ranks(1).run(read, str(tmp_path)))


def test_a_state_of_other_shards_or_a_lost_part_is_refused(tmp_path):
    from distpre.weighting.state import SampleState

    state = SampleState(10, ("loss",), "a")
    tensors, facts = state.parts()
    save_file({"values": tensors["values"][:6].clone()}, tmp_path / "part", facts)
    with pytest.raises(CheckpointError, match="of another source .a, this run has b"):
        SampleState(10, ("loss",), "b").load([tmp_path / "part"])
    with pytest.raises(CheckpointError, match="part: holds loss of each sample, the recipe's weighting loss, noise."):
        SampleState(10, ("loss", "noise"), "a").load([tmp_path / "part"])
    with pytest.raises(CheckpointError, match="4 samples are in no part"):
        SampleState(10, ("loss",), "a").load([tmp_path / "part"])


def test_an_update_is_fast_beside_any_step():
    from distpre.weighting.state import SampleState

    state, ordinals = SampleState(10**7, ("loss", "noise"), ""), torch.randint(10**7, (4096,))
    began = time.process_time()
    for _ in range(20):
        state.write("loss", ordinals, torch.ones(4096))
        state.read(ordinals)
    assert (time.process_time() - began) / 20 < 0.02
