"""python -m launch doctor [RECIPE]: are the nodes fit to train on? One screen, green or red, with the remedy."""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from distpre.errors import DataError
from distpre.recipe import Recipe, load
from launch.arguments import found
from launch.cluster import cluster

_SKEW_SECONDS = 1.0  # between clocks: times in the logs of two hosts could no longer be compared
_SLOW = 4  # a pair of hosts this many times slower than the median pair


@dataclass(frozen=True)
class Finding:
    """One line of the screen; remedy: what to do, where it is not good."""

    what: str
    said: str
    remedy: str = ""


def doctor(given: list[str]) -> int:
    """0 if all is green, else 1. Raises RecipeError and ClusterError as training would."""
    parser = argparse.ArgumentParser(prog="python -m launch doctor", description=__doc__.partition(": ")[2])
    parser.add_argument("recipe", nargs="?", metavar="RECIPE[:variant]", help="for its run folder and its shards")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="dotted recipe keys and their YAML values")
    parser.add_argument("--address", metavar="ADDR", help="a running Ray cluster (default: RAY_ADDRESS, else our own)")
    wanted = parser.parse_intermixed_args(given)
    recipe = load(found(wanted.recipe), overrides=wanted.overrides) if wanted.recipe else None
    console, well = Console(highlight=False, soft_wrap=True), True
    with cluster(wanted.address or os.environ.get("RAY_ADDRESS"), 1):
        for finding in findings(recipe):
            mark = ("red  ", "bold red") if finding.remedy else ("green", "green")
            remedy = f" {finding.remedy}" if finding.remedy else ""
            console.print(Text.assemble(mark, f"  {finding.what:<10}  {finding.said}{remedy}"))
            well = well and not finding.remedy
    return 0 if well else 1


def findings(recipe: Recipe | None) -> Iterator[Finding]:
    """Of the connected cluster."""
    import ray

    from launch.nodes import nodes
    from launch.probe import Probe

    there = nodes()
    believed = sum(n["Alive"] for n in ray.nodes())
    dead = "" if len(there) == believed else "Start Ray anew on the others, or look at their network."
    yield Finding("nodes", f"{len(there)} of {believed} answer: {_some([str(n) for n in there])}", dead)
    hosts = [str(node) for node in there]
    probes = [Probe.options(label_selector={"ray.io/node-id": node.id}).remote() for node in there]
    facts = ray.get([probe.facts.remote() for probe in probes])
    yield _devices(hosts, facts, [n.gpus for n in there])
    yield _interfaces(hosts, facts)
    yield _clocks(hosts, probes)
    yield _versions(hosts, facts)
    yield _storage(hosts, probes, Path(recipe.run.dir if recipe else "runs").absolute())
    if recipe:
        yield from _shards(hosts, probes, recipe)
    if len(probes) > 1:
        yield _bandwidth(hosts, probes)


def _devices(hosts: list[str], facts: list[dict[str, Any]], by_ray: list[float]) -> Finding:
    kinds = Counter(f["devices"] for f in facts)
    said = "; ".join(f"{n} x {kind}" for kind, n in kinds.items())
    hidden = [h for h, f, ray_sees in zip(hosts, facts, by_ray, strict=True) if f["gpus"] != ray_sees]
    if hidden:
        return Finding(
            "devices",
            f"{said}; torch and Ray count GPUs differently on {_some(hidden)}.",
            "Look at the driver there, and give `ray start` the right --num-gpus.",
        )
    odd = "Give workers the same devices, or train on the nodes that have them." if len(kinds) > 1 else ""
    return Finding("devices", said, odd)


def _interfaces(hosts: list[str], facts: list[dict[str, Any]]) -> Finding:
    without = [h for h, f in zip(hosts, facts, strict=True) if f["interface"] is None]
    if without:
        return Finding(
            "interface",
            f"none has Ray's address on {_some(without)}.",
            "Start Ray there with --node-ip-address of the network that the hosts share.",
        )
    names = Counter(f["interface"] for f in facts)
    return Finding("interface", ", ".join(f"{name} on {n}" for name, n in names.items()))


