"""VoCo's assignment of crops to cells by its two formulas, pair by pair, and at any number of ranks."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from distpre.errors import RecipeError
from distpre.objectives.position import Position, right
from distpre.types import Batch, Embedding, Step
from tests.objectives.steps import assert_same_at_any_world

B, M, N, D = 4, 3, 5, 6
FACTS = {"overlap": "overlap"}


def step() -> Step:
    """Four volumes of three crops and five cells, the second of weight 0."""
    g = torch.Generator().manual_seed(0)

    def unit(n: int) -> torch.Tensor:
        return F.normalize(torch.rand(B, n, D, generator=g, dtype=torch.float64) - 0.3, dim=2)

    share = torch.rand(B, M, 1, generator=g, dtype=torch.float64)
    y = torch.zeros(B, M, N, dtype=torch.float64)
    y[..., 1:3] = torch.cat([share, 1 - share], 2)
    batch = Batch({"overlap": y}, {}, torch.arange(B), torch.tensor([1.0, 0, 1, 1], dtype=torch.float64))
    student, teacher = {"parts": Embedding(unit(N + M).requires_grad_())}, {"parts": Embedding(unit(N + M))}
    return Step(batch, student, {}, {}, 0, 1, {"ema": teacher})


def split(s: Step) -> tuple[torch.Tensor, ...]:
    q, p = s.student["parts"].vector.split([N, M], 1)
    return p, q, s.batch.views["overlap"]


def released(s: Step) -> torch.Tensor:
    p, q, y = split(s)
    tq, tp = s.teachers["ema"]["parts"].vector.split([N, M], 1)
    here, elsewhere, apart, total, none = 0, 0, 0, 0, 0
    for b in (0, 2, 3):
        for i in range(M):
            for k in range(N):
                like = (max(p[b, i] @ tq[b, k], 0 * p[b, i, 0]) + max(tp[b, i] @ q[b, k], 0 * q[b, k, 0])) / 2
                here = here - y[b, i, k] * torch.log(1 - abs(y[b, i, k] - like) + 1e-6)
                total += y[b, i, k]
                if y[b, i, k] == 0:
                    elsewhere, none = elsewhere + like**2, none + 1
        for j in range(N):
            for k in range(j + 1, N):
                apart = apart + max(q[b, j] @ q[b, k].detach(), 0 * q[b, j, 0]) ** 2
    return here / total + elsewhere / none + apart / (3 * math.comb(N, 2))


def paper(s: Step) -> torch.Tensor:
    p, q, y = split(s)
    said, apart = 0, 0
    for b in (0, 2, 3):
        for i in range(M):
            for k in range(N):
                like = max(p[b, i] @ q[b, k].detach(), 0 * p[b, i, 0])
                said = said - torch.log(1 - abs(y[b, i, k] - like) + 1e-6) / (3 * M * N)
        for j in range(N):
            for k in range(j + 1, N):
                apart = apart + 2 / (N * (N - 1)) * abs(q[b, j] @ q[b, k]) / 3
    return said + apart


@pytest.mark.parametrize(
    "term,formula",
    [
        (Position("parts", FACTS, against="ema"), released),
        (Position("parts", FACTS, loss="mean"), paper),
    ],
    ids=["released", "paper"],
)
def test_loss_and_gradients_are_the_formulas(term, formula):
    s = step()
    expected = formula(s)
    found = term(s)
    torch.testing.assert_close(found.loss, expected, rtol=1e-12, atol=0)
    mine, theirs = (torch.autograd.grad(loss, s.student["parts"].vector) for loss in (found.loss, expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


class Parts:
    """The term on the steps of tests/objectives: two cells are one view's vectors, two crops another's."""

    local = False

    def __call__(self, s: Step):
        first = s.batch.views["labels"][:, :2, None] * (s.batch.views["labels"][:, :2, None] > 0.5)
        views = {"overlap": torch.cat([first, 1 - first], 2)}
        parts = torch.stack([s.student[v].vector.unflatten(1, (2, 2)) for v in "ab"], 1).flatten(1, 2)
        batch = replace(s.batch, views=views, present={"parts": s.batch.present["a"]})
        return Position("parts", FACTS)(replace(s, batch=batch, student={"parts": Embedding(parts)}))


@pytest.mark.cluster
def test_loss_and_gradients_are_the_same_at_any_number_of_ranks():
    assert_same_at_any_world(Parts, ["a", "b"], 3)


def test_any_cell_that_holds_as_much_as_another_is_right():
    y = torch.tensor([[[0.5, 0.5, 0], [0.2, 0.8, 0]]])
    assert right(torch.tensor([[[0.1, 0.9, 0.5], [0.9, 0.1, 0.5]]]), y).tolist() == [[1, 0]]


def test_views_that_do_not_belong_together_are_named():
    s = step()
    s.batch.views["overlap"] = s.batch.views["overlap"][:, :, :2]
    with pytest.raises(RecipeError, match="one grid and one count"):
        Position("parts", FACTS)(s)
