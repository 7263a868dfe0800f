"""Loss and gradients equal to open_clip's on the same tensors, over real ranks."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from distpre.contrast import Block, contrast
from distpre.contrast.targets import Teacher
from tests.contrast.forms import Case
from tests.ranks import ranks

B = 6


def both(loss: str):
    """(theirs, ours): loss and gradients by rows, columns, scale, and bias where there is one."""
    dist.init_process_group("gloo")
    rank, n = dist.get_rank(), dist.get_world_size()
    case, mine = Case.make(11, B * n, 14.3, torch.float64), slice(B * rank, B * rank + B)
    leaves = [case.x[mine], case.y[mine], case.scale, case.bias if loss == "siglip" else case.scale]
    leaves = [t.clone().requires_grad_() for t in leaves[: 4 if loss == "siglip" else 3]]
    out = []
    for make in (PEERS[loss], OURS[loss]):
        value = make(rank, n, case, mine, *leaves)
        out.append([value.detach(), *torch.autograd.grad(value, leaves)])
    return out


def clip(rank, n, case, mine, x, y, s):
    from open_clip.loss import ClipLoss

    return ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=n)(x, y, s)


def our_clip(rank, n, case, mine, x, y, s):
    out = contrast(Block(x), Block(y), s)
    return (out.rows.loss().mean() + out.columns.loss().mean()) / 2


def siglip(rank, n, case, mine, x, y, s, b):
    from open_clip.loss import SigLipLoss

    return SigLipLoss(rank=rank, world_size=n)(x, y, s, b)


def our_siglip(rank, n, case, mine, x, y, s, b):
    rows = contrast(Block(x), Block(y), s, bias=b, form="sigmoid", both_ways=False).rows
    return (rows.negatives + rows.positives).mean()


def distill(rank, n, case, mine, x, y, s):
    from open_clip.loss import DistillClipLoss

    teacher = case.facts["teacher_rows"][mine], case.facts["teacher_columns"][mine], torch.tensor(7.0).double()
    said = DistillClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=n)(x, y, s, *teacher)
    return sum(said)


def our_distill(rank, n, case, mine, x, y, s):
    rows, columns = (
        Block(vectors, {"teacher": case.facts[f"teacher_{side}"][mine]})
        for side, vectors in (("rows", x), ("columns", y))
    )
    taught = contrast(rows, columns, s, targets=Teacher(scale=7.0))
    return our_clip(rank, n, case, mine, x, y, s) + (taught.rows.loss().mean() + taught.columns.loss().mean()) / 2


PEERS = {"clip": clip, "siglip": siglip, "distill": distill}
OURS = {"clip": our_clip, "siglip": our_siglip, "distill": our_distill}


@pytest.mark.cluster
@pytest.mark.parametrize("loss", PEERS)
def test_loss_and_gradients_equal_open_clips(loss):
    every = ranks(3).run(both, loss)
    for theirs, ours in every:
        torch.testing.assert_close(ours[1:3], theirs[1:3], rtol=1e-10, atol=1e-12)
    for i in (0, *range(3, len(every[0][0]))):  # the loss and the scalars' gradients: shares differ, means must not
        theirs, ours = (sum(rank[who][i] for rank in every) for who in (0, 1))
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
