"""What a run would be, for --check: sizes, memory and bytes moved, before anything starts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from distpre.contrast.layout import Plan, choose
from distpre.contrast.primitive import HELD_BYTES
from distpre.data.manifest import existing
from distpre.data.shards import expand, stamp
from distpre.errors import DataError, RecipeError
from distpre.recipe import Recipe, resolve
from distpre.recipe.kinds import listed
from distpre.recipe.stages import Stage, stages
from distpre.runtime import build
from distpre.towers.model import Model
from distpre.towers.tower import Tower


def plan(recipe: Recipe) -> str:
    """What the run would be: a screen of figures with their units. Starts nothing and writes nothing.

    Memory is what fp32 weights, gradients and AdamW's two moments take under the ZeRO stage (Rajbhandari et al. 2020,
    section 5; bf16 is autocast and divides nothing), and the contrast's rows, columns and their gradients. Not in it:
    activations (activations.py), the contrast's tile, and the buckets through which DeepSpeed reduces gradients.
    Bytes moved are those that a worker receives in a step, by ring collectives: weights, gradients and embeddings, but
    not those of contrasts of parts and place by place, whose numbers only a forward pass tells. Towers need not have
    the weights that they start from yet.
    """
    with torch.device("meta"):
        model = build.model(recipe, fresh=False)
    workers, train, evaluate = recipe.launch.workers.max, recipe.train, recipe.evaluate
    rows = train.batch // workers
    weights, taught = 4 * (_count(model) - _count(model.teachers)), 4 * _count(model.teachers)
    contrasts = layouts(recipe, model, workers)
    vector = {name: 4 * width for name, (_, _, width) in contrasts.items()}
    held = sum(2 * laid.held * n * vector[name] for name, (laid, n, _) in contrasts.items())
    embeddings = sum(laid.received * n * vector[name] for name, (laid, n, _) in contrasts.items())
    exchange = _exchanged(weights, train.zero, workers, train.accumulation)
    memory = _memory(weights, taught, train.zero, workers, held)
    each = f"{workers:,} x {rows:,} samples a worker"
    if train.accumulation > 1:
        each += f" = {workers:,} x {train.accumulation:,} micro-batches of {rows // train.accumulation:,}"
    last = stages(recipe)[-1]
    seen = last.samples(last.last)
    lines = [
        ("workers", f"{_workers(recipe)}; decoding processes in each: {recipe.data.workers}"),
        ("global batch", f"{train.batch:,} samples = {each}"),
        ("steps", f"{last.last:,} = {seen:,} samples{_epochs(recipe, seen)}"),
        ("commit", f"every {train.commit_every:,} steps, the last {train.keep} kept"),
        ("evaluate", f"every {evaluate.every:,} steps on data.{evaluate.data}" if evaluate else "never"),
        *((f"tower {name}", _parameters(tower) + _start(recipe, name)) for name, tower in model.towers.items()),
        *((f"contrast {name}", str(laid)) for name, (laid, _, _) in contrasts.items()),
        *((f"teacher {name}", f"{_count(its):,} weights that stand beside") for name, its in model.teachers.items()),
        ("precision", f"{train.precision}, ZeRO stage {train.zero}"),
        ("memory a worker", _parts(memory)),
        *((("paper's hardware", _beside(said, sum(memory.values()))),) if (said := _hardware(recipe)) else ()),
        *((f"weighting {name}", text) for name, text in _states(recipe)),
        (
            "moved a step",
            f"{bytes_said(exchange)} of weights and gradients, 2 x {bytes_said(embeddings)} of embeddings"
            + "".join(f", {bytes_said(n)} by {name}" for name, n in _collected(recipe, model, rows, workers)),
        ),
        ("run folder", recipe.run.dir),
        *((f"stage {s.name}", _stage(s)) for s in stages(recipe) if s.name),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def _stage(stage: Stage) -> str:
    source, replay = stage.recipe.data.sources["train"], stage.recipe.data.replay
    where = "; ".join(f"{id} {listed(values)}" for id, values in source.where.items()) or "all samples"
    again = f"; {replay.weight:.0%} of the batch from earlier stages" if replay and stage.number else ""
    return f"steps {stage.first + 1:,} to {stage.last:,} of {stage.recipe.train.batch:,} samples: {where}{again}"


def _workers(recipe: Recipe) -> str:
    workers = recipe.launch.workers
    fewer = f", down to {workers.min:,} with {recipe.accumulation(workers.min):,} micro-batches each"
    return f"{workers.max:,}" + (fewer if workers.min < workers.max else "")


def _parameters(tower: Tower) -> str:
    head = _count(tower.head) if tower.head is not None else 0
    parts = f" = encoder {_count(tower.encoder):,} + head {head:,}" if head else ""
    return f"{_count(tower):,} parameters{parts}; width {tower.width}"


def _start(recipe: Recipe, tower: str) -> str:
    """What a tower starts from, where the recipe names a file or a run."""
    said = recipe.towers[tower].encoder.keywords()
    if not said.get("weights"):
        return ""
    return f"; starts from {said['weights']}" + ("" if Path(said["weights"]).exists() else ", which is not there yet")


def _hardware(recipe: Recipe) -> str | None:
    return recipe.paper.hardware if recipe.paper else None


def _beside(hardware: str, memory: float) -> str:
    """memory: of a worker here, beside that of one of the paper's devices where it is said."""
    size = re.search(r"(\d+) GB$", hardware)
    if size is None:
        return hardware
    return f"{hardware}; a worker here takes {memory / (int(size[1]) * 1e9):.0%} of one + activations"


