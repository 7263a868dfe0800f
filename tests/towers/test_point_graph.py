"""The point encoder: neighbours against brute force, and what a point's vector must and must not depend on."""

import pytest
import torch
import torch.nn.functional as F

from distpre.errors import RecipeError
from distpre.towers.encoders.point_graph import PointGraph, largest, nearest


def test_neighbours_are_the_nearest_and_the_largest_is_theirs():
    places, x = torch.randn(2, 30, 3), torch.randn(2, 30, 5)
    near = nearest(places, 6)
    apart = torch.cdist(places, places)
    assert (near[..., 0] == torch.arange(30)).all()
    torch.testing.assert_close(apart.gather(2, near), apart.sort(dim=2).values[..., :6], rtol=1e-4, atol=2e-3)
    found = largest(x, near)
    for b in range(2):
        for i in range(30):
            torch.testing.assert_close(found[b, i], x[b, near[b, i]].amax(0))
    assert nearest(places[:, :4], 6).shape == (2, 4, 6)


def test_a_vector_depends_on_points_nearby_in_its_own_scene_only():
    encoder, x = PointGraph(3, 16, neighbours=4, dilations=[1, 2]), 10 * torch.rand(2, 60, 3)
    points, taps = encoder(x)
    assert points.shape == (2, 60, 16) and taps == {}
    torch.testing.assert_close(encoder(x[1:])[0], points[1:], rtol=1e-4, atol=1e-5)
    moved = x.clone()
    moved[0, 0] += 1.0
    changed = (encoder(moved)[0][0] - points[0]).abs().amax(1) > 1e-6
    assert 1 < changed.sum() < 50
    torch.testing.assert_close(encoder(x + torch.tensor([5.0, -3.0, 0.0]))[0], points, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(encoder(x + torch.tensor([0.0, 0.0, 1.0]))[0], points, atol=1e-2)


def test_the_order_of_points_changes_their_order_alone_and_every_parameter_learns():
    encoder, x, order = PointGraph(3, 16, 4, [1, 2]), torch.rand(1, 40, 3), torch.randperm(40)
    points = encoder(x)[0]
    torch.testing.assert_close(encoder(x[:, order])[0], points[:, order], rtol=1e-4, atol=1e-5)
    (points * torch.randn_like(points)).sum().backward()
    assert not [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("wrong", [{"neighbours": 0}, {"dilations": []}, {"dilations": [1, 0]}, {"radius": 0.0}])
def test_a_layer_without_neighbours_is_refused(wrong):
    with pytest.raises(RecipeError, match="at least 1"):
        PointGraph(3, 8, **wrong)


def test_a_scene_far_away_is_the_same_scene_in_bfloat16_too():
    layer, h, places = PointGraph(3, 16, 4, [1]).layers[0], torch.randn(1, 60, 16), 3 * torch.rand(1, 60, 3)
    near = nearest(places, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        here, there = layer(h, places, near), layer(h, places + 50, near)
    assert F.cosine_similarity(here.float(), there.float(), dim=2).min() > 0.9999
