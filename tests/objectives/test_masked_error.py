"""The masked error against plain loops, at any number of ranks; what is not there, or not asked, counts nothing."""

from functools import partial

import pytest
import torch

from distpre.objectives.masked_error import MaskedError
from tests.objectives.steps import assert_same_at_any_world, gradients, step


@pytest.mark.cluster
@pytest.mark.parametrize("keywords", [{}, {"paced": "pace", "facts": {"part": "half"}}])
def test_any_number_of_ranks_gives_the_same(keywords):
    assert_same_at_any_world(partial(MaskedError, "a", **keywords), ["a"], 3)


@pytest.mark.parametrize("paced", [False, True])
def test_it_is_the_mean_over_samples_that_count(paced):
    s = step(11, ["a"])
    s.batch.weight[4] = 0
    term = MaskedError("a", paced="pace" if paced else None, facts={"part": "half"})
    taps, errors, pixels = s.student["a"].taps, [], []
    for i in range(11):
        counts = s.batch.present["a"][i] and s.batch.weight[i] > 0
        if counts and (not paced or s.batch.state["pace"][i, i % 2] == 1):
            errors.append((taps["predicted"][i] - taps["target"][i]).square().mean())
            pixels.append(taps["target"][i])
    out = term(s)
    torch.testing.assert_close(out.loss, torch.stack(errors).mean())
    spread = torch.stack(pixels).var(correction=0)
    torch.testing.assert_close(out.log["of_mean"], (torch.stack(errors).mean() / spread).detach())
    assert out.log["samples"] == len(errors) < 11
    moved = gradients(term, s)["a"].abs().sum(1) > 0
    assert int(moved.sum()) == len(errors) and not moved[4] and not moved[~s.batch.present["a"]].any()


def test_a_perfect_prediction_has_no_error_and_the_mean_has_a_ratio_of_one():
    s = step(11, ["a"])
    taps = s.student["a"].taps
    taps["predicted"] = taps["target"].clone()
    assert MaskedError("a")(s).loss == 0
    there = s.batch.present["a"]
    taps["predicted"] = taps["target"][there].mean().expand_as(taps["target"])
    torch.testing.assert_close(MaskedError("a")(s).log["of_mean"], torch.tensor(1.0, dtype=torch.float64))


def test_errors_a_part_are_those_of_its_hidden_tubelets():
    s = step(11, ["a"])
    taps = s.student["a"].taps
    said = MaskedError("a", parts=2)(s).per_sample
    error = (taps["predicted"] - taps["target"]).square().mean(2)
    for i in range(11):
        for part in range(2):
            its = [error[i, k] for k in range(2) if taps["hidden"][i, k] // 2 == part]
            wanted = torch.stack(its).mean() if its else torch.tensor(torch.nan, dtype=error.dtype)
            torch.testing.assert_close(said[i, part], wanted.detach(), equal_nan=True)
