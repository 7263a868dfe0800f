"""CAPro's gate and prototypes: by their rules sample by sample, at any number of ranks, and through a commit."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from distpre.errors import DataError
from distpre.objectives.prototypes import Prototypes
from distpre.schedule import Constant
from distpre.types import Batch
from distpre.weighting.decided import Decided
from distpre.weighting.state import SampleState
from tests.objectives.steps import assert_same_at_any_world, step
from tests.ranks import ranks

N, CLASSES = 11, 4
made = partial(Prototypes, "a", "class", CLASSES, Constant(0.5), momentum=0.9, relabel=0.6, start=2)


@pytest.mark.cluster
@pytest.mark.parametrize("world", [2, 3])
def test_loss_and_gradients_are_the_same_at_any_number_of_ranks(world):
    assert_same_at_any_world(made, ["a", "b"], world, steps=5)


def by_hand(steps):
    """Losses, labels and prototypes of the whole batch, one sample after another."""
    c, said = torch.zeros(CLASSES, 4, dtype=torch.float64), []
    for s in steps:
        q, given = s.student["a"].vector.detach(), s.batch.ids["class"]
        losses, labels, old = [], given.tolist(), c.clone()
        for i in range(N):
            if s.batch.present_in("a")[i]:
                known = old.any(1)
                if known[given[i]]:
                    logits = torch.where(known, old @ q[i] / 0.5, -torch.inf)
                    soft = logits.softmax(0)
                    if s.index >= 2 and soft[given[i]] < 1 / CLASSES:
                        labels[i] = int(soft.argmax()) if soft.max() >= 0.6 else CLASSES
                    if labels[i] < CLASSES:
                        losses.append(F.cross_entropy(logits[None], torch.tensor([labels[i]])))
                if labels[i] < CLASSES:
                    c[labels[i]] = F.normalize(0.9 * c[labels[i]] + 0.1 * q[i], dim=0)
        said.append((torch.stack(losses).mean() if losses else torch.zeros(()), labels))
    return said, c


def test_each_sample_is_kept_relabelled_or_dropped_and_moves_its_prototype():
    steps = [step(N, ["a", "b"], index=i) for i in range(5)]
    said, c = by_hand(steps)
    term = made()
    for s, (loss, labels) in zip(steps, said, strict=True):
        told = term(s)
        torch.testing.assert_close(told.loss.detach(), loss.double())
        assert told.per_sample.tolist() == labels
    torch.testing.assert_close(term.means.vectors, c)
    every = [
        (a, b)
        for s, (_, labels) in zip(steps[2:], said[2:], strict=True)
        for a, b in zip(s.batch.ids["class"].tolist(), labels, strict=True)
    ]
    assert {a == b for a, b in every} == {True, False} and CLASSES in {b for _, b in every}
    assert any(a != b < CLASSES for a, b in every), "all three happened"


def part(folder: str, first: int, until: int) -> torch.Tensor:
    """Steps first to until - 1 on this rank's part; prototypes from the folder, and to it."""
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    term = made()
    if first:
        term.means.load(sorted(Path(folder).glob("prototypes-*")))
    for i in range(first, until):
        term(step(N, ["a", "b"], index=i, part=slice(N * rank // world, N * (rank + 1) // world)))
    tensors, facts = term.means.parts()
    dist.barrier()
    save_file(tensors, Path(folder, f"prototypes-{rank}.safetensors"), facts)
    return term.means.vectors


@pytest.mark.cluster
def test_a_commit_gives_them_to_any_number_of_ranks(tmp_path):
    _, c = by_hand([step(N, ["a", "b"], index=i) for i in range(5)])
    ranks(2).run(part, str(tmp_path), 0, 2)
    ranks(3).run(part, str(tmp_path), 2, 4)
    for vectors in ranks(1).run(part, str(tmp_path), 4, 5):
        torch.testing.assert_close(vectors, c)


def test_a_label_that_is_no_class_is_told():
    s = step(N, ["a", "b"])
    s.batch.present["a"][:] = True
    s.batch.ids["class"][4] = 7
    with pytest.raises(DataError, match="a sample's class is 7, no number from 0 to 3"):
        made()(s)


def test_the_decision_stands_until_the_next_visit():
    gate, state = Decided("prototypes", "class"), SampleState(6, ("label",), "")
    batch = Batch({}, {"class": torch.arange(6) % 3}, torch.arange(6), torch.tensor([1.0, 1, 1, 0, 1, 1]))
    assert gate.weigh(state, batch).tolist() == [0, 1, 2, 0, 1, 2]
    gate.observe(state, batch, torch.tensor([0.0, 3, 1, 2, 2, 0]))
    assert gate.weigh(state, batch).tolist() == [0, 3, 1, 0, 2, 0], "the fourth was not read"
