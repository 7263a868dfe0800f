"""Made-up bodies that move: accelerations at the joints of a swinging body, and sentences of what it is doing.

A trunk sways, four limbs hang from it as pendulums. Every activity has a beat, a size and a share of overtones; the
sensor of a joint feels the joint's acceleration and gravity in the joint's own frame, as UniMTS makes virtual sensors.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import numpy as np

from tools.shard.writer import Members, divided, write_shards

PARENTS = (-1, 0, 0, 0, 0)
RATE, GRAVITY = 20, 9.81  # Hz, m/s^2
# Beats a second, largest angle, and what a third of the beat's time adds to it.
ACTIVITIES = {
    "strolling": (0.6, 0.5, 0.0),
    "walking": (1.0, 0.6, 0.0),
    "jogging": (1.6, 0.7, 0.0),
    "running": (2.4, 0.9, 0.0),
    "rowing": (0.6, 0.7, 0.15),
    "hammering": (1.0, 0.6, 0.15),
    "skipping": (1.6, 0.5, 0.15),
    "shaking": (2.4, 0.4, 0.15),
}
TEMPLATES = ("a person is {}.", "someone is {} around.", "this is a recording of {}.", "the subject keeps {}.")


@dataclass(frozen=True)
class Motion:
    """acceleration: (5, 3, t) m/s^2 in each joint's frame, float32; label: place in ACTIVITIES."""

    person: int
    label: int
    acceleration: np.ndarray


def motions(persons: int, seed: int = 0, seconds: float = 5.0) -> list[Motion]:
    """Each activity once of each person."""
    rng, made = np.random.default_rng(seed), []
    t = np.arange(round(seconds * RATE)) / RATE
    for person in range(persons):
        lengths, pace, size = rng.uniform(0.4, 0.8, 5), rng.normal(1, 0.05), rng.normal(1, 0.1)
        for label, (beat, angle, overtone) in enumerate(ACTIVITIES.values()):
            start, phase = rng.random(), np.array([0, 0, 0.5, 0.5, 0])  # arms and legs swing against each other
            turn = 2 * np.pi * (beat * pace * t + start + phase[:, None])
            speed = 2 * np.pi * beat * pace
            swing = size * angle * (np.sin(turn) + overtone * np.sin(3 * turn))
            bend = -size * angle * speed**2 * (np.sin(turn) + 9 * overtone * np.sin(3 * turn))
            rate = size * angle * speed * (np.cos(turn) + 3 * overtone * np.cos(3 * turn))
            # A pendulum's end in the frame of its rod: along the swing, sideways, along the rod.
            along = lengths[:, None] * bend + GRAVITY * np.sin(swing)
            down = lengths[:, None] * rate**2 + GRAVITY * np.cos(swing)
            felt = np.stack([along, 0 * along, down], 1) + rng.normal(0, 0.5, (5, 3, len(t)))
            made.append(Motion(person, label, felt.astype(np.float32)))
    return made


def write(out: str, persons: int = 150, held_out: float = 0.2, seed: int = 0) -> str:
    """OUT/train-000.tar and OUT/test-000.tar of {npy, txt, a line a sentence, json {person, activity}}; a summary."""
    parts = divided(motions(persons, seed), lambda motion: str(motion.person), held_out)
    for split, rows in parts.items():
        write_shards(out, split, rows, members, shard_samples=max(1, len(rows)), ids={"json.person", "json.activity"})
    return f"wrote {len(parts['train'])} motions for training and {len(parts['test'])} held out, as tars in {out}"


def members(motion: Motion) -> Members:
    npy, name = io.BytesIO(), list(ACTIVITIES)[motion.label]
    np.save(npy, motion.acceleration)
    facts = {"person": motion.person, "activity": motion.label}
    sentences = "\n".join(template.format(name) for template in TEMPLATES)
    return {"npy": npy.getvalue(), "txt": sentences.encode(), "json": json.dumps(facts).encode()}
