"""What a sample state costs a step: reading what is known of a batch and writing what was learned, beside the update.

    python -m tools.bench state [RECIPE] [--samples 100000000] [--steps 30]

One process, which holds the whole state; under torchrun each holds its part and every rank prints the same ratio. The
recipe's own weighting, in turn with the recipe's own step, ordinals drawn from all `--samples`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from statistics import median

import torch

from distpre.errors import RecipeError
from distpre.group import rank, world_size
from distpre.recipe import load, prepare
from distpre.recipe.resolve import build
from distpre.runtime.engine import join_group
from distpre.runtime.update import update
from distpre.types import Batch
from distpre.weighting.state import SampleState
from tools.bench.teacher import contestant, first_batches, last_stage, timed


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench state", description=__doc__.split("\n")[0])
    parser.add_argument("recipe", nargs="?", default="recipes/robust/nevlp.yaml")
    parser.add_argument("--samples", type=int, default=10**8, help="that the state is of (default 10^8)")
    parser.add_argument("--steps", type=int, default=30, help="timed")
    asked = parser.parse_args(argv)
    recipe = load(asked.recipe, ["launch.workers=1"])
    if not recipe.weighting:
        raise RecipeError(f"{asked.recipe} has no `weighting`, so that no state is kept.", "Name another recipe.")
    prepare(recipe, print)
    join_group()
    stage = last_stage(asked.recipe)
    engine, objective = contestant(stage)
    batches = [batch.to(engine.device) for batch in first_batches(stage.recipe)]
    made = {name: build(component, "weighting") for name, component in recipe.weighting.items()}
    states = {name: SampleState(asked.samples, each.columns, "") for name, each in made.items()}
    for state in states.values():
        state.values.zero_()  # so that its memory is really there

    def weigh(batch: Batch) -> None:
        batch.state.update({name: each.weigh(states[name], batch) for name, each in made.items()})

    said: dict[str, torch.Tensor] = {}

    def trained(batch: Batch) -> None:
        said.update(update(engine, objective, batch, index=engine.first, seed=0).per_sample)

    def observed(batch: Batch) -> None:
        for name, each in made.items():
            each.observe(states[name], batch, said[each.of])

    seconds: dict[str, list[float]] = {"step": [], "state": []}
    for number in range(asked.steps + 2):
        batch = batches[number % len(batches)]
        batch = replace(batch, ordinal=torch.randint(asked.samples, (len(batch),)), state={})
        read = timed(weigh, batch)
        step = timed(trained, batch)
        written = timed(observed, batch)
        if number > 1:
            seconds["step"].append(step)
            seconds["state"].append(read + written)
    share = median(a / b for a, b in zip(seconds["state"], seconds["step"], strict=True))
    held = sum(state.values.nbytes for state in states.values())
    if rank() == 0:
        print(
            f"{recipe.train.batch} samples a step, {asked.samples:,} in the state: {held / 2**20:,.0f} MiB on each of "
            f"{world_size()}; a step {1e3 * median(seconds['step']):.1f} ms, its state "
            f"{1e3 * median(seconds['state']):.2f} ms: {share:.2%} of it, median of {asked.steps}"
        )
    return 0
