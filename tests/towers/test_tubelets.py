"""The masked autoencoder: only seen tubelets are encoded, only hidden ones drawn, and weights go from run to run."""

import pytest
import torch
from safetensors.torch import save_file

from distpre.errors import CheckpointError, RecipeError
from distpre.towers.encoders.tubelets import Tubelets, sines
from distpre.towers.heads.masked import MaskedDecoder
from distpre.towers.tower import Tower
from distpre.types import Padded

SIZES = {"size": [4, 8, 8], "tubelet": [2, 4, 4], "slice": 8, "width": 16, "layers": 2, "heads": 2}
N, PIXELS = 8, 32


def view(seen: int, rows: int = 3, n: int = N, pixels: int = PIXELS) -> Padded:
    g = torch.Generator().manual_seed(0)
    order = torch.rand(rows, n, generator=g).argsort(1)
    return Padded(torch.rand(rows, n, pixels, generator=g), order < seen)


def encoder(**changed) -> Tubelets:
    torch.manual_seed(0)
    return Tubelets(**{**SIZES, **changed})


def test_only_seen_tubelets_are_encoded_and_hidden_ones_cannot_be_known():
    net, x, lengths = encoder(), view(seen=3), []
    for block in net.blocks:
        block.register_forward_hook(lambda module, given, out: lengths.append(out.shape[1]))
    pooled, taps = net(x)
    assert lengths == [1 + 3] * 2 and taps["tokens"].shape == (3, 4, 16) and pooled.shape == (3, 16)
    blind = Padded(torch.where(x.mask[..., None], x.values, 9.0), x.mask)
    torch.testing.assert_close(net(blind)[0], pooled, rtol=0, atol=0)
    assert torch.equal(taps["at"], torch.stack([row.nonzero()[:, 0] for row in x.mask]))


def test_a_place_belongs_to_its_tubelet_seen_or_not():
    net, x = encoder(layers=0), view(seen=N)
    whole = net(x)[1]["tokens"][:, 1:]
    part = view(seen=3)
    part = net(Padded(x.values, part.mask))[1]
    wanted = torch.stack([row[at] for row, at in zip(whole, part["at"], strict=True)])
    torch.testing.assert_close(part["tokens"][:, 1:], wanted)
    positions = net._positions([2, 2, 2])[0]
    t, f = net.time[0].T, net.face[0].flatten(1).T
    torch.testing.assert_close(positions, torch.cat([t[0] + f, t[1] + f]))
    torch.testing.assert_close(net._positions([1, 2, 2])[0], f)


def test_places_are_the_less_alike_the_farther_apart():
    for n in (4, 8, 20):
        table = sines(n, 64)
        alike = (table.T @ table)[0] / table[:, 0].square().sum()
        assert (alike[: n // 2].diff() < 0).all() and alike[n // 2 :].max() < 0.5


def test_tables_of_places_are_interpolated_to_another_grid():
    net = encoder(size=[8, 16, 16], slice=16, places=[2, 2, 2])
    assert net.time.shape == (1, 16, 2) and net._positions([4, 4, 4]).shape == (1, 64, 16)
    assert net(view(seen=64, n=64))[0].shape == (3, 16)


def test_single_frames_have_a_patch_embedding_of_their_own_and_the_same_blocks():
    net, x = encoder(), view(seen=2, n=4, pixels=16)
    net(x)[0].sum().backward()
    assert net.embed["16"].weight.grad is not None and net.embed["32"].weight.grad is None
    assert net.blocks[0].mlp.fc1.weight.grad.abs().sum() > 0 and net.time.grad is None


def test_the_decoder_draws_the_hidden_ones_alone_and_only_while_training():
    tower, x = Tower(encoder(), MaskedDecoder([32, 16], width=8, layers=1, heads=2)), view(seen=3)
    vector, taps = tower(x)
    assert taps["predicted"].shape == taps["target"].shape == (3, N - 3, PIXELS)
    for row in range(3):
        hidden = (~x.mask[row]).nonzero()[:, 0]
        assert torch.equal(taps["hidden"][row], hidden)
        assert torch.equal(taps["target"][row], x.values[row, hidden])
    assert len(taps["predicted"].flatten(0, 1).unique(dim=0)) == 3 * (N - 3)  # a place each
    taps["predicted"].sum().backward()
    assert tower.encoder.embed["32"].weight.grad.abs().sum() > 0
    assert set(tower.eval()(x)[1]) == {"tokens", "at", "positions", "pixels", "seen", "pooled", "said"}
    torch.testing.assert_close(vector.norm(dim=1), torch.ones(3))


def test_what_does_not_fit_is_refused():
    with pytest.raises(RecipeError, match=r"\[2, 4, 4\] in a volume of \[5, 8, 8\]"):
        encoder(size=[5, 8, 8])
    with pytest.raises(RecipeError, match="4 tubelets of 32 pixels; the encoder's sizes make 8 of 32 or 4 of 16"):
        encoder()(view(seen=2, n=4))
    uneven = view(seen=3)
    uneven.mask[0] = True
    with pytest.raises(ValueError, match="as many tubelets of each sample"):
        encoder()(uneven)


def test_an_encoder_starts_from_a_run_of_another_head(tmp_path):
    tower = Tower(encoder(), MaskedDecoder([32, 16], width=8, layers=1, heads=2))
    state = {f"towers.scan.{name}": value for name, value in tower.state_dict().items()}
    state["towers.other.encoder.net.weight"] = torch.zeros(2)
    folder = tmp_path / "run" / "checkpoints" / "step-00000007"
    folder.mkdir(parents=True)
    save_file(state, folder / "weights.safetensors")
    (folder / "COMMIT").write_text("{}")
    torch.manual_seed(1)
    taken = Tubelets(**SIZES, weights=str(tmp_path / "run"))
    for name, value in tower.encoder.state_dict().items():
        assert torch.equal(taken.state_dict()[name], value)
    with pytest.raises(CheckpointError, match=r"towers.scan.encoder.blocks.2\S+ is not in it"):
        encoder(layers=3, weights=str(tmp_path / "run"))
    with pytest.raises(CheckpointError, match=r"towers.scan.encoder.face is \(1, 16, 2, 2\), the tower's is"):
        encoder(size=[4, 16, 16], slice=16, weights=str(tmp_path / "run"))
