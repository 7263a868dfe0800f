"""Every form of the contrast: what is asked of the engine, and what the dense oracle says. A new rule adds one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from distpre.contrast import Block, Contrast, contrast, targets
from tests import dense


@dataclass(frozen=True)
class Form:
    """pairs(facts, n, present): the oracle's; kind of its loss; ask: more keywords of contrast()."""

    pairs: Callable[..., dense.Pairs]
    targets: Any = targets.OwnPair()
    kind: str = "mean"
    ask: dict = field(default_factory=dict)
    log_weights: bool = False


def plain(rule: Callable) -> Callable:
    return lambda facts, n, present: rule(facts, n)


def counted(facts, n, present):
    return dense.smoothed(facts, n, int(present.sum()), strength=0.7)


def alike(facts, n, present):
    return counted({"smoothing": torch.full((n,), 0.4, dtype=torch.float64)}, n, present)


FORMS = {
    "own_pair": Form(plain(dense.own_pair)),
    "own_pair_out": Form(plain(dense.own_pair), kind="mean_out"),
    "own_pair_weighted": Form(plain(dense.own_pair), log_weights=True),
    "sigmoid": Form(plain(dense.own_pair), kind="sigmoid", ask={"form": "sigmoid"}),
    "sigmoid_same_id": Form(plain(dense.same_id), targets.SameId("class"), "sigmoid", {"form": "sigmoid"}),
    "same_id": Form(plain(dense.same_id), targets.SameId("class")),
    "same_id_inside": Form(plain(dense.same_id), targets.SameId("class"), "inside"),
    "same_id_out": Form(plain(dense.same_id), targets.SameId("class"), "mean_out"),
    "same_id_inside_out": Form(plain(dense.same_id), targets.SameId("class"), "inside_out", log_weights=True),
    "same_id_own_negative": Form(plain(dense.same_id_but_own), targets.SameId("class", own="negative")),
    "same_id_own_removed": Form(plain(dense.same_id_own_removed), targets.SameId("class", own="removed")),
    "other_id": Form(plain(dense.other_id), targets.OtherId("class")),
    "true_negatives": Form(
        lambda f, n, p: dense.true_negatives(f, n, 0.1, False), targets.TrueNegatives("labels", "words")
    ),
    "true_negatives_in_group": Form(
        lambda f, n, p: dense.true_negatives(f, n, 0.3, True), targets.TrueNegatives("labels", "words", 0.3, "class")
    ),
    "label_similarity": Form(plain(dense.label_similarity), targets.LabelSimilarity("labels", floor=0.3)),
    "mixed": Form(plain(dense.mixed), targets.Mixed()),
    "smoothed": Form(counted, targets.Smoothed("smoothing", strength=0.7)),
    "smoothed_alike": Form(alike, targets.Smoothed(0.4, strength=0.7)),
    "dropped": Form(plain(dense.dropped), targets.Dropped("smoothing", most=0.5)),
    "dropped_same_id": Form(plain(dense.dropped_same_id), targets.Dropped("smoothing", 0.5, targets.SameId("class"))),
    "teacher": Form(lambda f, n, p: dense.teacher(f, n, 4.0, True), targets.Teacher(scale=4.0)),
    "teacher_off_diagonal": Form(
        lambda f, n, p: dense.teacher(f, n, 30.0, False), targets.Teacher(scale=30.0, diagonal=False)
    ),
}


