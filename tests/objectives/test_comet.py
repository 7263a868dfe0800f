"""COMET's trial and patient levels: the released code's formula on six samples, what of it is kept and what is not."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distpre.contrast.targets import SameId
from distpre.objectives.contrast import PairContrast
from distpre.recipe import load
from distpre.runtime import build
from distpre.schedule import Constant
from distpre.towers.encoders.dilated import Dilated1d
from distpre.towers.heads.projection import SideBySide
from distpre.towers.tower import Tower
from distpre.types import Batch, Embedding, Step, Term

IDS = torch.tensor([7, 3, 3, 7, 3, 7])


def a_step(x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor) -> Step:
    batch = Batch({}, {"trial": ids, "patient": ids}, torch.arange(len(ids)), torch.ones(len(ids), dtype=torch.float64))
    return Step(batch, {"plain": Embedding(x), "plain_too": Embedding(y)}, {}, {}, 0, 1)


def released(x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor) -> float:
    """Pairs of the same id: above the diagonal against their row, below it against their column, both means halved."""
    e = (x @ y.T / 0.1).exp()
    above, below = [], []
    for i in range(len(ids)):
        for j in range(len(ids)):
            if ids[i] == ids[j] and i < j:
                above.append(-(e[i, j] / e[i].sum()).log())
            if ids[i] == ids[j] and i > j:
                below.append(-(e[i, j] / e[:, j].sum()).log())
    return ((sum(above) / len(above) + sum(below) / len(below)) / 2).item()


def ours(own: str, x: torch.Tensor, y: torch.Tensor) -> float:
    return PairContrast("plain", "plain_too", temperature=Constant(0.1), targets=SameId("trial", own))(
        a_step(x, y, IDS)
    ).loss.item()


def test_the_released_loss_over_a_batch_and_its_reverse_is_ours_with_the_own_view_as_negative():
    g = torch.Generator().manual_seed(0)
    x, y = (F.normalize(torch.randn(6, 5, generator=g, dtype=torch.float64), dim=1) for _ in range(2))
    both = (released(x, y, IDS) + released(x.flip(0), y.flip(0), IDS.flip(0))) / 2
    assert ours("negative", x, y) == pytest.approx(both, rel=1e-6)
    kept = ~torch.eye(6, dtype=torch.bool)
    logits = (x @ y.T / 0.1).masked_fill(~kept, -torch.inf)
    same = (IDS[:, None] == IDS) & kept
    loss = [-(z.log_softmax(1).masked_fill(~same, 0).sum(1) / 2).mean() for z in (logits, logits.T)]
    assert ours("removed", x, y) == pytest.approx((sum(loss) / 2).item(), rel=1e-6)


def test_the_released_loss_pushes_a_samples_two_views_apart_and_the_papers_does_not():
    """The fault: that a sample's own views agree costs the released loss."""
    x, other = torch.eye(6, 12, dtype=torch.float64), torch.eye(12, dtype=torch.float64)[6:]
    assert ours("negative", x, x) > ours("negative", x, other) + 1
    assert ours("removed", x, x) == ours("removed", x, other)


def beats(people: int, seed: int) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """(n, 4, 32) heartbeats, cut alike: the patient's curve, offsets and slopes of the trial, noise; their ids."""
    rng, t, found = np.random.default_rng(seed), np.arange(32) / 32, []
    for patient in range(people):
        phases = [(rng.normal(size=(4, 1)), k * t + rng.random((4, 1))) for k in (1, 2, 3)]
        curve = sum(size * np.sin(2 * np.pi * at) for size, at in phases)
        for trial in range(4):
            offset = 3 * rng.normal(size=(4, 1)) + 2 * rng.normal(size=(4, 1)) * (t - 0.5)
            found += [(curve + offset + 0.7 * rng.normal(size=(4, 32)), patient, 4 * patient + trial) for _ in range(4)]
    x, patients, trials = zip(*found, strict=True)
    return np.stack(x).astype(np.float32), torch.tensor(patients), torch.tensor(trials)


def recognised(term: Term) -> float:
    """Of 30 unseen patients' beats, the share whose nearest beat of another trial is the patient's."""
    torch.manual_seed(0)
    x, ids, _ = beats(20, seed=1)
    tower = Tower(Dilated1d(4, width=32, hidden=16, blocks=3), SideBySide(32))
    optimiser = torch.optim.AdamW(tower.parameters(), lr=2e-3)
    for _ in range(60):
        at = torch.randperm(len(x))[:48]
        views = [tower(torch.from_numpy(x)[at])[0] for _ in range(2)]  # dropout makes two of them
        optimiser.zero_grad()
        term(a_step(*views, ids[at])).loss.backward()
        optimiser.step()
    x, patients, trials = beats(30, seed=2)
    with torch.no_grad():
        pooled = tower.eval()(torch.from_numpy(x))[1]["pooled"]
    z = F.normalize(pooled - pooled.mean(0), dim=1)
    nearest = (z @ z.T).masked_fill(trials[:, None] == trials, -torch.inf).argmax(1)
    return (patients[nearest] == patients).double().mean().item()


def test_patient_level_makes_unseen_patients_recognisable_across_trials():
    """Trials differ more, in offset and slope, than patients do in shape: positives across trials tell which counts.

    Untrained 0.05; with the sample's own other view as positive 0.08; with patients' ids shuffled 0.08.
    """
    patient, _ = build.objective(load("recipes/biosignals/comet.yaml")).terms["patient"]
    assert recognised(patient) > 0.25
