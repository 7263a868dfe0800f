"""The contrastive terms: world-size invariance in one line each, and each form by its formula on a small batch."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from distpre.contrast.banks import HardMixing, Queue
from distpre.contrast.targets import LabelSimilarity, OtherView, SameId
from distpre.errors import RecipeError
from distpre.objectives.contrast import PairContrast, weighed
from distpre.objectives.global_contrastive import GlobalContrastive
from distpre.objectives.in_modal import InModal
from distpre.objectives.noise_ratio import NoiseRatio
from distpre.schedule import Constant
from tests.objectives.steps import assert_same_at_any_world, gradients, shared_out, step
from tests.ranks import ranks


def queued():
    return PairContrast("a", "b", scale="s", bank=Queue(14))


def mixing():
    return PairContrast("a", "b", scale="s", symmetric=False, bank=HardMixing(16, hardest=4, pairs=5, with_row=2))


TERMS = {
    "clip": partial(PairContrast, "a", "b", scale="s"),
    "siglip": partial(PairContrast, "a", "b", scale="s", form="sigmoid", symmetric=False),
    "supcon": partial(PairContrast, "a", "b", temperature=Constant(0.2), targets=SameId("class")),
    "inside": partial(PairContrast, "a", "b", scale="s", targets=SameId("class"), inside=True, positives_below=False),
    "current": partial(PairContrast, "a", "b", scale="s", among="current"),
    "labels": partial(PairContrast, "a", "b", scale="s", targets=LabelSimilarity("tags"), facts={"tags": "labels"}),
    "copys_keys": partial(
        PairContrast, "a", "old.b", temperature=Constant(0.04), targets=SameId("class"), symmetric=False
    ),
    "quality": partial(PairContrast, "a", "b", scale="s", facts={"good": "half"}, quality="good", sharpness=1.5),
    "noise_ratio": partial(NoiseRatio, "a", "b", "doubt", strength=0.9, scale="s"),
    "queue": queued,
    "mochi": mixing,
    "sogclr": partial(GlobalContrastive, "a", "b", "u", Constant(0.3), temperature=Constant(0.2)),
    "fastclip": partial(GlobalContrastive, "a", "b", "u", Constant(0.3), scale="s", rho=2.0),
    "nt_xent": partial(InModal, ["a", "b", "c"], scale="s"),
    "nt_xent_supcon": partial(InModal, ["a", "b"], temperature=Constant(0.1), targets=OtherView("class")),
}


@pytest.mark.cluster
@pytest.mark.parametrize("term", TERMS)
def test_loss_and_gradients_are_the_same_at_any_number_of_ranks(term):
    assert_same_at_any_world(TERMS[term], ["a", "b", "c"], 3, steps=3)


def there(s, *views):
    return torch.stack([s.batch.present_in(v) for v in views]).all(0)


def test_siglip_is_the_mean_over_rows_of_a_logistic_loss_of_every_pair():
    s = step(9, ["a", "b"])
    at = there(s, "a", "b")
    logits = s.scales["s"] * s.student["a"].vector[at] @ s.student["b"].vector[at].T + s.biases["s"]
    loss = -F.logsigmoid((2 * torch.eye(len(logits)) - 1) * logits).sum(1).mean()
    ours = gradients(TERMS["siglip"](), s)
    # a row whose partner is absent still meets others as a negative: cut both out, as the formula above does
    s.batch.present["a"][:] = s.batch.present["b"][:] = at
    ours = gradients(TERMS["siglip"](), s)
    torch.testing.assert_close(ours["loss"], loss.detach())
    theirs = torch.autograd.grad(loss, [s.scales["s"], s.biases["s"]])
    torch.testing.assert_close([ours["scale"], ours["bias"]], list(theirs))


def test_replayed_samples_are_in_no_contrast_among_current_ones():
    s = step(15, ["a", "b"])
    loss = TERMS["current"]()(s).loss
    own = s.batch.ids["part"] == 0
    for view in "ab":
        s.batch.present[view] &= own
    assert loss == TERMS["clip"]()(s).loss and loss > 0


@pytest.mark.cluster
@pytest.mark.parametrize("world", [1, 2, 3])
def test_quality_weighs_losses_with_mean_1_over_the_global_batch(world):
    s, n = step(11, ["a", "b", "c"]), 11
    at = there(s, "a", "b")
    logits = s.scales["s"] * s.student["a"].vector @ s.student["b"].vector.T
    mask_rows, mask_columns = s.batch.present_in("a"), s.batch.present_in("b")
    own = torch.arange(n)
    rows = F.cross_entropy(logits.masked_fill(~mask_columns, -torch.inf), own, reduction="none")
    columns = F.cross_entropy(logits.T.masked_fill(~mask_rows, -torch.inf), own, reduction="none")
    score = 1.5 * s.batch.views["half"][at].double()
    w = at.sum() * score.exp() / score.exp().sum()
    assert w.mean() == pytest.approx(1) and w.max() / w.min() == pytest.approx(4.4817, rel=1e-4)
    dense = (w * (rows + columns)[at] / 2).mean()
    leaves = [s.student["a"].vector, s.student["b"].vector, s.scales["s"]]
    wanted = [dense.detach(), *torch.autograd.grad(dense, leaves)]
    every = ranks(world).run(shared_out, TERMS["quality"], n, ["a", "b", "c"])
    mean = sum(r[0]["loss"] for r in every) / world, sum(r[0]["scale"] for r in every) / world
    vectors = [torch.cat([r[0][view] for r in every]) / world for view in "ab"]
    torch.testing.assert_close([mean[0], *vectors, mean[1]], wanted, rtol=1e-10, atol=1e-12)


def test_large_scores_do_not_overflow_and_equal_ones_change_nothing():
    weight, score = torch.tensor([1.0, 1, 0, 1]), torch.tensor([900.0, 899, 5000, 900])
    w = weighed(weight, score, 1.0)
    torch.testing.assert_close(w, torch.tensor([1, 0.36788, 0, 1]), rtol=1e-4, atol=0)
    torch.testing.assert_close(weighed(weight, torch.full((4,), -7.0), 3.0), weight)


def test_nt_xent_by_its_formula():
    s = step(5, ["a", "b"])
    for view in ("a", "b"):
        s.batch.present[view][:] = True
    z = torch.cat([s.student["a"].vector, s.student["b"].vector])
    logits = (s.scales["s"] * z @ z.T).masked_fill(torch.eye(10, dtype=torch.bool), -torch.inf)
    loss = F.cross_entropy(logits, torch.arange(10).roll(5))
    ours = gradients(InModal(["a", "b"], scale="s"), s)
    theirs = torch.autograd.grad(loss, [s.student["a"].vector, s.student["b"].vector, s.scales["s"]])
    torch.testing.assert_close([ours["loss"], ours["a"], ours["b"], ours["scale"]], [loss.detach(), *theirs])


def test_a_queues_columns_of_earlier_steps_are_negatives_of_this_one():
    term, first, second = queued(), step(5, ["a", "b"]), step(5, ["a", "b"], index=1)
    for s in (first, second):
        s.batch.present["a"][:] = s.batch.present["b"][:] = True
    term(first)
    logits = (
        second.scales["s"]
        * second.student["a"].vector
        @ torch.cat([second.student["b"].vector, first.student["b"].vector]).T
    )
    other = second.scales["s"] * second.student["b"].vector @ second.student["a"].vector.T
    expect = (
        F.cross_entropy(logits + second.biases["s"], torch.arange(5)) + F.cross_entropy(other, torch.arange(5))
    ) / 2
    torch.testing.assert_close(term(second).loss, expect)


def test_either_a_scale_or_a_temperature():
    with pytest.raises(RecipeError, match="one of the two"):
        PairContrast("a", "b")


def test_the_ratio_form_of_noise_is_its_formula_and_pulls_suspects_harder():
    s = step(9, ["a", "b"])
    term = NoiseRatio("a", "b", "doubt", strength=0.9, temperature=Constant(0.2))
    found = gradients(term, s)
    leaves = [s.student[view].vector for view in "ab"]
    rows, columns = there(s, "a"), there(s, "b")
    both, w = there(s, "a", "b"), 0.9 * s.batch.state["doubt"]
    e = (leaves[0] @ leaves[1].T / 0.2).exp()
    own = e.diagonal()
    others = [(e * columns).sum(1) - own, (e.T * rows).sum(1) - own]
    counts = [columns.sum() - 1, rows.sum() - 1]
    each = [-torch.log((1 - w) * own / ((1 - w) * own + w / n * z)) for z, n in zip(others, counts, strict=True)]
    loss = ((each[0] + each[1]) / 2)[both].mean()
    torch.testing.assert_close(found["loss"], loss.detach())
    for view, g in zip("ab", torch.autograd.grad(loss, leaves), strict=True):
        torch.testing.assert_close(found[view], g)
    pulls = []
    for doubt in (0.0, 0.02, 0.98):
        s = step(64, ["a", "b"])
        s.batch.present.clear()
        s.batch.state["doubt"] = torch.full((64,), doubt, dtype=torch.float64)
        pulls.append(gradients(NoiseRatio("a", "b", "doubt", 0.999, temperature=Constant(1.0)), s)["a"].norm().item())
    assert pulls[0] == 0 and 0 < pulls[1] < pulls[2] / 5
    for strength in (0.0, 1.0, 1.5):
        with pytest.raises(RecipeError, match="strength"):
            NoiseRatio("a", "b", "doubt", strength=strength, scale="s")
