"""The contrast of time steps: COMET's formulas in plain loops, presence, and the same loss at any number of ranks."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from distpre.errors import RecipeError
from distpre.objectives.hierarchical import Hierarchical
from distpre.types import Embedding
from tests.objectives.steps import assert_same_at_any_world, gradients, step

LEVELS = ["observation", "sample"]


@pytest.mark.cluster
@pytest.mark.parametrize("level", LEVELS)
def test_loss_and_gradients_are_the_same_at_any_number_of_ranks(level):
    assert_same_at_any_world(partial(Hierarchical, ["a", "b"], level), ["a", "b"], 3)


def by_formula(x: torch.Tensor, y: torch.Tensor, level: str) -> torch.Tensor:
    """x, y: (b, t, w). A pair's logit against all its rivals', both views as anchors; then at half the time."""
    if level == "sample":  # batch and time change roles
        x, y = x.transpose(0, 1), y.transpose(0, 1)
    found, time = [], 0 if level == "sample" else 1
    while x.shape[time] > 1:
        terms = []
        for one, other in ((x, y), (y, x)):
            for group, partner in zip(one, other, strict=True):
                for i, anchor in enumerate(group):
                    rivals = [anchor @ z for z in partner] + [anchor @ z for j, z in enumerate(group) if j != i]
                    terms.append(torch.stack(rivals).logsumexp(0) - anchor @ partner[i])
        found.append(torch.stack(terms).mean())
        half = x.shape[time] // 2
        x, y = (z.narrow(time, 0, 2 * half).unflatten(time, (half, 2)).amax(time + 1) for z in (x, y))
    return torch.stack(found).mean()


@pytest.mark.parametrize("level", LEVELS)
def test_both_levels_by_their_formulas_absent_samples_apart(level):
    s = step(9, ["a", "b"])
    at = s.batch.present_in("a") & s.batch.present_in("b")
    loss = by_formula(*(s.student[v].taps["steps"][at] for v in "ab"), level)
    theirs = torch.autograd.grad(loss, [s.student["a"].vector, s.student["b"].vector], retain_graph=True)
    ours = gradients(Hierarchical(["a", "b"], level), s)
    assert 3 < at.sum() < 9
    torch.testing.assert_close([ours["loss"], ours["a"], ours["b"]], [loss.detach(), *theirs])


def test_samples_of_other_ranks_are_no_negatives_of_an_observation():
    s = step(6, ["a", "b"])
    for view in "ab":
        s.batch.present[view][:] = True
    alone = Hierarchical(["a", "b"], "observation")(s).per_sample
    s.student["a"].taps["steps"].data[1:] *= 3
    after = Hierarchical(["a", "b"], "observation")(s).per_sample
    assert after[0] == alone[0] and (after[1:] != alone[1:]).all()


def test_an_encoder_without_time_steps_is_refused():
    s = step(4, ["a", "b"])
    s.student["a"] = Embedding(s.student["a"].vector, {"pooled": F.normalize(torch.ones(4, 2))})
    with pytest.raises(RecipeError, match=r"no tap 'steps'.*pooled \(4, 2\)"):
        Hierarchical(["a", "b"], "sample")(s)
    with pytest.raises(RecipeError, match="two views"):
        Hierarchical(["a"], "sample")
