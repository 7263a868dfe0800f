"""What a run would be, for --check: sizes, memory and bytes moved, before anything starts."""

from __future__ import annotations

import torch

from distpre.recipe import Recipe
from distpre.runtime import build


def plan(recipe: Recipe) -> str:
    """What the run would be: a screen of figures with their units. Starts nothing and writes nothing.

    Memory is what the parameters, gradients and AdamW's two moments take under the ZeRO stage (Rajbhandari et al. 2020,
    section 3.2), 4 bytes each; activations are not in it. Bytes moved are those a rank receives in a step.
    """
    with torch.device("meta"):
        model = build.model(recipe)
    workers, train = recipe.launch.workers, recipe.train
    towers = {name: sum(p.numel() for p in tower.parameters()) for name, tower in model.towers.items()}
    widths = {model.towers[name].width for name in towers}
    whole, share = sum(towers.values()) * 4, 1 / workers
    weights = whole * (share if train.zero == 3 else 1)
    gradients = whole * (share if train.zero >= 2 else 1)
    moments = 2 * whole * (share if train.zero >= 1 else 1)
    rows = train.batch // workers
    gathered = (workers - 1) * rows * max(widths) * 4
    exchange = whole * 2 * (workers - 1) / workers * (1.5 if train.zero == 3 else 1)
    lines = [
        ("workers", f"{workers}"),
        ("global batch", f"{train.batch} = {workers} x {rows}, in {train.accumulation} micro-batch(es) a worker"),
        ("steps", f"{train.steps:,}, {train.steps * train.batch:,} samples; commit every {train.commit_every}"),
        *((f"tower {name}", f"{n:,} parameters, width {model.towers[name].width}") for name, n in towers.items()),
        ("precision", f"{train.precision}, ZeRO stage {train.zero}"),
        ("memory a worker", f"{_bytes(weights + gradients + moments)} for weights, gradients and moments"),
        ("moved a step", f"{_bytes(exchange)} of gradients, 2 x {_bytes(gathered)} of embeddings a term"),
        ("run folder", recipe.run.dir),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def _bytes(n: float) -> str:
    power = max((i for i in range(4) if n >= 1024**i), default=0)
    return f"{n / 1024**power:.{min(power, 1)}f} {('B', 'KiB', 'MiB', 'GiB')[power]}"