@dataclass
class Case:
    """The whole batch, the same on every rank: vectors, scale, bias; facts, presence, weights of the losses."""

    x: torch.Tensor
    y: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor
    facts: dict[str, torch.Tensor]
    present: torch.Tensor
    weight: torch.Tensor
    log_weight: torch.Tensor

    @classmethod
    def make(cls, seed: int, size: int, scale: float, dtype: torch.dtype) -> Case:
        g = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> torch.Tensor:
            return torch.rand(*shape, generator=g, dtype=torch.float64)

        x, y, u, v = (F.normalize(torch.randn(size, 5, generator=g, dtype=torch.float64), dim=1) for _ in range(4))
        facts = {
            "class": torch.randint(max(1, size // 3), (size,), generator=g),
            "labels": F.normalize(random(size, 3), dim=1).to(dtype),
            "ordinal": 100 + torch.arange(size),
            "partner": 100 + torch.randperm(size, generator=g),
            "share": random(size).to(dtype),
            "smoothing": (0.9 * random(size)).to(dtype),
            "words": y[:, :3].clone().to(dtype),
            "teacher_rows": u.to(dtype),
            "teacher_columns": v.to(dtype),
        }
        present = random(size) > 0.2
        present[0] = True
        bias = torch.tensor([-scale / 5], dtype=torch.float64)
        tensors = [t.to(dtype) for t in (x, y, torch.tensor([scale], dtype=torch.float64), bias)]
        return cls(*tensors, facts, present, random(size, 2).to(dtype), random(size, 2).to(dtype))


def expected(name: str, case: Case) -> list[torch.Tensor]:
    """Loss and gradients by x, y, scale, bias, in float64 from the very values that the case holds."""
    form, n = FORMS[name], len(case.x)
    x, y, s, b = (t.double().requires_grad_() for t in (case.x, case.y, case.scale, case.bias))
    logits = s * x @ y.T + b
    if form.log_weights:
        logits = logits + case.log_weight[:, 0, None].double() + case.log_weight[:, 1].double()
    rows, columns = dense.losses(logits, form.pairs(case.facts, n, case.present), case.present, form.kind)
    loss = (case.weight[:, 0] * rows + case.weight[:, 1] * columns).sum()
    return [loss.detach(), *torch.autograd.grad(loss, [x, y, s, b], allow_unused=True)]


def found(name: str, case: Case, mine: slice, **ask: Any) -> list[torch.Tensor]:
    """This rank's loss, its rows' and columns' gradients, and its shares of the scale's and the bias's."""
    form = FORMS[name]
    x, y = (t[mine].clone().requires_grad_() for t in (case.x, case.y))
    s, b = (t.clone().requires_grad_() for t in (case.scale, case.bias))
    facts = {name: value[mine] for name, value in case.facts.items() if not name.startswith("teacher")}
    rows, columns = (
        Block(
            vectors,
            facts | {"teacher": case.facts[f"teacher_{side}"][mine]},
            case.present[mine],
            case.log_weight[mine, i] if form.log_weights else None,
        )
        for i, (side, vectors) in enumerate((("rows", x), ("columns", y)))
    )
    out = contrast(rows, columns, s, bias=b, targets=form.targets, **form.ask, **ask)
    of_rows, of_columns = losses(out, form.kind)
    loss = (case.weight[mine, 0] * of_rows + case.weight[mine, 1] * of_columns).sum()
    return [loss.detach(), *torch.autograd.grad(loss, [x, y, s, b])]


def losses(out: Contrast, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    if kind == "sigmoid":
        return tuple(torch.where(d.told, d.negatives + d.positives, 0.0) for d in (out.rows, out.columns))
    keywords = {"inside": kind.startswith("inside"), "positives_below": not kind.endswith("_out")}
    return out.rows.loss(**keywords), out.columns.loss(**keywords)


def assert_exact(name: str, parts: list[list], whole: list, case: Case) -> None:
    """parts: every rank's found(); whole: expected(). Errors are relative to the true norm; where the true terms cancel
    (the bias of a softmax, a lone sample), to the size of one term."""
    got = [
        sum(p[0] for p in parts),
        *(torch.cat([p[i] for p in parts]) for i in (1, 2)),
        *(sum(p[i] for p in parts) for i in (3, 4)),
    ]
    limit = 1e-6 if case.x.dtype == torch.float32 else 1e-12
    scale, terms = case.scale.item(), case.weight.sum().item()
    units = {"loss": 0.1, "rows": scale, "columns": scale, "scale": 1.0, "bias": terms}
    for (what, unit), a, b in zip(units.items(), got, whole, strict=True):
        b = torch.zeros_like(a) if b is None else b
        error = (a.double() - b).norm() / b.norm().clamp(min=unit)
        assert error <= limit, f"{name}: value or gradient of {what}: relative error {error:.2e}"