def _memory(weights: int, taught: int, zero: int, workers: int, contrast: int) -> dict[str, float]:
    """Bytes by part. Stage 1 divides the moments, 2 the gradients, 3 the weights; all update a divided copy of these.

    taught: bytes of teachers' weights, which have neither gradients nor moments.
    """
    divided = [weights / (workers if zero >= stage else 1) for stage in (1, 2, 3)]
    return {
        "weights": divided[2] + (weights / workers if zero else 0),
        "gradients": divided[1],
        "moments": 2 * divided[0],
        "contrast": contrast,
    } | ({"teachers": taught / (workers if zero == 3 else 1)} if taught else {})


def _parts(parts: dict[str, float]) -> str:
    shown = ", ".join(f"{name} {bytes_said(n)}" for name, n in parts.items())
    return f"{bytes_said(sum(parts.values()))} + activations: {shown}"


def _exchanged(weights: int, zero: int, workers: int, parts: int) -> float:
    """In rounds of (N-1)/N of the weights: a gather or a reduce-scatter is one, an all-reduce two.

    Stage 2 reduces in every micro-batch. Stage 3 also gathers, for each forward and each backward; an accumulated step
    embeds every micro-batch twice.
    """
    rounds = {0: 2, 1: 2, 2: parts + 1, 3: 3 if parts == 1 else 4 * parts}[zero]
    return weights * rounds * (workers - 1) / workers


def layouts(recipe: Recipe, model: Model, node: int) -> dict[str, tuple[Plan, int, int]]:
    """{term: (layout, rows of a rank, width)} of terms that contrast over the global batch; node: ranks on a node.

    Such a term says which views' vectors it `gathers`. Raises RecipeError.
    """
    out = {}
    for name, (term, _) in build.objective(recipe).terms.items():
        views = [view.rpartition(".")[2] for view in getattr(term, "gathers", [])]
        if not views:
            continue
        rows = recipe.train.batch // recipe.launch.workers.max * len(views)
        width = model.towers[model.tower_of[views[0]]].width
        wanted = recipe.objective[name].component.keywords().get("layout", "auto")
        try:
            laid = choose(recipe.launch.workers.max, rows, width, node=node, memory=HELD_BYTES, wanted=wanted)
        except ValueError as e:
            raise RecipeError(f"objective.{name}: {e}.", "Name one of those, or leave it out: auto.") from e
        out[name] = laid, rows, width
    return out


def _collected(recipe: Recipe, model: Model, rows: int, workers: int) -> Iterator[tuple[str, int]]:
    """(term, bytes) of embeddings that every rank has all of. rows: of a rank."""
    for name, (term, _) in build.objective(recipe).terms.items():
        if rounds := getattr(term, "collects", {}):
            towers = {view: model.towers[model.tower_of[view.rpartition(".")[2]]] for view in rounds}
            width = sum(n * towers[view].width for view, n in rounds.items())
            yield name, 4 * width * rows * (workers - 1)


def _states(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(name, what it remembers of each sample takes)"""
    workers = recipe.launch.workers.max
    count = samples(recipe) or 10**9
    for name, component in recipe.weighting.items():
        each = 4 * len(resolve.build(component, "weighting").columns)
        held = f"{bytes_said(each * count / workers)} a worker in host memory"
        yield name, f"{each} B a sample; of {count:,} samples {held}"


def _epochs(recipe: Recipe, seen: int) -> str:
    """How often the training data is seen, where the shards' indexes are there to say how much that is."""
    count = samples(recipe)
    if count is None:
        return ""
    if not count:
        return "; epochs unknown until the shards are indexed"
    return f" = {seen / count:.2f} epochs of {count:,} samples"


def samples(recipe: Recipe) -> int | None:
    """Of data.train; 0 where indexes are missing, None where shards are."""
    try:
        shards = expand(recipe.data.sources["train"].shards)
        stamps = [stamp(shard) for shard in shards]
    except DataError:
        return None
    entries = [existing(shard, at, set()) for shard, at in zip(shards, stamps, strict=True) if at is not None]
    counts = [entry.header.count for entry in entries if entry is not None]
    return sum(counts) if len(counts) == len(shards) else 0


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def bytes_said(n: float) -> str:
    power = max((i for i in range(4) if n >= 1024**i), default=0)
    return f"{n / 1024**power:.{min(power, 1)}f} {('B', 'KiB', 'MiB', 'GiB')[power]}"
