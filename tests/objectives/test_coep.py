"""COEP's tri-modal loss (OCTCube-EF) against the paper's formula: two faults of its released code must not be ours.

There a missing picture is a vector of zeros that stays in the denominators as a negative, and all samples that lack IR
are duplicates of one another, in the pair of OCT and FAF too.
"""

import torch
import torch.nn.functional as F

from distpre.contrast.targets import SameId
from distpre.data.ids import MISSING
from distpre.objectives.contrast import PairContrast
from distpre.types import Batch, Embedding, Step

N = 9
PAIRS = {"oct_ir": ("oct", "ir", "ir"), "oct_faf": ("oct", "faf", "faf"), "ir_faf": ("ir", "faf", "ir")}
THERE = {"oct": torch.ones(N, dtype=torch.bool), "ir": torch.arange(N) % 4 != 1, "faf": torch.arange(N) % 3 != 2}


def world() -> Step:
    """Samples 6 and 7 have one and the same IR picture, 0 and 7 the same FAF."""
    g = torch.Generator().manual_seed(0)
    vectors = {view: F.normalize(torch.randn(N, 5, generator=g, dtype=torch.float64), dim=1) for view in THERE}
    ids = {view: torch.where(THERE[view], torch.arange(N), MISSING) for view in ("ir", "faf")}
    ids["ir"][7], ids["faf"][7] = 6, 0
    present = {view: THERE[view] for view in ("ir", "faf")}
    batch = Batch({}, ids, torch.arange(N), torch.ones(N, dtype=torch.float64), present)
    student = {view: Embedding(x.requires_grad_()) for view, x in vectors.items()}
    scales = {name: torch.tensor([5.0 + i], dtype=torch.float64, requires_grad=True) for i, name in enumerate(PAIRS)}
    return Step(batch, student, scales, {}, 0, 1)


def by_the_formula(step: Step) -> torch.Tensor:
    """A picture whose partner is missing is no row, but is there to be told from others."""
    total = torch.zeros((), dtype=torch.float64)
    for name, (a, b, id) in PAIRS.items():
        both = (THERE[a] & THERE[b]).nonzero()[:, 0].tolist()
        for rows, columns in ((a, b), (b, a)):
            logits = step.scales[name] * step.student[rows].vector @ step.student[columns].vector.T
            for i in both:
                log = logits[i, THERE[columns]].logsumexp(0)
                same = [j for j in both if step.batch.ids[id][j] == step.batch.ids[id][i]]
                total = total - sum(logits[i, j] - log for j in same) / len(same) / len(both) / 6
    return total


def test_six_directions_weighted_by_presence_each_pair_with_its_own_scale_and_duplicates():
    step = world()
    leaves = [e.vector for e in step.student.values()] + list(step.scales.values())
    terms = [PairContrast(r, c, scale=name, targets=SameId(id)) for name, (r, c, id) in PAIRS.items()]
    loss = sum(term(step).loss for term in terms) / 3
    wanted = by_the_formula(step)
    torch.testing.assert_close(loss, wanted)
    found = torch.autograd.grad(loss, leaves)
    for got, brute in zip(found, torch.autograd.grad(wanted, leaves), strict=True):
        torch.testing.assert_close(got, brute)
    for view, gradient in zip(step.student, found, strict=False):
        assert (gradient.abs().sum(1) > 0).equal(THERE[view])
