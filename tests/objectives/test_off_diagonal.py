"""Mod-X's term against the paper's two matrices written out, and at any number of ranks."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from distpre.objectives.contrast import PairContrast
from distpre.objectives.objective import Objective
from distpre.objectives.off_diagonal import OffDiagonal
from distpre.schedule import Constant
from tests.objectives.steps import assert_same_at_any_world, gradients, step

TERM = partial(OffDiagonal, "a", "b", "old", temperature=0.2)
FORMS = {
    "released": TERM,
    "mean": partial(TERM, reduction="mean"),
    "off the diagonal": partial(TERM, diagonal=False),
    "every row": partial(TERM, trusted=False),
}


def written_out(s, reduction="sum", diagonal=True, trusted=True) -> torch.Tensor:
    """Untrusted rows of the teacher are replaced by the student's, as in the paper: their divergence is 0."""
    at = torch.stack([s.batch.present_in(v) for v in ("a", "b")]).all(0)
    here, then = ([e[v].vector[at] for v in ("a", "b")] for e in (s.student, s.teachers["old"]))
    student, teacher = (5.0 * x @ y.T for x, y in (here, then))
    total, n = 0.0, len(student)
    own = torch.eye(n, dtype=torch.bool)
    for m, t in ((student, teacher), (student.T, teacher.T)):
        right = (t.argmax(1) == torch.arange(n))[:, None]
        t = torch.where(right, t, m.detach()) if trusted else t
        if not diagonal:
            m, t = m[~own].unflatten(0, (n, n - 1)), t[~own].unflatten(0, (n, n - 1))
        p = t.softmax(1)
        total = total + (p * (t.log_softmax(1) - m.log_softmax(1))).sum() / 2
    return total if reduction == "sum" else total / n


def both_present(n: int):
    s = step(n, ["a", "b"])
    s.batch.present["a"][:] = s.batch.present["b"][:] = s.batch.present["a"] & s.batch.present["b"]
    return s


@pytest.mark.parametrize("form", FORMS)
def test_the_term_is_the_papers_on_two_matrices(form):
    s = both_present(15)
    loss = written_out(s, **{k: v for k, v in FORMS[form].keywords.items() if k != "temperature"})
    theirs = torch.autograd.grad(loss, [s.student["a"].vector, s.student["b"].vector])
    ours = gradients(FORMS[form](), s)
    torch.testing.assert_close([ours["loss"], ours["a"], ours["b"]], [loss.detach(), *theirs])


@pytest.mark.cluster
@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradients_are_the_same_at_any_number_of_ranks(form):
    assert_same_at_any_world(FORMS[form], ["a", "b"], 3)


def test_trusted_shares_are_those_of_the_teachers_matrix():
    s = both_present(15)
    at = s.batch.present_in("a")
    teacher = s.teachers["old"]["a"].vector[at] @ s.teachers["old"]["b"].vector[at].T
    log, n = TERM()(s).log, torch.arange(int(at.sum()))
    assert 0 < log["trusted_rows"] < 1
    torch.testing.assert_close(log["trusted_rows"], (teacher.argmax(1) == n).double().mean())
    torch.testing.assert_close(log["trusted_columns"], (teacher.argmax(0) == n).double().mean())


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    s = step(9, ["a", "b"])
    s.teachers["old"].update({v: e for v, e in s.student.items()})
    told = gradients(TERM(trusted=False), s)
    assert told["loss"].abs() < 1e-12 and told["a"].norm() < 1e-12


def test_with_weight_0_the_objective_is_plain_fine_tuning_bit_for_bit():
    s = both_present(15)
    match = PairContrast("a", "b", scale="s"), Constant(1.0)
    plain, held = (gradients(Objective({"match": match} | more), s) for more in ({}, {"modx": (TERM(), Constant(0.0))}))
    assert all(torch.equal(held[name], value) for name, value in plain.items())
