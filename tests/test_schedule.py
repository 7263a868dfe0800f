import math

import pytest

from distpre.schedule import Constant, Cosine, Linear, Steps


def test_warm_up_climbs_to_start_and_cosine_falls_to_end():
    lr = Cosine(start=2.0, end=0.5, warm_up=4)
    assert [lr.at(i, 104) for i in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert lr.at(4, 104) == 2.0 and lr.at(104, 104) == 0.5
    assert lr.at(54, 104) == pytest.approx(1.25)
    assert lr.at(29, 104) == pytest.approx(0.5 + 1.5 * 0.5 * (1 + math.cos(math.pi / 4)))


def test_linear_is_half_way_in_the_middle():
    assert Linear(1.0, 3.0).at(50, 100) == 2.0 and Linear(1.0, 3.0).at(0, 100) == 1.0


def test_steps_change_at_their_step_and_not_before():
    s = Steps((0, 10), (1.0, 0.1))
    assert [s.at(i, 20) for i in (0, 9, 10, 19)] == [1.0, 1.0, 0.1, 0.1]


def test_constant_is_constant():
    assert Constant(3.0).at(0, 1) == Constant(3.0).at(10**9, 1) == 3.0
