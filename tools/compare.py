"""Variants of a recipe side by side: each trained with each seed, one after another, and one table of what came out.

    python -m tools.compare recipes/continual/rotation.yaml --variants base,modx,replay --seeds 0 1 2 --out runs/compare

`base` is the recipe's file without a variant. Runs that finished in the folder are not trained again, broken-off ones
go on. The table: measures of the last evaluation and, of runs in stages, of the last domains, and what weightings said
last ("noise/auroc"); mean ± sample standard deviation over seeds. It stands in FOLDER/compare.json too, with the value
of every seed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from rich.console import Console

from distpre.errors import DistpreError, RecipeError
from distpre.recipe import Recipe, load
from distpre.recipe.stages import stages

PRELOAD = ["tools.preload"]
Figures = dict[str, dict[str, list[float]]]  # {variant: {measure: a value a seed}}


class RunFailed(DistpreError):
    """A training ended with another status than 0."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.compare", description=__doc__.split("\n")[0])
    parser.add_argument("recipe", help="a recipe's path, without a variant")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every run: train.steps=200")
    parser.add_argument("--variants", default="base", help="for example base,modx,replay")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--measures", default="*", help="patterns of names: '*R@1 of a,*forgetting'")
    arguments = parser.parse_intermixed_args(argv)
    variants = arguments.variants.split(",")
    try:
        found = compare(arguments.recipe, variants, arguments.seeds, arguments.out, arguments.overrides)
        (arguments.out / "compare.json").write_text(json.dumps(record(arguments, found), indent=1) + "\n")
        print(table(found, arguments.measures.split(",")))
    except DistpreError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_status
    except KeyboardInterrupt:
        return 130
    return 0


def compare(recipe: str, variants: Sequence[str], seeds: Sequence[int], out: Path, overrides: Sequence[str]) -> Figures:
    """Trains what is not finished. Raises RecipeError before the first training, RunFailed when one ends."""
    jobs = []
    for variant in variants:
        for seed in seeds:
            path = recipe if variant == "base" else f"{recipe}:{variant}"
            words = [*overrides, f"seed={seed}", f"run.dir={out / f'{variant}-{seed}'}"]
            jobs.append((variant, [path, *words], load(path, [*words, "launch.workers=1"])))
    for *_, its in jobs:
        check(its)
    found: Figures = {variant: {} for variant in variants}
    for number, (variant, words, its) in enumerate(jobs):
        name = f"{Path(its.run.dir).name} ({number + 1} of {len(jobs)})"
        if not (figures := measured(its)):
            train(words, Path(f"{its.run.dir}.log"), name)
            figures = measured(its)
        for measure, value in figures.items():
            found[variant].setdefault(measure, []).append(value)
    return found


def check(recipe: Recipe) -> None:
    """Raises RecipeError for one that measures nothing, or whose folder holds a run of another recipe."""
    if recipe.evaluate is None:
        raise RecipeError("The recipe has no `evaluate`, so that there is nothing to compare.", "Give it one.")
    path = Path(recipe.run.dir, "recipe.yaml")
    if path.exists() and path.read_text() != recipe.dump():
        raise RecipeError(f"{path} is another recipe than this one.", "Give another --out, or remove that run.")


def measured(recipe: Recipe) -> dict[str, float]:
    """{measure: value} of a run that has finished, {} of another; what could not be measured is not there."""
    path, found, last = Path(recipe.run.dir, "eval.jsonl"), {}, stages(recipe)[-1]
    for line in path.read_text().splitlines() if path.exists() else ():
        record = json.loads(line)
        found["tables" if "tables" in record else record.get("stage")] = record
    domains = found.get(last.name) if last.recipe.evaluate.domains and last.name else {}
    if domains is None or found.get("tables", {}).get("step") != last.last:
        return {}
    figures = {f"{name} {row[0]}": row[1] for name, rows in found["tables"]["tables"].items() for row in rows}
    for measure, matrix in domains.get("matrix", {}).items():
        figures |= {f"{measure} of {domain}": value for domain, value in matrix[last.name].items()}
        figures |= {f"{measure}: {figure}": value for figure, value in domains["summary"][measure].items()}
    return {measure: value for measure, value in figures.items() if value is not None} | weighed(recipe)


def weighed(recipe: Recipe) -> dict[str, float]:
    """{"weighting/figure": value}, the last that the run said: after a resume the next epoch's end says it again."""
    path = Path(recipe.run.dir, "metrics.jsonl")
    lines = path.read_text().splitlines() if recipe.weighting and path.exists() else []
    terms = {name: value for line in lines for name, value in json.loads(line)["terms"].items()}.items()
    return {name: value for name, value in terms if name.partition("/")[0] in recipe.weighting and value is not None}


def train(words: list[str], log: Path, name: str) -> None:
    """One run in a process of its own, what it says in `log`. Raises RunFailed with the log's last lines."""
    began = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    child = forking().Process(target=trained, args=(words, log))
    with Console().status(name) as status:
        child.start()
        try:
            while child.is_alive():
                child.join(0.3)
                status.update(f"{name}: {''.join(log.read_text().splitlines()[-1:])}")
        except KeyboardInterrupt:
            child.join()  # it was interrupted too, finishes its step and commits
            raise
    if child.exitcode:
        tail = "\n".join(log.read_text().splitlines()[-5:])
        raise RunFailed(f"{name} ended with {child.exitcode}. {log} ends so:\n{tail}", "\nMend it and start again.")
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


@cache
def forking() -> multiprocessing.context.BaseContext:
    """Processes out of one that has imported the libraries, which takes longer than a small run; CUDA forbids that."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([] if torch.cuda.is_available() else PRELOAD)
    return context


def trained(words: list[str], log: Path) -> None:
    """`python -m distpre.train` in this process, stdout and stderr into the file."""
    from distpre.train import main

    with open(log, "w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    sys.argv = ["distpre.train", *words]
    sys.exit(main())


def table(found: Figures, patterns: Sequence[str]) -> str:
    """A row a variant, as Markdown. Raises RecipeError where no measure has such a name."""
    every = dict.fromkeys(measure for its in found.values() for measure in its)
    chosen = [measure for measure in every if any(fnmatch(measure, pattern) for pattern in patterns)]
    if not chosen:
        raise RecipeError(f"--measures {','.join(patterns)}: there is none.", f"There are: {'; '.join(every)}.")
    rows = [[name, *(spread(its.get(measure, [])) for measure in chosen)] for name, its in found.items()]
    head = ["variant", *chosen]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (head, *rows)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float]) -> str:
    """mean ± sample standard deviation; the value alone where there is one."""
    if not values:
        return ""
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def record(arguments: argparse.Namespace, found: Figures) -> dict[str, Any]:
    """compare.json: what was asked for, and {variant: {measure: {values, mean, deviation}}}."""
    asked = {"recipe": arguments.recipe, "overrides": arguments.overrides, "seeds": arguments.seeds}
    figures = {
        variant: {
            measure: {"values": v, "mean": fmean(v), "deviation": stdev(v) if len(v) > 1 else None}
            for measure, v in its.items()
        }
        for variant, its in found.items()
    }
    return {**asked, "variants": figures}


if __name__ == "__main__":
    sys.exit(main())
