"""What evaluators look at: embeddings of a view with their ids, one row a sample or one a participant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from distpre.group import gathered
from distpre.types import Batch, Embedder, Padded

Features = Literal["head", "encoder", "input"]


def features(embed: Embedder, batch: Batch, view: str, kind: Features) -> Tensor:
    """(b, d) of this rank's rows. head: the tower's unit vectors; encoder: what the head is given; input: the view's
    own values, the baseline that learnt nothing.
    """
    if kind == "input":
        x = batch.views[view]
        return (x.values if isinstance(x, Padded) else x).flatten(1).float()
    return (embed.batch if kind == "head" else embed.pooled)(batch, view)[view]


def samples(
    embed: Embedder, data: Callable[[], Iterator[Batch]], view: str, ids: list[str], kind: Features = "head"
) -> tuple[Tensor, dict[str, Tensor]]:
    """This rank's rows that could be read: (n, d), and {id: (n,) int64} on the same device; "ordinal" is an id."""
    rows, columns = [], {id: [] for id in ids}
    for batch in data():
        x, there = features(embed, batch, view, kind), batch.present_in(view)
        rows.append(x[there.to(x.device)])
        for id, values in columns.items():
            values.append((batch.ordinal if id == "ordinal" else batch.ids[id])[there].to(x.device))
    return torch.cat(rows), {id: torch.cat(values) for id, values in columns.items()}


def participants(
    embed: Embedder, data: Callable[[], Iterator[Batch]], view: str, by: str, ids: list[str], kind: Features
) -> tuple[Tensor, dict[str, Tensor]]:
    """On every rank, a row for each value of the id `by`, in its order: the mean of their samples' rows, and the ids.

    Ids are those of the participant's first sample. Batches pass by one at a time: memory is a row a participant.
    """
    sums: dict[int, tuple[Tensor, int, list[int]]] = {}
    device, width = torch.device("cpu"), 0
    for batch in data():
        x, there = features(embed, batch, view, kind).double(), batch.present_in(view)
        device, width = x.device, x.shape[1]
        for i in there.nonzero()[:, 0].tolist():
            known = [int(batch.ordinal[i]), *(int(batch.ids[id][i]) for id in ids)]
            total, count, first = sums.get(int(batch.ids[by][i]), (torch.zeros_like(x[i]), 0, known))
            sums[int(batch.ids[by][i])] = total + x[i], count + 1, min(first, known)
    part = torch.stack([total for total, _, _ in sums.values()]) if sums else torch.zeros(0, width, device=device)
    facts = [[key, count, *first] for key, (_, count, first) in sums.items()]
    told = torch.tensor(facts, dtype=torch.long, device=device).reshape(len(sums), 3 + len(ids))
    part, told = gathered(part.double()), gathered(told)
    keys, place = told[:, 0].unique(return_inverse=True)
    mean = part.new_zeros((len(keys), part.shape[1])).index_add_(0, place, part)
    mean /= torch.zeros(len(keys), dtype=part.dtype, device=device).index_add_(0, place, told[:, 1].to(part.dtype))[
        :, None
    ]
    order = told[:, 2].argsort(descending=True)  # the earliest sample is written last
    first = torch.zeros(len(keys), len(ids), dtype=torch.long, device=device)
    for i in order.tolist():
        first[place[i]] = told[i, 3:]
    return mean.float(), {by: keys, **{id: first[:, i] for i, id in enumerate(ids)}}
