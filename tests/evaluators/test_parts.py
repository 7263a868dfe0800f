"""Evaluators of views of parts: crops against cells, and patches by what is in their middle."""

import torch
import torch.nn.functional as F

from distpre.evaluators.assignment import Assignment
from distpre.evaluators.part_probe import PartProbe
from distpre.evaluators.probe import Probe
from tests.evaluators.towers import FakeTowers, batches


def test_assignment_counts_the_crops_whose_nearest_cell_holds_most_of_them():
    g = torch.Generator().manual_seed(0)
    overlap = torch.rand(12, 3, 4, generator=g)
    cells = torch.eye(4).expand(12, 4, 4)
    crops = overlap.clone()
    crops[:3] = 1 - 3 * overlap[:3]  # nearest to where they are least
    views = {"parts": torch.cat([cells, crops], 1), "overlap": overlap}
    ids = {"person": torch.arange(12)}
    weight = torch.ones(12)
    weight[5] = 0
    table = Assignment("parts", {"overlap": "overlap"}, "person")
    [row] = table.run(FakeTowers(), batches(views, ids, weight=weight))
    assert (row.name, row.value, row.n) == ("accuracy", 24 / 33, 33) and row.low < row.value < row.high


def test_probe_of_parts_is_the_probe_of_as_many_samples():
    g = torch.Generator().manual_seed(0)
    kind = torch.randint(2, (30, 4), generator=g)
    x = F.one_hot(kind, 3).float() + 0.7 * torch.randn(30, 4, 3, generator=g)
    person = torch.arange(30) // 2
    of_parts = PartProbe("x", {"labels": "kind"}, "person", folds=3, labelled=[0.3, 1])
    rows = list(of_parts.run(FakeTowers(), batches({"x": x, "kind": kind}, {"person": person})))
    each = {"kind": kind.flatten(), "person": person.repeat_interleave(4)}
    flat = Probe("x", "kind", "person", each="sample", folds=3, labelled=[0.3, 1])
    assert len(rows) == 4 and rows == list(flat.run(FakeTowers(), batches({"x": x.flatten(0, 1)}, each)))
    assert rows[2].n == 120 and rows[2].value > 0.7
