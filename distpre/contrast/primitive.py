"""contrast(): the one primitive, put together from layout, form, targets and sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distpre import group
from distpre.contrast import layout as layouts
from distpre.contrast.block import Block, Contrast, Direction
from distpre.contrast.forms import FORMS, Form
from distpre.contrast.sample import at_each_place, within_sample
from distpre.contrast.similarity import Dot, Similarity
from distpre.contrast.sweep import Job, sweep
from distpre.contrast.targets import NoPair, OwnPair, Targets

KEEP_BYTES = 64 * 2**20  # of logits held from the forward to the backward sweep
HELD_BYTES = 4 * 2**30  # of gathered rows, columns and their gradients; the ring where no grid needs less


def contrast(
    rows: Block,
    columns: Block,
    scale: Tensor,
    *,
    bias: Tensor | None = None,
    targets: Targets = OwnPair(),  # noqa: B008
    similarity: Similarity = Dot(),  # noqa: B008
    form: Literal["softmax", "sigmoid"] = "softmax",
    both_ways: bool = True,
    within: Literal["batch", "rank", "sample", "place"] = "batch",
    banks: Sequence[Block] = (),
    column_banks: Sequence[Block] = (),
    private: Tensor | None = None,
    layout: str = "auto",
    keep_bytes: int = KEEP_BYTES,
) -> Contrast:
    """Rows against columns, over the global batch; every rank calls it, with any number of samples (0 too).

    scale, bias: [1]; logit = scale * similarity + bias + log-weights. Row k and column k of a rank are a pair.
    both_ways: also each column over all rows. within: whose columns a row meets: everyone's, this rank's, or, with
    vectors (n, r, d) and (n, c, d), its own sample's; then results are (n, r) and (n, c) and nothing is gathered; or
    "place", with (n, t, d) and (m, t, d): everyone's, at the same place (time step); results (n, t) and (m, t).
    banks, column_banks: more negatives for rows and for columns: each rank's shard, never gathered, no gradient.
    private: (n, m, d) more negatives for each row alone, no gradient.
    layout: "auto" (the cost model of layout.choose), "RxC" or "ring". keep_bytes: logits are kept for the backward
    sweep where a rank's whole block takes no more, else computed again.

    Gradients: if each rank's loss is a share whose mean over ranks is the global loss, and parameter gradients are
    averaged over ranks, the result is the single-process gradient, of scale and bias too.
    Raises ValueError for a layout that these ranks cannot have.
    """
    kind = FORMS[form]
    if within == "sample":
        return within_sample(rows, columns, scale, bias, targets, similarity, kind)
    if within == "place":
        return at_each_place(rows, columns, scale, bias, targets, similarity, kind, both_ways)
    job = Job(rows, columns, targets, similarity, kind, both_ways, keep_bytes, _laid(rows, columns, within, layout))
    by_row, by_column = sweep(job, scale, bias)
    if job.own_outside:
        own = _own_logits(rows, columns, scale, bias)
        by_row, by_column = (d and _with_own(d, own, kind) for d in (by_row, by_column))
    for bank in banks:
        by_row = _with_bank(by_row, rows, bank, scale, bias, job)
    for bank in column_banks:
        by_column = _with_bank(by_column, columns, bank, scale, bias, job)
    if private is not None:
        by_row = _merged(by_row, *_private(rows, private, scale, bias, similarity, kind), kind)
    return Contrast(by_row, by_column)


def _private(
    rows: Block, private: Tensor, scale: Tensor, bias: Tensor | None, similarity: Similarity, form: Form
) -> tuple[Tensor, Tensor]:
    """(n,) negatives and the hardest of them."""
    kind = torch.promote_types(rows.vectors.dtype, torch.float32)
    with torch.autocast(rows.vectors.device.type, enabled=False):
        alike = similarity.tile(rows.vectors[:, None].to(kind), private.detach().to(kind))
        logits = (scale * alike if bias is None else scale * alike + bias).squeeze(1)
    logits = logits.masked_fill(~rows.there()[:, None], -torch.inf)
    return form.total(logits, 1), logits.detach().amax(1)


def _merged(direction: Direction, negatives: Tensor, hardest: Tensor, form: Form) -> Direction:
    return replace(
        direction,
        negatives=form.join(direction.negatives, negatives),
        hardest=torch.maximum(direction.hardest, hardest),
    )


def _laid(rows: Block, columns: Block, within: str, layout: str) -> layouts.Laid:
    present = [int(block.there().sum()) for block in (rows, columns)]
    if within == "rank":
        return layouts.alone([len(rows), len(columns), *present])
    table = layouts.exchange([len(rows), len(columns), *present], rows.vectors.device)
    most = max(max(row[:2]) for row in table)
    width = rows.vectors.shape[1:].numel()
    plan = layouts.choose(len(table), most, width, node=group.ranks_a_node(), memory=HELD_BYTES, wanted=layout)
    return layouts.laid(plan, table)


def _own_logits(rows: Block, columns: Block, scale: Tensor, bias: Tensor | None) -> Tensor:
    """(n,) of this rank's own pairs, -inf where either half is absent; differentiable."""
    kind = torch.promote_types(rows.vectors.dtype, torch.float32)
    with torch.autocast(rows.vectors.device.type, enabled=False):
        logits = scale.to(kind) * (rows.vectors.to(kind) * columns.vectors.to(kind)).sum(-1)
    for extra in (bias, rows.log_weight, columns.log_weight):
        logits = logits if extra is None else logits + extra
    return logits.masked_fill(~(rows.there() & columns.there()), -torch.inf)


def _with_own(direction: Direction, own: Tensor, form: Form) -> Direction:
    positives = own if form.sign > 0 else -F.logsigmoid(own.masked_fill(own.isinf(), 1e4))
    return replace(direction, positives=positives, target=own, best=own.detach(), own=torch.zeros_like(own.detach()))


def _with_bank(
    direction: Direction, rows: Block, bank: Block, scale: Tensor, bias: Tensor | None, job: Job
) -> Direction:
    """Rows travel to the shards; what they find there is merged into their negatives."""
    columns = replace(bank, vectors=bank.vectors.detach(), facts={})
    table = layouts.exchange([len(rows), len(columns), 0, 0], rows.vectors.device)
    across = layouts.laid(layouts.Plan.of(1, len(table)), table)
    rows = replace(rows, facts={})
    found, _ = sweep(Job(rows, columns, NoPair(), job.similarity, job.form, False, job.keep_bytes, across), scale, bias)
    return _merged(direction, found.negatives, found.hardest, job.form)
