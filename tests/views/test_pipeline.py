"""A view's draws depend on (seed, epoch, ordinal, view) and on nothing else."""

import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from distpre.views.pipeline import View, view_rng

REPOSITORY = Path(__file__).parents[2]


def _draw(value, rng):
    return value + rng.integers(1 << 60)


@pytest.fixture
def view() -> View:
    return View("image", "png", [_draw], [_draw])


def test_each_part_of_the_key_changes_the_draw(view):
    keys = list(product((0, 1), (0, 1, 11), (0, 1, 10, 11)))
    draws = {view.at(0, seed=s, epoch=e, ordinal=o) for s, e, o in keys}
    draws |= {View("other", "png", [_draw], []).at(0, seed=s, epoch=e, ordinal=o) for s, e, o in keys}
    assert len(draws) == 2 * len(keys)


def test_the_order_of_calls_does_not_matter(view):
    forward = [view.at(0, seed=3, epoch=1, ordinal=o) for o in range(20)]
    backward = [view.at(0, seed=3, epoch=1, ordinal=o) for o in reversed(range(20))]
    assert forward == backward[::-1]


def test_another_process_draws_the_same():
    """Python's own hash differs from process to process; the key must not hang on it."""
    program = (
        "from distpre.views.pipeline import view_rng; print(view_rng(7, 2, 12345678901, 'image').integers(1 << 60))"
    )
    there = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert int(there) == view_rng(7, 2, 12345678901, "image").integers(1 << 60)


def test_ops_run_in_order_on_one_stream():
    view = View("x", "f", [lambda v, rng: v + [rng.random()], lambda v, rng: v + [rng.random()]], [])
    rng = view_rng(1, 0, 5, "x")
    assert view.at([], seed=1, epoch=0, ordinal=5) == [rng.random(), rng.random()]


def test_evaluation_uses_its_own_ops_and_always_the_same_draw():
    view = View("x", "f", [lambda v, rng: "train"], [_draw])
    assert view.evaluation(0) == view.evaluation(0) != view.evaluation(1)


def test_draws_of_neighbouring_samples_are_spread_evenly():
    draws = np.array([view_rng(0, 0, o, "image").random() for o in range(4000)])
    counts = np.histogram(draws, bins=10, range=(0, 1))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4 / np.sqrt(4000)
