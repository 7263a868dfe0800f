"""Made-up patients whose recordings are of trials: what COMET's levels are of (Wang et al. 2023), with a disease.

A patient has rhythms of their own and a mixing of them into the channels; the disease makes the rhythm of 10 Hz
stronger. A trial shifts phases, gains and offsets; a window adds noise. Half of the patients are ill.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.shard.writer import Members, divided, write_shards

CHANNELS, SAMPLES, RATE = 4, 32, 32  # Hz
RHYTHMS = (2.0, 4.0, 6.0, 10.0, 13.0)  # Hz
ILL = 1.8  # times the rhythm of 10 Hz


@dataclass(frozen=True)
class Window:
    """signal: (4, 32) float32, each channel z-scored over its trial; trial: of all patients; shuffled: no one's id."""

    patient: int
    trial: int
    disease: int
    shuffled: int
    signal: NDArray[np.float32]


def windows(patients: int, trials: int = 6, each: int = 6, seed: int = 0) -> list[Window]:
    """Windows of a trial overlap by half. `shuffled` deals the patients' numbers out to the trials by chance."""
    rng, made = np.random.default_rng(seed), []
    dealt = rng.permutation(np.repeat(np.arange(patients), trials))
    length = SAMPLES * (each + 1) // 2
    t = np.arange(length) / RATE
    for patient in range(patients):
        disease = patient % 2
        mixing = rng.normal(size=(CHANNELS, len(RHYTHMS))) + 1.0
        amount = rng.uniform(0.5, 1.5, len(RHYTHMS)) * np.where(np.array(RHYTHMS) == 10, ILL**disease, 1)
        pace = rng.normal(1, 0.04, len(RHYTHMS))
        for number in range(trials):
            phase, gain = rng.uniform(0, 2 * np.pi, (len(RHYTHMS), 1)), rng.uniform(0.8, 1.25, len(RHYTHMS))
            waves = np.sin(2 * np.pi * (np.array(RHYTHMS) * pace)[:, None] * t + phase)
            x = mixing @ (waves * (amount * gain)[:, None]) + rng.normal(0, 0.5, (CHANNELS, 1))
            x = x + rng.normal(0, 1.0, x.shape)
            x = ((x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)).astype(np.float32)
            trial = patient * trials + number
            for first in range(0, length - SAMPLES + 1, SAMPLES // 2):
                made.append(Window(patient, trial, disease, int(dealt[trial]), x[:, first : first + SAMPLES]))
    return made


def write(out: str, patients: int = 90, held_out: float = 0.7, seed: int = 0) -> str:
    """OUT/train-000.tar and OUT/test-000.tar of {npy, json {patient, trial, disease, shuffled}}; a summary."""
    parts = divided(windows(patients, seed=seed), lambda window: str(window.patient), held_out)
    for split, rows in parts.items():
        write_shards(out, split, rows, members, shard_samples=max(1, len(rows)), ids={"json.patient", "json.trial"})
    persons = {split: len({window.patient for window in rows}) for split, rows in parts.items()}
    return f"wrote windows of {persons['train']} patients for training and {persons['test']} held out, as tars in {out}"


def members(window: Window) -> Members:
    npy = io.BytesIO()
    np.save(npy, window.signal)
    facts = {name: getattr(window, name) for name in ("patient", "trial", "disease", "shuffled")}
    return {"npy": npy.getvalue(), "json": json.dumps(facts).encode()}
