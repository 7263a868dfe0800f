"""Contrasts of samples that are sequences (cells, frames, tokens): within one sample, and place by place across them.

Dense: r by c of a sample's own vectors, n by B of a place's, are small.
"""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from distpre import group
from distpre.contrast.block import Block, Contrast, Direction
from distpre.contrast.forms import Form
from distpre.contrast.similarity import Similarity
from distpre.contrast.targets import Side, Targets


def within_sample(
    rows: Block,
    columns: Block,
    scale: Tensor,
    bias: Tensor | None,
    targets: Targets,
    similarity: Similarity,
    form: Form,
) -> Contrast:
    """vectors (n, r, d) and (n, c, d), present, log_weight, place and facts (n, r, ...) and (n, c, ...).

    Both directions over the n samples, (n, r) and (n, c); plain autograd, no collective.
    """
    kind = torch.promote_types(rows.vectors.dtype, torch.float32)
    with torch.autocast(rows.vectors.device.type, enabled=False):
        logits = scale * similarity.tile(rows.vectors.to(kind), columns.vectors.to(kind))
    for extra in (bias, _over(rows.log_weight, -1), _over(columns.log_weight, -2)):
        logits = logits if extra is None else logits + extra
    sides = [Side(_index(b), b.facts, b.vectors.shape[1]) for b in (rows, columns)]
    said = targets.tile(*sides)
    there = _over(_there(rows), -1) & _over(_there(columns), -2)
    keep = there if said.keep is None else there & said.keep
    own = _over(sides[0].index, -1) == _over(sides[1].index, -2)
    by_row = said.log_weight.to(kind).masked_fill(~there, -torch.inf)
    by_column = by_row if said.column_log_weight is None else said.column_log_weight.masked_fill(~there, -torch.inf)
    return Contrast(*(_direction(logits, w, keep, own, form, dim) for w, dim in ((by_row, -1), (by_column, -2))))


def at_each_place(
    rows: Block,
    columns: Block,
    scale: Tensor,
    bias: Tensor | None,
    targets: Targets,
    similarity: Similarity,
    form: Form,
    both_ways: bool,
) -> Contrast:
    """vectors (n, t, d) and (m, t, d): place k of a row meets place k of the columns of all ranks; (n, t), (m, t).

    Facts, presence and log-weights are the samples'. Holds every rank's columns and t·n·B logits.
    """
    rest = (scale, bias, targets, similarity, form)
    mine = [replace(block, place=block.index(group.rank())) for block in (rows, columns)]
    by_row = within_sample(_by_place(mine[0]), _by_place(_of_all(mine[1])), *rest).rows
    by_column = within_sample(_by_place(_of_all(mine[0])), _by_place(mine[1]), *rest).columns if both_ways else None
    return Contrast(*(d and _by_sample(d) for d in (by_row, by_column)))


def _of_all(block: Block) -> Block:
    weight = None if block.log_weight is None else group.gathered(block.log_weight)
    return Block(
        group.gathered_with_gradient(block.vectors),
        {name: group.gathered(fact) for name, fact in block.facts.items()},
        group.gathered(block.there().to(torch.uint8)).bool(),
        weight,
        group.gathered(block.place),
    )


def _by_place(block: Block) -> Block:
    """(n, t, d) -> (t, n, d); what is known of the samples is the same at every place."""
    known = {name: fact[None] for name, fact in block.facts.items()}
    weight = None if block.log_weight is None else block.log_weight[None]
    return Block(block.vectors.transpose(0, 1), known, block.there()[None], weight, block.place[None])


def _by_sample(direction: Direction) -> Direction:
    shape = direction.best.shape
    return Direction(*(getattr(direction, f.name).expand(shape).T for f in fields(direction)))


def _direction(logits: Tensor, log_weight: Tensor, keep: Tensor, own: Tensor, form: Form, dim: int) -> Direction:
    low = -torch.inf
    rival, mine = (log_weight.masked_fill(mask, low).amax(dim) for mask in (own, ~own))
    log_weight = log_weight.masked_fill(~keep, low)
    positive = log_weight > low
    negatives, positives = logits.masked_fill(positive | ~keep, low), logits.masked_fill(~positive, low)
    told = positive.any(dim, keepdim=True)
    share = torch.where(told, log_weight, 0.0).softmax(dim) * told
    target = (share * logits.masked_fill(~positive, 0.0)).sum(dim)
    entropy = -torch.special.xlogy(share, share).sum(dim)
    signed = (form.sign * logits).masked_fill(~positive, low)
    best = positives.detach().amax(dim)
    return Direction(
        form.total(negatives, dim),
        form.total(signed, dim),
        target,
        negatives.detach().amax(dim),
        best,
        entropy,
        mine,
        rival,
    )


def _over(x: Tensor | None, dim: int) -> Tensor | None:
    return None if x is None else x.unsqueeze(dim)


def _there(block: Block) -> Tensor:
    if block.present is not None:
        return block.present
    return torch.ones(block.vectors.shape[:2], dtype=torch.bool, device=block.vectors.device)


def _index(block: Block) -> Tensor:
    n, r = block.vectors.shape[:2]
    return torch.arange(r, device=block.vectors.device).expand(n, r) if block.place is None else block.place