def _clocks(hosts: list[str], probes: list[Any]) -> Finding:
    import ray

    skews = []
    for probe in probes:
        tries = []
        for _ in range(5):
            before = time.time()
            theirs = ray.get(probe.clock.remote())
            after = time.time()
            tries.append((after - before, theirs - (before + after) / 2))
        skews.append(min(tries)[1])  # the shortest way there and back says most
    spread = max(skews) - min(skews)
    said = f"within {1000 * spread:.0f} ms of one another"
    if spread > _SKEW_SECONDS:
        worst = hosts[max(range(len(skews)), key=lambda i: abs(skews[i] - statistics.median(skews)))]
        return Finding("clocks", f"{said}, {worst} farthest off.", "Run a time service (chrony) on it.")
    return Finding("clocks", said)


def _versions(hosts: list[str], facts: list[dict[str, Any]]) -> Finding:
    differ = [name for name in facts[0]["versions"] if len({f["versions"].get(name) for f in facts}) > 1]
    if not differ:
        return Finding("versions", " ".join(f"{k} {v}" for k, v in facts[0]["versions"].items()))
    said = [
        f"{name}: " + ", ".join(f"{h} has {f['versions'].get(name)}" for h, f in zip(hosts, facts, strict=True))
        for name in differ
    ]
    return Finding("versions", f"{'; '.join(said)}.", "Install the same on all nodes.")


def _storage(hosts: list[str], probes: list[Any], folder: Path) -> Finding:
    """Every node writes a file, syncs, renames and locks it; every node then reads all of them."""
    import ray

    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = Path(tempfile.mkdtemp(prefix=".doctor-", dir=folder))
    except OSError as e:
        return Finding("storage", f"{folder} cannot be written ({e.strerror}).", "Give another run.dir.")
    try:
        wrote = ray.get([p.write.remote(str(trial), i) for i, p in enumerate(probes)])
        read = ray.get([p.read.remote(str(trial)) for p in probes])
        ray.get(probes[0].forget.remote(str(trial)))
        failed = [f"{h} ({w})" for h, w in zip(hosts, wrote, strict=True) if isinstance(w, str)]
        if failed:
            return Finding("storage", f"{folder} fails on {_some(failed)}.", "Mount it there, writable and with locks.")
        blind = [h for h, r in zip(hosts, read, strict=True) if r != list(range(len(probes)))]
        if blind:
            return Finding(
                "storage",
                f"{_some(blind)} do not see the others' files in {folder}.",
                "Use a folder that all nodes share.",
            )
        slowest = max(wrote)
        return Finding(
            "storage", f"{folder}: written, synced, renamed, locked and seen by all; slowest {slowest:.3f} s"
        )
    finally:
        for left in trial.glob("*"):
            left.unlink()
        if trial.exists():
            trial.rmdir()


def _shards(hosts: list[str], probes: list[Any], recipe: Recipe) -> Iterator[Finding]:
    import ray

    from distpre.data.shards import expand

    for name, source in recipe.data.sources.items():
        try:
            shards = expand(source.shards)
        except DataError as e:
            yield Finding(f"data.{name}", e.what, e.remedy)
            continue
        missing = ray.get([p.missing.remote(shards) for p in probes])
        without = [f"{h} lacks {_some(m)}" for h, m in zip(hosts, missing, strict=True) if m]
        if without:
            made = "The recipe's data.prepare makes them." if recipe.data.prepare else "Mount or copy them there."
            yield Finding(f"data.{name}", f"{'; '.join(without)}.", made)
        else:
            yield Finding(f"data.{name}", f"{len(shards)} shards, seen by every node")


def _bandwidth(hosts: list[str], probes: list[Any]) -> Finding:
    import ray

    speeds: dict[tuple[int, int], float] = {}
    for a, b in itertools.combinations(range(len(probes)), 2):  # one pair at a time: the others would share its way
        place = ray.get(probes[a].meeting_place.remote())
        ends = [probes[r].all_reduce.remote(rank, *place) for rank, r in enumerate((a, b))]
        outcome = ray.get(ends)
        if isinstance(outcome[0], str):
            said = f"{hosts[a]} and {hosts[b]} cannot sum a vector ({outcome[0]})."
            return Finding("all-reduce", said, "Open all ports between the hosts, and look at the interface above.")
        speeds[a, b] = outcome[0]
    middle = statistics.median(speeds.values())
    (a, b), least = min(speeds.items(), key=lambda item: item[1])
    said = f"{len(speeds)} pairs, median {middle:,.0f} MiB/s, slowest {hosts[a]} and {hosts[b]} with {least:,.0f}"
    slow = f"Look at the network of these two: they are {_SLOW} times slower." if least * _SLOW < middle else ""
    return Finding("all-reduce", said, slow)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
