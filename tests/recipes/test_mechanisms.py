"""What a paper's idea does, on made-up data in seconds. Each test says what is left of it without the idea."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distpre.objectives.masked_error import MaskedError
from distpre.recipe import load
from distpre.runtime.build import objective
from distpre.towers.encoders.resnet3d import ResNet3d
from distpre.towers.encoders.tubelets import Tubelets
from distpre.towers.heads.masked import MaskedDecoder
from distpre.towers.heads.parts import PartMlp
from distpre.towers.tower import Tower
from distpre.types import Batch, Embedding, Padded, Step
from distpre.views.cells import BoxOverlaps, CellsAndBoxes


def a_step(views: dict[str, Tensor], student: dict, teachers: dict | None = None, ids: dict | None = None) -> Step:
    n = len(next(iter(student.values()))[0])
    batch = Batch(views, ids or {}, torch.arange(n), torch.ones(n))
    said = {name: {v: Embedding(*x) for v, x in its.items()} for name, its in (teachers or {}).items()}
    return Step(batch, {name: Embedding(*x) for name, x in student.items()}, {}, {}, 0, 1, said)


def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    with torch.no_grad():
        for theirs, mine in zip(teacher.parameters(), student.parameters(), strict=True):
            theirs.lerp_(mine, 1 - momentum)


# Wearables (Abbaspourazad et al. 2024): positives across a participant's segments.


def heartbeats(people: int, seed: int) -> Tensor:
    """(people, 6 segments, 64): a curve that is the person's, and what the day makes of it, which is larger."""
    rng, t = np.random.default_rng(seed), np.arange(64) / 64
    phases = ((k, *rng.random((2, people, 1, 1))) for k in (1, 2, 3, 5))
    curves = sum(4 * (size - 0.5) * np.sin(2 * np.pi * (k * t + phase)) for k, size, phase in phases)
    shapes = 1, t - 0.5, np.cos(np.pi * t), np.sin(np.pi * t)
    days = sum(4 * rng.normal(size=(people, 6, 1)) * shape for shape in shapes)
    return torch.from_numpy(curves + days + 0.3 * rng.normal(size=(people, 6, 64))).float()


