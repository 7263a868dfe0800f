"""SIGKILL at random moments, and the same run in the end, bit for bit; `python -m tools.chaos.kills` does 50."""

import random

import pytest
import torch

from tools.chaos.kills import killed, leaves


@pytest.mark.cluster
def test_a_run_killed_again_and_again_ends_as_the_unbroken_one(tmp_path):
    kills, wrong = killed(tmp_path, 3, ranks=2, zero=1, rng=random.Random(0))
    assert wrong == []
    assert kills.starting + kills.committing + kills.stepping == 3


@pytest.mark.parametrize(
    "other", [{"a": [torch.ones(2) + 1e-6, 3], "b": 1}, {"a": [torch.ones(2), 3]}, {"a": [], "b": 1}]
)
def test_the_comparison_sees_what_differs(other):
    one = {"a": [torch.ones(2), 3], "b": 1}
    assert all(equal for _, equal in leaves(one, {"a": [torch.ones(2), 3], "b": 1}))
    assert not all(equal for _, equal in leaves(one, other))
