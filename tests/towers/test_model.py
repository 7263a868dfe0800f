import torch
from torch import nn

from distpre.towers.heads.projection import Linear, LinearPair, Mlp, Predicted
from distpre.towers.model import LogitScale, Model
from distpre.towers.teachers import Ema, Teacher
from distpre.towers.tower import Tower


class Flat(nn.Module):
    width = 6

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(6, 6)

    def forward(self, x):
        return self.net(x), {"raw": x}


def test_scale_has_shape_one_and_never_exceeds_its_bound():
    scale = LogitScale(start=10.0, max=100.0)
    assert scale.log.shape == (1,)
    torch.testing.assert_close(scale()[0], torch.tensor([10.0]))
    with torch.no_grad():
        scale.log.fill_(9.0)
    torch.testing.assert_close(scale()[0], torch.tensor([100.0]))


def test_gradient_passes_the_clamp_as_it_does_below_it():
    scale = LogitScale(start=10.0, max=100.0)
    with torch.no_grad():
        scale.log.fill_(9.0)
    scale()[0].backward()
    torch.testing.assert_close(scale.log.grad, torch.tensor([100.0]))  # d exp(log) / d log at the bound


def test_towers_give_unit_vectors_of_the_heads_width_and_their_taps():
    towers = {"a": Tower(Flat(), Mlp([8, 4])), "b": Tower(Flat(), Linear(4)), "c": Tower(Flat())}
    model = Model(towers, {"a1": "a", "a2": "a", "b": "b", "c": "c"}, {"logit": LogitScale(10.0, bias=-5.0)}, "fp32")
    views = {name: torch.randn(3, 6) for name in ("a1", "a2", "b", "c")}
    embedded, scales = model(views)
    assert {k: v[0].shape[1] for k, v in embedded.items()} == {"a1": 4, "a2": 4, "b": 4, "c": 6}
    for vector, taps in embedded.values():
        torch.testing.assert_close(vector.norm(dim=1), torch.ones(3))
        assert set(taps) == {"raw", "pooled", "said"}
    assert len(scales["logit"]) == 2 and scales["logit"][1].item() == -5.0


def test_bf16_computes_in_bfloat16_and_returns_fp32_unit_vectors():
    tower = Tower(Flat(), Linear(4))
    x = {"a": torch.randn(64, 6)}
    full = Model({"a": tower}, {"a": "a"}, {}, "fp32")(x)[0]["a"][0]
    half = Model({"a": tower}, {"a": "a"}, {}, "bf16")(x)[0]["a"][0]
    assert half.dtype == torch.float32 and not torch.equal(full, half)
    torch.testing.assert_close(full, half, rtol=0.05, atol=0.05)


def test_an_empty_batch_gives_an_empty_embedding():
    model = Model({"a": Tower(Flat(), Linear(4))}, {"a": "a"}, {}, "fp32")
    assert model({"a": torch.empty(0, 6)})[0]["a"][0].shape == (0, 4)


def test_a_student_predicts_what_its_copy_projects_and_is_evaluated_without_the_predictor():
    tower = Tower(Flat(), Predicted([8, 4], predictor=[8]))
    model = Model({"a": tower}, {"a": "a"}, {}, "fp32", {"ema": Teacher(Ema(0.9), {"a": tower})}).train()
    x = torch.randn(3, 6)
    said = {name: vector for name, (vector, _) in model({"a": x, "ema.a": x})[0].items()}
    projected = tower.head.project(tower.encoder(x)[0])
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(said["a"], unit(tower.head.predict(projected)))
    torch.testing.assert_close(said["ema.a"], unit(projected))
    torch.testing.assert_close(model.eval()({"a": x})[0]["a"][0], unit(projected))
    (said["a"] - said["ema.a"]).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in tower.parameters())
    assert all(p.grad is None for p in model.teachers.parameters())


def test_a_second_matrix_is_heard_in_training_alone_and_leaves_the_first_alone():
    tower, x = Tower(Flat(), LinearPair(4)).train(), torch.randn(3, 6)
    vector, taps = tower(x)
    assert taps["second"].shape == (3, 4) and not torch.allclose(taps["second"], taps["said"])
    taps["second"].sum().backward()
    assert tower.head.project.weight.grad is None and tower.encoder.net.weight.grad is not None
    evaluated, taps = tower.eval()(x)
    assert "second" not in taps and torch.equal(evaluated, vector)
