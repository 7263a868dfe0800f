"""The hardest parts of all samples, found by counting alone, at any number of ranks."""

import pytest
import torch

from distpre.errors import RecipeError
from distpre.schedule import Linear
from tests.ranks import ranks

N, PARTS = 50, 4
ERRORS = torch.rand(N, PARTS, generator=torch.Generator().manual_seed(0))
ERRORS[7, 2] = torch.nan  # nothing was hidden there


def chosen():
    """Of this rank's part of the samples, two visited never: what is used in the epochs after."""
    from distpre import group
    from distpre.runtime.engine import join_group
    from distpre.types import Batch
    from distpre.weighting.pace import Hardest
    from distpre.weighting.state import SampleState

    join_group()
    pace = Hardest("volumes", PARTS, Linear(0.5, 0.25), epochs=4)
    state = SampleState(N, pace.columns, "")
    mine = torch.arange(N)[group.rank() :: group.world_size()]
    batch = Batch({}, {}, mine, (mine > 1).float())
    before = pace.weigh(state, batch)
    pace.observe(state, batch, ERRORS[mine])
    said = [pace.end_epoch(state, epoch, 0)[0] for epoch in (0, 4)]
    return before.min().item(), mine, pace.weigh(state, batch), said


@pytest.mark.cluster
@pytest.mark.parametrize("world", [1, 3])
def test_the_hardest_share_is_used_and_what_is_unknown(world):
    every = ranks(world).run(chosen)
    known = ERRORS.clone()
    known[:2] = torch.nan
    bound = known[known.isfinite()].quantile(0.75)
    wanted = ~(known < bound)
    for before, mine, used, said in every:
        assert before == 1 and torch.equal(used.bool(), wanted[mine])
        assert said[0]["share"] == pytest.approx(0.5, abs=0.01) and said[1]["share"] == pytest.approx(0.25, abs=0.01)


def test_equal_errors_and_other_parts():
    from distpre.types import Batch
    from distpre.weighting.pace import Hardest, hardest_bound

    assert hardest_bound(torch.full((5,), 2.0), 0.3) == 2.0 and hardest_bound(torch.zeros(0), 0.3) == float("inf")
    with pytest.raises(RecipeError, match="4 parts a sample, but the term 'volumes' tells of"):
        Hardest("volumes", 4, Linear(0.5, 0.25)).observe(
            None, Batch({}, {}, torch.arange(2), torch.ones(2)), ERRORS[:2, :3]
        )