def recognised(pairs: str) -> float:
    """Of 60 unseen persons' segments, the share whose nearest other one is the same person's."""
    torch.manual_seed(0)
    x, loss = heartbeats(60, 1), objective(load("recipes/biosignals/ecg.yaml"))
    student = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 32))
    ema = copy.deepcopy(student).requires_grad_(False)
    optimiser = torch.optim.AdamW(student.parameters(), lr=3e-3)
    for _ in range(100):
        people = torch.randperm(len(x))[:32]
        first = torch.randint(6, (32,))
        second = (first + torch.randint(1, 6, (32,))) % 6 if pairs == "participants" else first
        views = {v: x[people, at] + 0.1 * torch.randn(32, 64) for v, at in (("a", first), ("b", second))}
        said, theirs = ({v: (F.normalize(net(y), dim=1),) for v, y in views.items()} for net in (student, ema))
        optimiser.zero_grad()
        loss(a_step({}, said, {"ema": theirs}, {"participant": people})).loss.backward()
        optimiser.step()
        follow(ema, student, 0.99)
    with torch.no_grad():
        z = F.normalize(student(heartbeats(60, 2).flatten(0, 1)), dim=1)
    nearest = (z @ z.T).fill_diagonal_(-1).argmax(1)
    return (nearest // 6 == torch.arange(360) // 6).double().mean().item()


def test_pairs_across_a_persons_segments_make_unseen_persons_recognisable():
    assert recognised("participants") > recognised("segments") + 0.2


# VoCo (Wu et al. 2024): a crop's likeness to the cells is the share of it that lies in each.


def volumes(n: int, seed: int) -> np.ndarray:
    """(n, 1, 24, 24, 8): nine balls in one arrangement, of sizes and brightnesses that vary a little."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(np.arange(24), np.arange(24), np.arange(8), indexing="ij")
    out = 0.1 * rng.normal(size=(n, 24, 24, 8))
    for i in range(9):
        at = np.array([8 * (i // 3) + 3.5, 8 * (i % 3) + 3.5, 3.5]) + rng.normal(0, 0.5, (n, 3))
        size, bright = 1.5 + 0.4 * (i % 3) + 0.1 * rng.normal(size=n), 0.4 + 0.25 * i + 0.05 * rng.normal(size=n)
        away = sum((a[None] - c[:, None, None, None]) ** 2 for a, c in zip((x, y, z), at.T, strict=True))
        out += bright[:, None, None, None] * np.exp(-away / (2 * size**2)[:, None, None, None])
    return out[:, None].astype(np.float32)


def placed(overlaps: str) -> float:
    """Of crops of 20 unseen volumes, the share that is given to the cell which holds most of it; of nine."""
    torch.manual_seed(0)
    term = objective(load("recipes/volumes/voco.yaml")).terms["position"][0]
    tower = Tower(ResNet3d([1, 1], stem=8), PartMlp([64, 32]))
    teacher = copy.deepcopy(tower).requires_grad_(False)
    optimiser = torch.optim.AdamW(tower.parameters(), lr=1e-2)
    rng = np.random.default_rng(0)
    made, unseen = volumes(64, 1), volumes(20, 2)

    def drawn(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        seeds = [(row, int(rng.integers(1 << 30))) for row in rows]
        ops = CellsAndBoxes([3, 3, 1], 6), BoxOverlaps([3, 3, 1], 6)
        parts, overlaps = ([op(row, np.random.default_rng(s)) for row, s in seeds] for op in ops)
        return torch.from_numpy(np.stack(parts)), torch.from_numpy(np.stack(overlaps))

    def step(parts: Tensor, overlap: Tensor) -> Step:
        with torch.no_grad():
            theirs = teacher(parts)
        return a_step({"overlap": overlap}, {"parts": tower(parts)}, {"ema": {"parts": theirs}})

    for _ in range(60):
        parts, overlap = drawn(made[rng.choice(64, 16)])
        optimiser.zero_grad()
        term(step(parts, overlap if overlaps == "its own" else overlap.roll(1, 0))).loss.backward()
        optimiser.step()
        follow(teacher, tower, 0.9)
    with torch.no_grad():
        return float(term(step(*drawn(unseen))).log["hit"])


def test_crops_are_placed_by_what_overlaps_say():
    assert placed("its own") > 0.55 and placed("another's") < 0.35


# OCTCube's first stage (after He et al. 2022): hidden tubelets are painted from the few that are seen.


def waves(n: int, seed: int) -> Tensor:
    """(n, 32, 48): volumes of 6 x 16 x 16, each one slow wave of its own, in tubelets of 3 x 4 x 4."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in (6, 16, 16)), indexing="ij")
    turns = rng.uniform(-1.5, 1.5, (n, 3, 1, 1, 1))
    volume = np.sin(sum(turns[:, i] * axes[i] for i in range(3)) + 2 * np.pi * rng.random((n, 1, 1, 1)))
    cut = volume.reshape(n, 2, 3, 4, 4, 4, 4).transpose(0, 1, 3, 5, 2, 4, 6)
    return torch.from_numpy(cut.reshape(n, 32, 48)).float()


def unpainted(target: str) -> float:
    """The error of 24 hidden tubelets of 32 over that of their mean, of unseen volumes."""
    torch.manual_seed(0)
    tower = Tower(Tubelets([6, 16, 16], [3, 4, 4], width=48, layers=2, heads=4), MaskedDecoder([48], 48, 1, 4))
    optimiser, term = torch.optim.AdamW(tower.parameters(), lr=3e-3), MaskedError("volume")

    def result(x: Tensor):
        seen = torch.zeros(len(x), 32, dtype=torch.bool)
        seen.scatter_(1, torch.rand(len(x), 32).argsort(1)[:, :8], True)
        vector, taps = tower(Padded(x, seen))
        if target == "another's":
            taps["target"] = taps["target"].roll(1, 0)
        return term(a_step({}, {"volume": (vector, taps)}))

    made = waves(512, 1)
    for _ in range(180):
        optimiser.zero_grad()
        result(made[torch.randperm(512)[:32]]).loss.backward()
        optimiser.step()
    with torch.no_grad():
        return float(result(waves(256, 2)).log["of_mean"])


def test_hidden_tubelets_are_painted_from_those_that_are_seen():
    assert unpainted("its own") < 0.5 and unpainted("another's") > 0.9
