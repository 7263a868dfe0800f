"""The oracle: float64, one process, the whole B-by-B matrix, written from the formulas. Imports nothing of distpre."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Facts = dict[str, Tensor]


@dataclass(frozen=True)
class Pairs:
    """weight: (B, B) >= 0 of targets; keep: (B, B) bool; column_weight: where the columns' targets differ."""

    weight: Tensor
    keep: Tensor
    column_weight: Tensor | None = None


def losses(logits: Tensor, pairs: Pairs, present: Tensor, kind: str = "mean") -> tuple[Tensor, Tensor]:
    """(B,) of rows and of columns; absent samples are cut out first; 0 where absent or without positive.

    kind: "mean" cross-entropy against the normalised weights; "inside" the sum over positives within the logarithm;
    "mean_out", "inside_out" the same with positives out of the denominator; "sigmoid" softplus over all pairs.
    """
    at = present.nonzero().squeeze(1)

    def cut(x: Tensor) -> Tensor:
        return x[at][:, at]

    other = pairs.weight if pairs.column_weight is None else pairs.column_weight
    positive = cut(((pairs.weight > 0) | (other > 0)) & pairs.keep)
    out = []
    for weight, turn in ((pairs.weight, lambda x: x), (other, lambda x: x.T)):
        each = _lines(turn(cut(logits)), turn(cut(weight * pairs.keep)), turn(cut(pairs.keep)), turn(positive), kind)
        out.append(torch.zeros(len(present), dtype=logits.dtype).index_put((at,), each))
    return out[0], out[1]


def _lines(logits: Tensor, weight: Tensor, keep: Tensor, positive: Tensor, kind: str) -> Tensor:
    each = []
    for scores, w, kept, good in zip(logits, weight, keep, positive, strict=True):
        if not good.any():
            each.append(0.0 * scores.sum())
        elif kind == "sigmoid":
            each.append(-F.logsigmoid(-scores[kept & ~good]).sum() - F.logsigmoid(scores[good]).sum())
        else:
            under = kept & ~good if kind.endswith("_out") else kept
            if not under.any():
                each.append(0.0 * scores.sum())
                continue
            below = scores[under].logsumexp(0)
            if kind.startswith("inside"):
                each.append(below - scores[good].logsumexp(0))
            else:
                each.append(below - (w[good] / w.sum() * scores[good]).sum())
    return torch.stack(each)


def table(n: int, said: Callable[[int, int], float]) -> Tensor:
    return torch.tensor([[float(said(i, j)) for j in range(n)] for i in range(n)], dtype=torch.float64)


def everything(n: int) -> Tensor:
    return torch.ones(n, n, dtype=torch.bool)


def own_pair(f: Facts, n: int) -> Pairs:
    return Pairs(table(n, lambda i, j: i == j), everything(n))


def same_id(f: Facts, n: int) -> Pairs:
    return Pairs(table(n, lambda i, j: f["class"][i] == f["class"][j]), everything(n))


def same_id_but_own(f: Facts, n: int) -> Pairs:
    return Pairs(table(n, lambda i, j: f["class"][i] == f["class"][j] and i != j), everything(n))


def same_id_own_removed(f: Facts, n: int) -> Pairs:
    return Pairs(same_id_but_own(f, n).weight, ~torch.eye(n, dtype=torch.bool))


def other_id(f: Facts, n: int) -> Pairs:
    keep = table(n, lambda i, j: i == j or f["class"][i] != f["class"][j]).bool()
    return Pairs(torch.eye(n, dtype=torch.float64), keep)


def true_negatives(f: Facts, n: int, margin: float, grouped: bool) -> Pairs:
    image, text = f["labels"].double(), f["words"].double()

    def kept(i: int, j: int) -> bool:
        near = float(image[i] @ text[i]) - float(image[i] @ text[j]) <= margin
        return i == j or not (near and (not grouped or f["class"][i] == f["class"][j]))

    return Pairs(torch.eye(n, dtype=torch.float64), table(n, kept).bool())


def label_similarity(f: Facts, n: int) -> Pairs:
    def agree(i: int, j: int) -> float:
        value = float(f["labels"][i].double() @ f["labels"][j].double())
        return value if value > 0.3 else 0.0

    return Pairs(table(n, agree), everything(n))


def mixed(f: Facts, n: int) -> Pairs:
    def weigh(i: int, j: int) -> float:
        share = float(f["share"][i])
        return share * (i == j) + (1 - share) * (int(f["ordinal"][j]) == int(f["partner"][i]))

    return Pairs(table(n, weigh), everything(n))


def smoothed(f: Facts, n: int, count: int, strength: float) -> Pairs:
    w = (strength * f["smoothing"].double()).tolist()

    def weigh(amount: float, own: bool) -> float:
        return 1 - amount if own else amount / max(1, count - 1)

    rows = table(n, lambda i, j: weigh(w[i], i == j))
    return Pairs(rows, everything(n), table(n, lambda i, j: weigh(w[j], i == j)))


def dropped(f: Facts, n: int) -> Pairs:
    fine = (f["smoothing"] <= 0.5).tolist()
    keep = table(n, lambda i, j: fine[i] and fine[j]).bool()
    return Pairs(table(n, lambda i, j: i == j and fine[i]), keep)


def dropped_same_id(f: Facts, n: int) -> Pairs:
    keep = dropped(f, n).keep
    return Pairs(same_id(f, n).weight * keep, keep)


def teacher(f: Facts, n: int, scale: float, diagonal: bool) -> Pairs:
    logits = scale * f["teacher_rows"].double() @ f["teacher_columns"].double().T
    keep = everything(n) if diagonal else ~torch.eye(n, dtype=torch.bool)
    return Pairs(logits.exp(), keep)
