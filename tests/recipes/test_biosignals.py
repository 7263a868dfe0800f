"""The wearables' recipes: which segments meet which, of which model, and the sizes of the paper's networks."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from distpre.recipe import load
from distpre.recipe.resolve import build
from distpre.runtime.build import objective
from distpre.types import Batch, Embedding, Step

RECIPES = Path(__file__).parents[2] / "recipes/biosignals"
N = 7


def vectors(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(N, 5, generator=generator, dtype=torch.float64), dim=1)


def contrast(queries, keys):
    """-1/N Σ_i log[exp(<q_i, k_i> / 0.04) / Σ_j exp(<q_i, k_j> / 0.04)]."""
    return F.cross_entropy(queries @ keys.T / 0.04, torch.arange(N))


def koleo(x):
    return -torch.stack([min((x[i] - x[j]).norm() for j in range(N) if j != i).log() for i in range(N)]).mean()


@pytest.mark.parametrize("name", ["ecg", "ppg"])
def test_a_projection_meets_the_copys_of_the_other_segment_and_no_gradient_reaches_the_copy(name):
    a, b, key_a, key_b = (vectors(seed).requires_grad_() for seed in range(4))
    batch = Batch({}, {"participant": torch.arange(N)}, torch.arange(N), torch.ones(N, dtype=torch.float64))
    teachers = {"ema": {"a": Embedding(key_a.detach()), "b": Embedding(key_b.detach())}}
    step = Step(batch, {"a": Embedding(a), "b": Embedding(b)}, {}, {}, 0, 1, teachers)
    ours = objective(load(str(RECIPES / f"{name}.yaml")))(step).loss
    spread = 0.1 * (koleo(a) + koleo(b)) / 2
    paper = (contrast(a, key_b) + contrast(b, key_a)) / 2 + spread
    crossed_twice = (contrast(a, key_a) + contrast(b, key_b)) / 2 + spread
    torch.testing.assert_close(ours, paper, rtol=1e-7, atol=0)
    assert abs(ours - crossed_twice) > 0.1
    torch.testing.assert_close(torch.autograd.grad(ours, [a, b]), torch.autograd.grad(paper, [a, b]))


@pytest.mark.parametrize("name", ["ecg", "ppg"])
def test_every_variant_says_its_own_terms(name):
    terms = {v: load(f"{RECIPES / name}.yaml:{v}") for v in ("segments", "no_koleo", "simclr", "byol")}
    places = [v.ops[0].keywords()["place"] for v in terms["segments"].views.values()]
    assert places == [0, 0] and terms["segments"].objective == load(str(RECIPES / f"{name}.yaml")).objective
    assert terms["no_koleo"].objective["spread"].weight == 0 and terms["no_koleo"].teachers
    assert not terms["simclr"].teachers and list(terms["simclr"].objective) == ["match"]
    assert {t.component.name for t in terms["byol"].objective.values()} == {"distance"} and terms["byol"].teachers


@pytest.mark.parametrize(
    "recipe, millions",
    [("ecg.yaml", 2.5), ("ppg.yaml", 3.3), ("ecg.yaml:resnet", 16.6), ("ppg.yaml:resnet", 16.6), ("ecg.yaml:vit", 7.2)],
)
def test_encoders_have_the_papers_sizes(recipe, millions):
    """The paper: 2.5 M (ECG), 3.3 M (PPG), ResNet 16.9 M, ViT 7.2 M; a ResNet-34 of one dimension has 16.6 M."""
    (tower,) = load(str(RECIPES / recipe)).towers.values()
    with torch.device("meta"):
        encoder = build(tower.encoder, "encoder")
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    assert encoder.width == (512 if "resnet" in recipe else 256)
