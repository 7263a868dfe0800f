import pytest
import torch

from distpre.errors import RecipeError
from distpre.towers.encoders.resnet3d import ResNet3d
from distpre.towers.heads.parts import PartMlp
from distpre.towers.heads.projection import Mlp
from distpre.towers.tower import Tower


def test_a_part_is_embedded_as_if_it_were_alone():
    encoder = ResNet3d([1, 2], channels=2, stem=8)
    tower = Tower(encoder, Mlp([16, 4]))
    x = torch.randn(3, 5, 2, 6, 7, 8)
    vectors, taps = tower(x)
    assert encoder.width == 24 and vectors.shape == (3, 5, 4) and taps["pooled"].shape == (3, 5, 24)
    torch.testing.assert_close(vectors[1, 3], tower(x[1, 3:4])[0][0])
    torch.testing.assert_close(vectors.norm(dim=2), torch.ones(3, 5))


def test_every_stage_is_in_the_embedding():
    encoder = ResNet3d([1, 1, 1], stem=8)
    out, _ = encoder(torch.randn(2, 1, 9, 9, 9))
    assert out.shape == (2, 8 + 16 + 32) and (out.std(0) > 0).all()
    with pytest.raises(RecipeError, match="multiple of 8"):
        ResNet3d([1], stem=12)


def test_parts_that_are_almost_alike_are_told_apart_and_samples_do_not_meet():
    head = PartMlp([8, 4])
    head.build(6)
    x = 100 + torch.randn(3, 5, 6) * 0.1
    out = head(x, {})
    torch.testing.assert_close(out.mean(1), torch.zeros(3, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(1, correction=0), torch.ones(3, 4), atol=1e-2, rtol=0)
    torch.testing.assert_close(head(x[1:2], {}), out[1:2])
