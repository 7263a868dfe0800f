"""COCONUT's term against its formula in float64, anchor by anchor, keys of either model; at any number of ranks."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from distpre.contrast.targets import OtherView
from distpre.objectives.in_modal import InModal
from distpre.objectives.rehearsal import Rehearsal
from distpre.schedule import Constant
from tests.objectives.steps import assert_same_at_any_world, gradients, step

TERM = partial(Rehearsal, "a", id="class", temperature=Constant(0.1))
FORMS = {
    "nspt": partial(TERM, "old.a", "a"),
    "ntpt": partial(TERM, "old.a", "old.a"),
    "nsps": partial(TERM, "a", "a"),
    "ntps": partial(TERM, "a", "old.a"),
    "own left out": partial(TERM, "old.a", "a", own=False),
    "other classes below": partial(TERM, "old.a", "a", positives_below=False),
    "mean": partial(TERM, "old.a", "a", reduction="mean"),
    "keys of another view": partial(TERM, "old.b", "b"),
    "learned scale": partial(Rehearsal, "a", "old.a", "a", id="class", scale="s"),
    "every anchor": partial(TERM, "old.a", "a", among="all"),
}


def written_out(s, _, above, below, own=True, positives_below=True, among="replayed", reduction="sum", scale=None):
    """Anchor by anchor, key by key."""
    a, u, w = (s.embedding(view).vector for view in ("a", above, below))
    a = (s.scales[scale] if scale else 10) * a
    class_, n, each = s.batch.ids["class"], len(s.batch), []
    there = {view: s.batch.present_in(view) for view in ("a", above, below)}
    for k in range(n):
        if not there["a"][k] or (among == "replayed" and k % 3):
            continue
        keys = {view: [i for i in range(n) if there[view][i] and (own or i != k)] for view in (above, below)}
        positives = [p for p in keys[above] if class_[p] == class_[k]]
        under = [i for i in keys[below] if positives_below or class_[i] != class_[k]]
        if positives and under:
            bottom = sum(torch.exp(a[k] @ w[i]) for i in under)
            each.append(-sum(torch.log(torch.exp(a[k] @ u[p]) / bottom) for p in positives) / len(positives))
    each = each or [0 * a.sum() + 0 * u.sum() + 0 * w.sum()]
    return torch.stack(each).sum() if reduction == "sum" else torch.stack(each).mean()


@pytest.mark.parametrize("n", [15, 4])  # of 4 samples all are of one class
@pytest.mark.parametrize("form", FORMS)
def test_the_term_is_the_formula(form, n):
    s, asked = step(n, ["a", "b"]), FORMS[form]
    loss = written_out(s, *asked.args, **{k: v for k, v in asked.keywords.items() if k not in ("id", "temperature")})
    leaves = [s.student["a"].vector, s.student["b"].vector, s.scales["s"]]
    theirs = torch.autograd.grad(loss, leaves, allow_unused=True)
    theirs = [torch.zeros_like(x) if g is None else g for g, x in zip(theirs, leaves, strict=True)]
    ours = gradients(asked(), s)
    assert n == 4 or loss > 0
    torch.testing.assert_close(
        [ours[k] for k in ("loss", "a", "b", "scale")], [loss.detach(), *theirs], rtol=1e-10, atol=1e-10
    )


@pytest.mark.cluster
@pytest.mark.parametrize("form", ["nspt", "ntpt", "mean", "own left out", "learned scale"])
def test_loss_and_gradients_are_the_same_at_any_number_of_ranks(form):
    assert_same_at_any_world(FORMS[form], ["a", "b"], 3, n=15)


def test_nothing_replayed_costs_nothing():
    s = step(9, ["a", "b"])
    s.batch.ids["part"][:] = 0
    told = gradients(FORMS["nspt"](), s)
    assert told["loss"] == 0 and told["a"].norm() == 0 and told["scale"] == 0


def test_a_teacher_that_is_the_student_makes_it_supcon_of_the_anchors():
    s = step(15, ["a", "b"])
    s.teachers["old"].update(s.student)
    s.batch.present["a"][:] = True
    ours = FORMS["own left out"]()(s).per_sample
    supcon = InModal(["a", "b"], temperature=Constant(0.1), targets=OtherView("class"))
    s.batch.present["b"][:] = False
    theirs = supcon(s).per_sample
    torch.testing.assert_close(ours, theirs * (s.batch.ids["part"] > 0), rtol=1e-10, atol=1e-12)
