"""Encoders of signals: what they must not know of each other, and what they see of time."""

import pytest
import torch

from distpre.errors import RecipeError
from distpre.towers.encoders.signal import EfficientNet1d, ResNet1d, ViT1d

SMALL = [8, 8, 8, 8, 8, 8, 16]


def test_efficientnet_has_sixteen_blocks_and_a_place_for_32_time_steps():
    encoder = EfficientNet1d(1, SMALL)
    assert sum("InvertedBottleneck" in type(m).__name__ for m in encoder.net) == 16
    assert encoder.net(torch.randn(2, 1, 3840)).shape == (2, 16, 120)


ENCODERS = {
    "efficientnet1d": lambda: EfficientNet1d(2, SMALL, stem=8),
    "resnet1d": lambda: ResNet1d(2, [1, 1], stem=8, kernel=3),
    "vit1d": lambda: ViT1d(2, 256, 32, 32, 1, 4),
}


@pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)
def test_a_row_does_not_depend_on_its_neighbours_and_every_parameter_learns(make):
    encoder, x = make().train(), torch.randn(5, 2, 256)
    pooled, taps = encoder(x)
    assert pooled.shape == (5, encoder.width) and taps == {}
    torch.testing.assert_close(encoder(x[1:3])[0], pooled[1:3], rtol=1e-4, atol=1e-5)
    (pooled * torch.randn_like(pooled)).sum().backward()
    idle = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle


@pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)
def test_both_channels_and_both_ends_of_time_reach_the_output(make):
    encoder, x = make().eval(), torch.randn(1, 2, 256)
    x.requires_grad_()
    encoder(x)[0][0, 0].backward()
    assert (x.grad[0, :, :16].abs().sum(1) > 0).all() and (x.grad[0, :, -16:].abs().sum(1) > 0).all()


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(RecipeError, match="7 widths, all multiples of 8"):
        EfficientNet1d(1, [16, 24])
    with pytest.raises(RecipeError, match="patches of 30 in 256"):
        ViT1d(1, 256, 30, 32, 1, 4)
    with pytest.raises(RecipeError, match="stem 12"):
        ResNet1d(1, [1], stem=12)
