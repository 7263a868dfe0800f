"""A step of random embeddings for terms: the whole global batch, or one rank's part of it."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F

from distpre.types import Batch, Embedding, Step


def step(n: int, views: list[str], *, index: int = 0, part: slice = slice(None), seed: int = 0) -> Step:
    """Unit vectors (n, 4) a view, wanting gradients, and of them a tap of 6 time steps; scale "s", with bias; id
    "class"; every third sample is replayed; teacher "old"; of the weighting "u" two numbers a sample, some unknown, of
    "pace" 0 or 1; other taps are a decoder's, of which the vector is the prediction, and cosines with 6 prototypes,
    held ones too; part: a slice.
    """
    g = torch.Generator().manual_seed(seed + index)
    vectors = {v: F.normalize(torch.randn(n, 4, generator=g, dtype=torch.float64), dim=1) for v in views}
    present = {v: (torch.rand(n, generator=g) > 0.2)[part] for v in views}
    labels = torch.rand(n, 3, generator=g, dtype=torch.float64)
    batch = Batch(
        {"labels": labels[part]},
        {
            "class": torch.randint(max(1, n // 3), (n,), generator=g)[part],
            "part": (torch.arange(n) % 3 == 0).long()[part],
        },
        torch.arange(n)[part],
        torch.ones(n, dtype=torch.float64)[part],
        present,
    )
    other = torch.Generator().manual_seed(seed)
    waves = torch.randn(6, 4, generator=other, dtype=torch.float64)
    leaves = {v: x[part].clone().requires_grad_() for v, x in vectors.items()}
    drawn = {v: {"steps": x[:, None] * waves, "predicted": x.reshape(-1, 2, 2)} for v, x in leaves.items()}
    for v, taps in drawn.items():
        taps["scores"] = leaves[v] @ F.normalize(waves, dim=1).T
        taps["held"] = taps["scores"] * 1
        taps["target"] = torch.rand(n, 2, 2, generator=other, dtype=torch.float64)[part]
        taps["hidden"] = torch.rand(n, 4, generator=other).argsort(1)[part, :2].sort(1).values
        taps["seen"] = torch.ones(len(leaves[v]), 4).scatter(1, taps["hidden"], 0).bool()
    student = {v: Embedding(x, drawn[v]) for v, x in leaves.items()}
    scale, bias = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (6.0, -2.0))
    noise = {v: torch.randn(n, 4, generator=g, dtype=torch.float64) for v in views}
    old = {v: Embedding(F.normalize(vectors[v] + noise[v], dim=1)[part]) for v in views}
    known = torch.randn(n, 2, generator=g, dtype=torch.float64)
    known[::3, 0] = torch.nan
    batch.state["u"] = known[part]
    batch.state["pace"] = (torch.rand(n, 2, generator=g) > 0.4).double()[part]
    batch.state["doubt"] = torch.rand(n, generator=g, dtype=torch.float64)[part]
    batch.views["half"] = (torch.arange(n) % 2)[part]
    return Step(batch, student, {"s": scale}, {"s": bias}, index, 10, {"old": old})


def gradients(term, step: Step) -> dict[str, torch.Tensor]:
    """The term's loss and its gradients by every view, the scale and the bias (zeros where it has none)."""
    leaves = {v: e.vector for v, e in step.student.items()} | {"scale": step.scales["s"], "bias": step.biases["s"]}
    loss = term(step).loss
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    zeros = [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves.values(), strict=True)]
    return {"loss": loss.detach()} | dict(zip(leaves, zeros, strict=True))


def shared_out(make, n: int, views: list[str], steps: int = 1) -> list[dict[str, torch.Tensor]]:
    """On a rank: gradients of make()'s term on this rank's uneven part of each step."""
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    bounds = [0, *(n * (r + 1) // world - (r + 1 < world) for r in range(world))]
    term = make()
    return [gradients(term, step(n, views, index=i, part=slice(bounds[rank], bounds[rank + 1]))) for i in range(steps)]


def assert_same_at_any_world(make, views: list[str], world: int, *, n: int = 11, steps: int = 1) -> None:
    """One line for every term: the mean over ranks of loss and gradients is the single process's."""
    from tests.ranks import ranks

    term = make()
    alone = [gradients(term, step(n, views, index=i)) for i in range(steps)]
    every = ranks(world).run(shared_out, make, n, views, steps)
    for i, whole in enumerate(alone):
        for name, value in whole.items():
            parts = [rank[i][name] for rank in every]
            together = torch.cat(parts) / world if name in views else sum(parts) / world
            torch.testing.assert_close(together, value, rtol=1e-10, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
