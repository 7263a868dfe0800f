"""What Mod-X's term does: it keeps a domain that training has left, and only by what the teacher knows."""

import copy
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from distpre.objectives.contrast import PairContrast
from distpre.objectives.objective import Objective
from distpre.objectives.off_diagonal import OffDiagonal
from distpre.schedule import Constant
from distpre.types import Batch, Embedding, Step

MATCH = PairContrast("x", "y", temperature=Constant(0.07))
Pairs = tuple[torch.Tensor, torch.Tensor]


@lru_cache
def world() -> tuple[Pairs, Pairs]:
    """Pairs of domain a, and of b, which is a with its hidden vectors rotated (tools/shard/rotation.py)."""
    g = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=g))[0]
    layers = torch.randn(2, 2, 12, 32, generator=g)

    def pairs(turned: bool) -> Pairs:
        z = torch.randn(1200, 12, generator=g) / torch.arange(1, 13)
        z = z @ turn if turned else z
        noise = 0.3 * torch.randn(2, 1200, 32, generator=g)
        return tuple(torch.tanh(2 * z @ a) + 0.5 * z @ b + n for (a, b), n in zip(layers, noise, strict=True))

    return pairs(False), pairs(True)


def trained(towers: nn.ModuleDict, pairs: Pairs, teacher: nn.ModuleDict | None = None, shuffled: bool = False):
    """The towers after 150 steps on the first 1,000 pairs, held by the teacher; shuffled: by its words on others."""
    towers, terms = copy.deepcopy(towers), {"match": (MATCH, Constant(1.0))}
    if teacher is not None:
        terms["modx"] = OffDiagonal("x", "y", "old", trusted=not shuffled), Constant(12.0)
    objective, g = Objective(terms), torch.Generator().manual_seed(1)
    optimiser = torch.optim.AdamW(towers.parameters(), lr=3e-3)
    for _ in range(150):
        at = torch.randperm(1000, generator=g)[:100]
        other = at[torch.randperm(100, generator=g)] if shuffled else at
        old = embedded(teacher, pairs, other) if teacher is not None else {}
        batch = Batch({}, {}, at, torch.ones(100))
        optimiser.zero_grad()
        objective(Step(batch, embedded(towers, pairs, at), {}, {}, 0, 1, {"old": old})).loss.backward()
        optimiser.step()
    return towers


def embedded(towers: nn.ModuleDict, pairs: Pairs, at) -> dict[str, Embedding]:
    return {k: Embedding(F.normalize(towers[k](v[at]), dim=1)) for k, v in zip("xy", pairs, strict=True)}


@torch.no_grad()
def found(towers: nn.ModuleDict, pairs: Pairs) -> float:
    """R@1 x->y of the 200 held-out pairs."""
    x, y = (e.vector for e in embedded(towers, pairs, slice(1000, None)).values())
    return ((x @ y.T).argmax(1) == torch.arange(len(x))).double().mean().item()


def test_it_keeps_what_fine_tuning_forgets_and_a_shuffled_teacher_keeps_nothing():
    a, b = world()
    fresh = nn.ModuleDict({k: nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 32)) for k in "xy"})
    old = trained(trained(fresh, a), a)
    tuned, held, misled = trained(old, b), trained(old, b, old.eval()), trained(old, b, old, shuffled=True)
    before, forgot, kept, lost = (found(towers, a) for towers in (old, tuned, held, misled))
    assert forgot < 0.8 * before and kept > 0.9 * before
    assert lost < forgot + 0.1 * before
