"""MoRE's objective, as its recipe has it: what the hub aligns that never met, and whose reports are no negatives."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distpre.objectives.objective import Objective
from distpre.recipe import load
from distpre.runtime import build
from distpre.types import Batch, Embedding, Step
from tools.shard.patients import ABSENT, FINDINGS, PRESENT, studies

SENTENCES = [form.format(finding) for finding in FINDINGS for form in PRESENT + ABSENT]


@lru_cache
def world(patients: int, seed: int) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Six studies a patient: what plain networks can read of them, the patient, and all findings as one number."""
    made = studies(patients, 6, seed)
    read = {
        "xray": np.stack([s.image.ravel() / 64 - 2 for s in made]),
        "ecg": np.abs(np.fft.rfft(np.stack([s.ecg for s in made])))[..., :32].reshape(len(made), -1) / 20 - 1,
        "report": np.array([[sentence in s.report for sentence in SENTENCES] for s in made]),
    }
    codes = torch.tensor([sum(f << i for i, f in enumerate(s.findings)) for s in made])
    vectors = {k: torch.from_numpy(v.astype(np.float32)) for k, v in read.items()}
    return vectors, torch.tensor([s.patient for s in made]), codes


def objective(terms: list[str]) -> Objective:
    whole = build.objective(load("recipes/biosignals/more.yaml:world"))
    return replace(whole, terms={name: whole.terms[name] for name in terms})


def trained() -> nn.ModuleDict:
    """Small networks on batches that hold all six studies of eight patients."""
    torch.manual_seed(0)
    (x, patients, _), wanted = world(120, 1), objective(["xray_report", "ecg_report"])
    towers = {k: nn.Sequential(nn.Linear(v.shape[1], 64), nn.GELU(), nn.Linear(64, 32)) for k, v in x.items()}
    towers = nn.ModuleDict(towers)
    optimiser = torch.optim.AdamW(towers.parameters(), lr=2e-3, weight_decay=0.1)
    for _ in range(100):
        at = (6 * torch.randperm(120)[:8, None] + torch.arange(6)).ravel()
        optimiser.zero_grad()
        wanted(a_step({k: F.normalize(towers[k](v[at]), dim=1) for k, v in x.items()}, patients[at])).loss.backward()
        optimiser.step()
    return towers


def a_step(vectors: dict[str, torch.Tensor], patients: torch.Tensor) -> Step:
    batch = Batch({}, {"patient": patients}, torch.arange(len(patients)), torch.ones(len(patients)))
    return Step(batch, {name: Embedding(x) for name, x in vectors.items()}, {}, {}, 0, 1)


@torch.no_grad()
def found(towers: nn.ModuleDict, rows: str, columns: str) -> float:
    """R@1 among unseen patients' studies: the nearest one has the same findings; 1 in 16 by chance."""
    x, _, codes = world(60, 2)
    a, b = (F.normalize(towers[k](x[k]), dim=1) for k in (rows, columns))
    return (codes[(a @ b.T).argmax(1)] == codes).double().mean().item()


def test_pictures_and_leads_that_never_met_find_each_other_through_the_report():
    """Trained on pictures and reports alone, a picture finds its leads in 0.02."""
    towers = trained()
    assert found(towers, "xray", "report") > 0.35 and found(towers, "ecg", "report") > 0.8
    assert found(towers, "xray", "ecg") > 0.35 and found(towers, "ecg", "xray") > 0.35


@pytest.mark.parametrize("term", ["xray_report", "ecg_report"])
def test_a_patients_other_reports_are_no_negatives(term):
    """MoRE's released code takes them for negatives. Of three studies, the first two are one patient's."""
    g = torch.Generator().manual_seed(0)
    x = {k: F.normalize(torch.randn(3, 8, generator=g), dim=1) for k in ("xray", "ecg", "report")}

    def first(**changed: torch.Tensor) -> float:
        return objective([term])(a_step(x | changed, torch.tensor([5, 5, 6]))).per_sample[term][0].item()

    row = x[term.removesuffix("_report")][0]  # its nearest rival would be itself
    assert first(report=torch.stack([x["report"][0], row, x["report"][2]])) == pytest.approx(first(), abs=1e-5)
    assert first(report=torch.stack([x["report"][0], x["report"][1], row])) > first() + 0.5
