"""Slices: order matters through attention, single images pass by it, hidden ones are predicted from the others."""

import pytest
import torch
import torch.nn.functional as F

from distpre.errors import RecipeError
from distpre.objectives.masked_error import MaskedError
from distpre.towers.encoders.slices import Slices
from distpre.towers.heads.prototypes import SlicePrototypes
from distpre.towers.tower import Tower
from distpre.types import Batch, Embedding, Padded, Step

SIZES = {"model": [8, 16], "width": 16, "layers": 1, "heads": 2, "inner": 16, "places": 6}


def encoder(**changed) -> Slices:
    torch.manual_seed(0)
    return Slices(**{**SIZES, **changed})


def volumes(b: int = 3, n: int = 6) -> torch.Tensor:
    return torch.randn(b, n, 8, 8, generator=torch.Generator().manual_seed(1))


def masked(x: torch.Tensor, hidden: list[int]) -> Padded:
    seen = torch.ones(x.shape[:2], dtype=torch.bool)
    seen[:, hidden] = False
    return Padded(x, seen)


def test_the_order_of_slices_tells_and_with_the_mean_in_the_place_of_attention_it_does_not():
    x, turned = volumes(), volumes().flip(1)
    net = encoder()
    assert (net(x)[0] - net(turned)[0]).abs().max() > 0.01
    mean = encoder(layers=0)
    torch.testing.assert_close(mean(x)[0], mean(turned)[0])
    torch.testing.assert_close(net(x)[1]["slices"], net(turned)[1]["slices"].flip(1))


def test_attention_runs_from_slice_to_slice():
    """What one slice shows reaches what is said of another: along the features alone it would not."""
    net, x = encoder(), volumes(1)
    x.requires_grad_()
    [gradient] = torch.autograd.grad(net(x)[1]["tokens"][0, 0].square().sum(), x)
    assert (gradient[0].abs().amax((1, 2)) > 0).all()


def test_as_many_slices_as_there_are_with_places_in_between():
    net = encoder()
    assert [net(volumes(n=n))[0].shape for n in (2, 6, 11)] == [(3, 16)] * 3
    one, many = encoder(layers=1), encoder(layers=1, places=3)
    assert one.places.shape == (1, 16, 6) and many(volumes())[0].shape == (3, 16)


def test_a_single_image_is_what_a_slice_is_before_the_transformer():
    net, x = encoder(), volumes()
    pooled, taps = net(x[:, 2:3])
    torch.testing.assert_close(pooled, net(x)[1]["slices"][:, 2])
    assert "tokens" not in taps
    pooled[:, 0].sum().backward()
    assert net.blocks[0].attn.qkv.weight.grad is None and net.project[0].weight.grad.abs().sum() > 0


def test_a_slice_is_the_mean_of_each_map_of_unit_length():
    net, image = encoder(), volumes(1, 1)
    maps = net.net(image)
    pooled = torch.cat([F.normalize(m.mean((2, 3)), dim=1) for m in maps], 1)
    assert pooled.shape == (1, 8 + 16)
    torch.testing.assert_close(net(image)[0], net.project(pooled))


def test_a_timm_model_gives_the_maps_that_it_is_asked_for():
    net = encoder(model="resnet18", config={"out_indices": [1, 2, 3, 4]})
    assert net.project[0].in_features == 64 + 128 + 256 + 512
    assert net.eval()(torch.randn(1, 2, 32, 32))[0].shape == (1, 16)


def test_hidden_slices_are_not_told_and_the_target_is_what_they_are():
    tower = Tower(encoder(), SlicePrototypes(4, 5, [8]))
    x = volumes()
    other = x.clone()
    other[:, 2] = 9
    taps, blind = tower(masked(x, [2, 4]))[1], tower(masked(other, [2, 4]))[1]
    torch.testing.assert_close(taps["predicted"], blind["predicted"])
    assert taps["hidden"].tolist() == [[2, 4]] * 3 and not taps["target"].requires_grad
    torch.testing.assert_close(taps["target"], tower(x)[1]["slices"][:, [2, 4]])
    assert (taps["target"][:, 0] - blind["target"][:, 0]).abs().max() > 0.01
    assert "predicted" not in tower(x)[1] and "predicted" not in tower.eval()(masked(x, [2]))[1]


def test_the_error_is_that_of_hidden_slices_alone_by_their_own_number():
    """The released code takes the mean over all of 64 slices and divides by 6, where 7 are hidden."""
    tower, x = Tower(encoder(), SlicePrototypes(4, 5, [8])), masked(volumes(), [1, 4])
    vector, taps = tower(x)
    batch = Batch({"one": x}, {}, torch.arange(3), torch.ones(3))
    loss = MaskedError("one")(Step(batch, {"one": Embedding(vector, taps)}, {}, {}, 0, 1)).loss
    said, slices = tower.head.decoder(taps["tokens"]), taps["slices"]
    wanted = torch.stack([(said[:, n] - slices[:, n]).square().mean() for n in (1, 4)]).mean()
    torch.testing.assert_close(loss, wanted)
    assert (loss - (said - slices).square().mean() * 6 / 2).abs() > 0.1 * loss


def test_images_and_volumes_have_prototypes_of_their_own():
    tower, x = Tower(encoder(), SlicePrototypes(4, 5, [8])), volumes()
    image, volume = tower(x[:, :1]), tower(x)
    assert image[0].shape == (3, 8) and image[1]["scores"].shape == (3, 4)
    assert volume[0].shape == (3, 16) and volume[1]["scores"].shape == (3, 5)
    centres = F.normalize(tower.head.volumes.centres, dim=1)
    torch.testing.assert_close(volume[1]["scores"], volume[0] @ centres.T)


def test_a_hidden_slice_is_predicted_from_the_others_and_without_attention_is_not():
    """All slices of a volume show one of four pictures: the others tell which the hidden one is."""
    g = torch.Generator().manual_seed(2)
    pictures, errors = torch.randn(4, 1, 8, 8, generator=g), {}
    for layers in (1, 0):
        tower = Tower(encoder(layers=layers), SlicePrototypes(4, 5, [8]))
        optimiser = torch.optim.Adam([*tower.encoder.blocks.parameters(), *tower.head.decoder.parameters()], 1e-2)
        for _ in range(60):
            x = pictures[torch.randint(4, (32,), generator=g)].expand(-1, 6, -1, -1)
            taps = tower(masked(x + 0.1 * torch.randn(x.shape, generator=g), [3]))[1]
            error = (taps["predicted"] - taps["target"]).square().mean()
            optimiser.zero_grad()
            error.backward()
            optimiser.step()
            errors[layers] = float(error.detach())
    assert errors[1] < 0.3 * errors[0]


def test_what_does_not_divide_is_refused():
    with pytest.raises(RecipeError, match="3 heads in a width of 16"):
        encoder(heads=3)
