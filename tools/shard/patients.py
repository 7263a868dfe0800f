"""Made-up patients with findings: a picture, twelve leads and a report of each study, all three of the same findings.

A finding is a spot at its own place in the picture, a wave of its own in the leads, and a sentence in the report.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import numpy as np

from tools.shard.writer import Members, divided, write_shards

FINDINGS = ("atelectasis", "cardiomegaly", "edema", "effusion")
PRESENT = ("there is {}.", "{} is seen.", "findings of {}.", "signs of {}.")
ABSENT = ("no {}.", "no sign of {}.", "without {}.", "{} is not seen.")
SIZE, LEADS, SAMPLES = 24, 12, 250


@dataclass(frozen=True)
class Study:
    """image: (24, 24) uint8; ecg: (12, 250) float32; findings: 0 or 1 for each of FINDINGS."""

    patient: int
    image: np.ndarray
    ecg: np.ndarray
    report: str
    findings: tuple[int, ...]


def studies(patients: int, each: int, seed: int = 0) -> list[Study]:
    """`each` studies of a patient, whose findings are the same in all, as is how strong they are."""
    shapes = np.random.default_rng(1)  # what a finding looks like is the same in every data set
    places, leads = shapes.uniform(5, 19, (len(FINDINGS), 2)), shapes.normal(size=(len(FINDINGS), LEADS))
    grid, t = np.mgrid[:SIZE, :SIZE], np.arange(SAMPLES) / SAMPLES
    rng, made = np.random.default_rng(seed), []
    for patient in range(patients):
        findings = rng.integers(2, size=len(FINDINGS))
        strength = findings * rng.uniform(0.6, 1.4, len(FINDINGS))
        body, heart = rng.normal(size=(6, 6)), rng.normal(size=(LEADS, 1))
        for _ in range(each):
            image = np.kron(body, np.ones((4, 4))) + 0.5 * rng.normal(size=(SIZE, SIZE))
            ecg = heart * np.sin(2 * np.pi * (5 * t + rng.random())) + 0.5 * rng.normal(size=(LEADS, SAMPLES))
            for i, amount in enumerate(strength):
                distance = ((grid - (places[i] + rng.normal(size=2))[:, None, None]) ** 2).sum(0)
                image = image + 3 * amount * np.exp(-distance / 8)
                ecg += amount * leads[i][:, None] * np.sin(2 * np.pi * ((9 + 4 * i) * t + rng.random()))
            said = [(PRESENT if f else ABSENT)[rng.integers(4)].format(FINDINGS[i]) for i, f in enumerate(findings)]
            report = " ".join(said[i] for i in rng.permutation(len(said)))
            grey = np.clip(96 + 24 * image, 0, 255).astype(np.uint8)
            made.append(Study(patient, grey, ecg.astype(np.float32), report, tuple(findings.tolist())))
    return made


def write(out: str, patients: int = 400, each: int = 4, held_out: float = 0.2, seed: int = 0) -> str:
    """OUT/train-000.tar and OUT/test-000.tar of {png, npy, txt, json {patient, code, a 0 or 1 a finding}}; a summary.

    code: one number for all findings together. No patient is in both parts.
    """
    parts = divided(studies(patients, each, seed), lambda study: str(study.patient), held_out)
    for split, rows in parts.items():
        write_shards(out, split, rows, members, shard_samples=max(1, len(rows)), ids={"json.patient", "json.code"})
    return f"wrote {len(parts['train'])} studies for training and {len(parts['test'])} held out, as tars in {out}"


def members(study: Study) -> Members:
    from PIL import Image

    png, npy = io.BytesIO(), io.BytesIO()
    Image.fromarray(study.image).save(png, "png")
    np.save(npy, study.ecg)
    code = sum(f << i for i, f in enumerate(study.findings))
    facts = {"patient": study.patient, "code": code, **dict(zip(FINDINGS, study.findings, strict=True))}
    return {
        "png": png.getvalue(),
        "npy": npy.getvalue(),
        "txt": study.report.encode(),
        "json": json.dumps(facts).encode(),
    }
