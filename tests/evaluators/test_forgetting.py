import math

import pytest
import torch
import torch.nn.functional as F

from distpre.evaluators.forgetting import cross_angle, self_angle, summary

ROWS = {
    "untrained": {"a": 0.1, "b": 0.2, "c": 0.0},
    "a": {"a": 0.8, "b": 0.3, "c": 0.1},
    "b": {"a": 0.9, "b": 0.7, "c": 0.2},
    "c": {"a": 0.5, "b": 0.6, "c": 0.9},
}


def test_figures_of_a_matrix_worked_by_hand():
    assert summary(ROWS, "untrained") == pytest.approx(
        {
            "average": 2.0 / 3,
            "forgetting": ((0.9 - 0.5) + (0.7 - 0.6)) / 2,
            "backward_transfer": ((0.5 - 0.8) + (0.6 - 0.7)) / 2,
            "forward_transfer": ((0.3 - 0.2) + (0.2 - 0.0)) / 2,
        }
    )


def test_what_cannot_be_said_yet_is_left_out():
    assert set(summary({k: ROWS[k] for k in ("untrained", "a")}, "untrained")) == {"average"}
    joint = summary({"untrained": ROWS["untrained"], "joint": ROWS["c"]}, "untrained")
    assert set(joint) == {"average"}


def test_a_rotation_turns_every_sample_and_no_angle_between_two():
    turn = torch.tensor(math.radians(30.0), dtype=torch.float64)
    rotation = torch.tensor([[turn.cos(), -turn.sin()], [turn.sin(), turn.cos()]])
    before = F.normalize(torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1)
    after = before @ rotation.T
    assert self_angle(before, after) == pytest.approx(0, abs=1e-5)
    assert cross_angle(before, after) == pytest.approx(30)
    other = before.clone()
    other[0] = -other[0]
    assert cross_angle(before, other) == pytest.approx(180 / 50) and self_angle(before, other) > 1
