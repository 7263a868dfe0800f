"""The encoder of time steps: COMET's size, what its mask hides, how far it sees."""

import pytest
import torch

from distpre.errors import RecipeError
from distpre.towers.encoders.dilated import Dilated1d
from distpre.towers.heads.projection import SideBySide
from distpre.towers.tower import Tower


def test_a_masked_step_is_zero_after_the_first_layer_and_its_values_are_not_seen():
    encoder, x, seen = Dilated1d(2, 12, 8, 2, dropout=0.0), torch.randn(3, 2, 20), []
    encoder.blocks.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    x[1, 0, 5:9] = torch.nan
    pooled, taps = encoder(x)
    assert taps["steps"].shape == (3, 20, 12) and pooled.isfinite().all() and torch.equal(pooled, taps["steps"].amax(1))
    assert (seen[0][1, :, 5:9] == 0).all() and ((seen[0] == 0).all(1).sum() == 4)
    x[1, 1, 5:9] = 100.0
    torch.testing.assert_close(encoder(x)[0], pooled)
    torch.testing.assert_close(encoder(x[1:2])[0], pooled[1:2])


def test_dilations_double_and_the_last_goes_on():
    convolutions = [m for m in Dilated1d(1).modules() if isinstance(m, torch.nn.Conv1d) and m.kernel_size == (3,)]
    assert [m.dilation[0] for m in convolutions] == [1 << (i // 2) for i in range(22)]
    assert convolutions[-1].out_channels == 320 and convolutions[0].in_channels == 64


def test_every_parameter_learns_and_dropout_makes_two_views_of_one_signal():
    tower, x = Tower(Dilated1d(2, 12, 8, 2), SideBySide(20)), torch.randn(3, 2, 20)
    one, other = tower(x)[0], tower(x)[0]
    assert one.shape == (3, 240) and not torch.equal(one, other)
    (one * torch.randn_like(one)).sum().backward()
    assert not [n for n, p in tower.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("over_time", [False, True])
def test_steps_side_by_side_are_compared_each_with_its_own(over_time):
    tower = Tower(Dilated1d(2, 12, 8, 2), SideBySide(20, over_time=over_time)).eval()
    vector, taps = tower(torch.randn(3, 2, 20))
    h = taps["steps"] / (taps["steps"].norm(dim=1, keepdim=True) if over_time else 1)
    cosine = (h[0] * h[1]).sum() / (h[0].norm() * h[1].norm())
    torch.testing.assert_close(vector[0] @ vector[1], cosine)
    with pytest.raises(RecipeError, match=r"'steps' of 20 steps; the encoder's: steps \(16, 12\)"):
        tower(torch.randn(3, 2, 16))
