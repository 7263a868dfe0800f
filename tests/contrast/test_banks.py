"""Banks: a sharded bank equals the dense one, a queue is the same at any number of ranks, mixtures are the paper's."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import save_file

from distpre.contrast import Block, contrast
from distpre.contrast.banks import HardMixing, Queue, StaticBank
from distpre.errors import RecipeError
from tests.contrast.forms import Case
from tests.ranks import ranks


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


def with_bank(form: str, world: int):
    if world > 1:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if world > 1 else 0
    case, bank = Case.make(3, 12, 7.0, torch.float64), unit(17, 5, 1)
    mine, share = slice(12 // world * rank, 12 // world * (rank + 1)), bank[rank::world]
    leaves = [t.clone().requires_grad_() for t in (case.x[mine], case.y[mine], case.scale, case.bias)]
    x, y, s, b = leaves
    present = case.present[mine]
    extra = {"banks": [Block(share)], "column_banks": [Block(share[:1])], "bias": b, "form": form}
    out = contrast(Block(x, present=present), Block(y, present=present), s, **extra)
    each = [torch.where(d.told, d.negatives + d.positives, 0.0) for d in (out.rows, out.columns)]
    if form == "softmax":
        each = [d.loss() for d in (out.rows, out.columns)]
    loss = (case.weight[mine] * torch.stack(each, 1)).sum()
    return [loss.detach(), *torch.autograd.grad(loss, leaves), out.rows.hardest]


def dense_bank(form: str, world: int):
    case, bank = Case.make(3, 12, 7.0, torch.float64), unit(17, 5, 1)
    leaves = x, y, s, b = [t.clone().requires_grad_() for t in (case.x, case.y, case.scale, case.bias)]
    there = case.present.nonzero().squeeze(1)
    inside = (s * x @ y.T + b)[there][:, there]
    firsts = torch.cat([bank[r::world][:1] for r in range(world)])
    losses = []
    for logits, more in ((inside, s * x[there] @ bank.T + b), (inside.T, s * y[there] @ firsts.T + b)):
        every, at = torch.cat([logits, more], 1), torch.arange(len(there))
        if form == "softmax":
            losses.append(F.cross_entropy(every, at, reduction="none"))
        else:
            signs = 2 * F.one_hot(at, every.shape[1]) - 1
            losses.append(-F.logsigmoid(signs * every).sum(1))
    loss = (case.weight[there] * torch.stack(losses, 1)).sum()
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


@pytest.mark.cluster
@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("world", [1, 3, 4])
def test_a_sharded_bank_equals_the_dense_one(form, world):
    parts = ranks(world).run(with_bank, form, world)
    got = [sum(p[0] for p in parts), *(torch.cat([p[i] for p in parts]) for i in (1, 2))]
    got += [sum(p[i] for p in parts) for i in (3, 4)]
    for a, b in zip(got, dense_bank(form, world), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def queued(world: int, size: int, batches: list[torch.Tensor], saved: list | None = None):
    if world > 1:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if world > 1 else 0
    queue = Queue(size)
    if saved is not None:
        queue.load(saved)
    for batch in batches:
        bounds = [len(batch) * r // world for r in range(world + 1)]
        mine = batch[bounds[rank] : bounds[rank + 1]]
        queue.push(mine, mine[:, 0] > 0)
    return queue.columns(batches[0]).vectors, queue.parts()[0]


@pytest.mark.cluster
@pytest.mark.parametrize("world", [2, 3])
def test_a_queue_holds_the_same_at_any_number_of_ranks_and_after_a_resume_at_another(world, tmp_path):
    batches = [unit(7, 4, seed) for seed in range(6)]
    pushed = torch.cat([batch[batch[:, 0] > 0] for batch in batches])
    parts = ranks(world).run(queued, world, 10, batches[:3])
    files = [tmp_path / f"{rank}.safetensors" for rank in range(world)]
    for file, (_, state) in zip(files, parts, strict=True):
        save_file(state, file)
    again = ranks(5 - world).run(queued, 5 - world, 10, batches[3:], files)
    held = torch.cat([vectors for vectors, _ in again])
    assert sorted(held.tolist()) == sorted(pushed[-10:].tolist())


def mixed(world: int):
    if world > 1:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if world > 1 else 0
    bank = HardMixing(size=20, hardest=5, pairs=6, with_row=3, start=2, seed=9)
    vectors, rows = unit(16, 4, 0), unit(8, 4, 1)
    n = 16 // world
    bank.push(vectors[n * rank : n * rank + n], torch.ones(n, dtype=torch.bool))
    mine = rows[8 // world * rank : 8 // world * (rank + 1)]
    return bank.private(mine, 1), bank.private(mine, 4)


@pytest.mark.cluster
def test_mixtures_lie_between_the_hardest_and_are_the_same_at_any_number_of_ranks():
    (early, whole), parts = mixed(1), ranks(2).run(mixed, 2)
    assert early is None
    torch.testing.assert_close(torch.cat([p[1] for p in parts]), whole)
    bank, rows = unit(16, 4, 0), unit(8, 4, 1)
    for row, negatives in zip(rows, whole, strict=True):
        hardest = bank[(bank @ row).topk(5).indices]
        for h in negatives[:6]:  # a cone of two of the five hardest: some pair spans it with coefficients >= 0
            spans = [torch.linalg.lstsq(hardest[[i, j]].T, h[:, None]) for i in range(5) for j in range(i, 5)]
            assert any(
                (f.solution >= -1e-9).all() and (hardest[list(ij)].T @ f.solution - h[:, None]).norm() < 1e-9
                for f, ij in zip(spans, [(i, j) for i in range(5) for j in range(i, 5)], strict=True)
            )
        assert (
            negatives[6:] @ row > (hardest @ row).min()
        ).all()  # drawn towards the row, which keeps the smaller share
    torch.testing.assert_close(whole.norm(dim=2), torch.ones(8, 9, dtype=torch.float64))


def test_private_negatives_are_columns_of_one_row():
    x, y, h = unit(5, 3, 0).requires_grad_(), unit(5, 3, 1), unit(20, 3, 2).unflatten(0, (5, 4))
    out = contrast(Block(x), Block(y), torch.full((1,), 4.0, dtype=torch.float64), both_ways=False, private=h)
    every = torch.cat([4 * x @ y.T, 4 * (x[:, None] * h).sum(2)], 1)
    expect = F.cross_entropy(every, torch.arange(5), reduction="none")
    torch.testing.assert_close(out.rows.loss(), expect)
    a, b = (torch.autograd.grad(loss.sum(), x)[0] for loss in (out.rows.loss(), expect))
    torch.testing.assert_close(a, b)


def test_a_static_bank_reads_its_file_and_refuses_another_width(tmp_path):
    save_file({"vectors": unit(7, 4, 0)}, tmp_path / "bank.safetensors")
    bank = StaticBank(tmp_path / "bank.safetensors")
    torch.testing.assert_close(bank.columns(unit(1, 4, 0)).vectors, unit(7, 4, 0))
    with pytest.raises(RecipeError, match="holds vectors of width 4, the term's have 3"):
        bank.columns(unit(1, 3, 0))
    with pytest.raises(RecipeError, match="cannot be read"):
        StaticBank(tmp_path / "none.safetensors").columns(unit(1, 4, 0))
