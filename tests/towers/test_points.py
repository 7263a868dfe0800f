"""The point-patch transformer: its parts against brute force, its size, and what it must not depend on."""

import pytest
import torch

from distpre.errors import RecipeError
from distpre.towers.encoders.points import PointPatches, far_apart, within

SMALL = {
    "patches": 8,
    "neighbours": 6,
    "radius": 0.5,
    "sizes": [8, 16],
    "width": 32,
    "layers": 2,
    "heads": 4,
    "inner": 48,
}


def test_the_size_is_openshapes():
    assert sum(p.numel() for p in PointPatches().parameters()) / 1e6 == pytest.approx(32, abs=0.5)


def test_centres_are_each_the_farthest_from_those_before():
    places = torch.randn(3, 40, 3)
    for cloud, chosen in zip(places, far_apart(places, 10), strict=True):
        assert chosen[0] == 0 and len(set(chosen.tolist())) == 10
        for i in range(1, 10):
            least = torch.cdist(cloud, cloud[chosen[:i]]).amin(1)
            assert least[chosen[i]] == least.max()


@pytest.mark.parametrize("count", [4, 60])
def test_a_ball_holds_its_first_points_and_repeats_the_first(count):
    places = torch.rand(2, 50, 3)
    centres = places[:, :7]
    found = within(places, centres, 0.4, count)
    assert found.shape == (2, 7, count)
    for b in range(2):
        for c in range(7):
            inside = [i for i in range(50) if (places[b, i] - centres[b, c]).norm() <= 0.4][:count]
            assert found[b, c].tolist() == inside + [inside[0]] * (count - len(inside))


def test_a_patch_is_seen_from_its_centre():
    encoder, x, seen = PointPatches(channels=6, **SMALL), torch.rand(2, 64, 6), []
    encoder.point.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    encoder(x)
    assert seen[0].shape == (2, 8, 6, 9) and seen[0][..., :3].norm(dim=-1).max() <= 0.5
    centres = seen[0][..., 3:6] - seen[0][..., :3]
    torch.testing.assert_close(centres, centres[:, :, :1].expand_as(centres))
    assert ((centres[:, :, 0, None] - x[:, None, :, :3]).norm(dim=-1).amin(-1) < 1e-5).all()


def test_a_row_does_not_depend_on_its_neighbours_and_every_parameter_learns():
    encoder, x = PointPatches(channels=6, **SMALL).train(), torch.randn(4, 64, 6)
    pooled, taps = encoder(x)
    assert pooled.shape == (4, 32) and taps["patches"].shape == (4, 8, 32)
    torch.testing.assert_close(encoder(x[1:3])[0], pooled[1:3], rtol=1e-4, atol=1e-5)
    (pooled * torch.randn_like(pooled)).sum().backward()
    assert not [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_patches_are_a_set_but_places_and_colours_count():
    """With balls that hold all their points, the order of all points but the first changes nothing."""
    torch.manual_seed(0)
    encoder = PointPatches(channels=6, **{**SMALL, "neighbours": 64}).eval()
    x = torch.rand(1, 64, 6)
    shuffled = x[:, torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(63)])]
    torch.testing.assert_close(encoder(shuffled)[0], encoder(x)[0], rtol=1e-4, atol=1e-5)
    for channel in (2, 5):
        other = x.clone()
        other[..., channel] *= 0.5
        assert not torch.allclose(encoder(other)[0], encoder(x)[0], atol=1e-3)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(RecipeError, match="3 heads in a width of 32"):
        PointPatches(**{**SMALL, "heads": 3})
