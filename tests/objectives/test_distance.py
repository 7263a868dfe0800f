"""The distance to a teacher: its mean over the global batch at any number of ranks, among the rows it names."""

import pytest
import torch
import torch.nn.functional as F

from tests.ranks import ranks


def unit(seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(12, 4, generator=torch.Generator().manual_seed(seed)), dim=1)


PARTS, WEIGHT = torch.tensor([0, 1, 0] * 4), torch.tensor([1.0, 1, 0, 1] * 3)


def said(among: str, most: float | None):
    from distpre import group
    from distpre.objectives.distance import Distance
    from distpre.runtime.engine import join_group
    from distpre.types import Batch, Embedding, Step

    join_group()
    bounds = [0, 5, 12] if group.world_size() == 2 else [0, 12]
    mine = slice(bounds[group.rank()], bounds[group.rank() + 1])
    x = unit(0)[mine].requires_grad_()
    batch = Batch({"image": x}, {"part": PARTS[mine]}, torch.arange(12)[mine], WEIGHT[mine])
    step = Step(batch, {"image": Embedding(x)}, {}, {}, 0, 1, {"old": {"image": Embedding(unit(1)[mine])}})
    out = Distance("image", "old.image", among, most)(step)
    [gradient] = torch.autograd.grad(out.loss / group.world_size(), x)
    return group.total(out.loss).item() / group.world_size(), gradient


@pytest.mark.cluster
@pytest.mark.parametrize("among", ["all", "current", "replayed"])
def test_the_mean_and_its_gradient_are_those_of_one_process(among):
    keep = {"all": torch.ones(12), "current": PARTS == 0, "replayed": PARTS == 1}[among] * WEIGHT
    x = unit(0).double().requires_grad_()
    brute = ((x - unit(1).double()).square().sum(1) * keep).sum() / keep.sum()
    [gradient] = torch.autograd.grad(brute, x)
    found = ranks(2).run(said, among, None)
    assert found[0][0] == pytest.approx(brute.item(), abs=1e-6)
    torch.testing.assert_close(torch.cat([g for _, g in found]).double(), gradient, rtol=0, atol=1e-6)
    assert ranks(2).run(said, among, brute.item() / 2)[0][0] == 0
    assert ranks(2).run(said, among, brute.item() * 2)[0][0] == pytest.approx(brute.item(), abs=1e-6)
