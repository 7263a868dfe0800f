"""Towers for evaluators' tests: views are embeddings already, and what a head would be given is their double."""

import torch
import torch.distributed as dist
import torch.nn.functional as F

from distpre.types import Batch


class FakeTowers:
    def batch(self, batch, *views):
        return {view: F.normalize(batch.views[view], dim=-1) for view in views}

    def pooled(self, batch, *views):
        return {view: 2 * batch.views[view] for view in views}


def batches(views: dict, ids: dict, size: int = 5, weight: torch.Tensor | None = None):
    """This rank's part of every batch, as the loader gives it."""
    n = len(next(iter(views.values())))
    weight = torch.ones(n) if weight is None else weight
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)

    def data():
        for whole in torch.arange(n).split(size):
            part = whole[len(whole) * rank // world : len(whole) * (rank + 1) // world]
            yield Batch(
                {k: v[part] for k, v in views.items()}, {k: v[part] for k, v in ids.items()}, part, weight[part]
            )

    return data


def people(count: int = 40, each: int = 6, width: int = 8, seed: int = 0) -> tuple[dict, dict]:
    """Persons with a place in space, whose sex is its first coordinate's sign and whose age its second."""
    g = torch.Generator().manual_seed(seed)
    place = torch.randn(count, width, generator=g)
    person = torch.randperm(count, generator=g).repeat(each)
    x = place[person] + 0.3 * torch.randn(len(person), width, generator=g)
    sex = (place[:, 0] > 0).long()[person]
    age = (50 + 10 * place[:, 1]).round().long()[person]
    visit = torch.arange(each).repeat_interleave(count) % 3
    return {"x": x}, {"person": person, "sex": sex, "age": age, "recording": person * 10 + visit}
