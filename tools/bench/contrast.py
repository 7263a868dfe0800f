"""The global contrast: ours in each layout and open_clip's local loss with gather_with_grad, in turn, on one batch.

    python -m tools.bench contrast --ranks 4 --batch 4096 --dim 512 [--rounds 3] [--json FILE] [--require]
    python -m tools.bench contrast --per-rank-memory N b d

Every contestant runs forward and backward on the same unit vectors, one thread a rank, over gloo on this machine.
Time is the slowest rank's; memory the highest resident size above the inputs, of one pass in processes of its own, on
--ranks and on twice as many; bytes are counted at the collectives, over a group that moves nothing. The floor is
8·b·B·d FLOP at the rate of this machine's own matrix product with all ranks at work.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tools.port import free_port

PEER = "open_clip, local + gather_with_grad"
OURS = "ours, "
FLOOR = "matrix product"
FASTER, OF_FLOOR, OF_MEMORY, OF_BYTES = 1.6, 1.25, 1 / 6, 1 / 8
WIDE = (4, 16, 64)
SMALL = (32, 512)  # batch and width of the passes whose bytes are counted


def main(argv: list[str]) -> int:
    options = _parsed(argv)
    if options.per_rank_memory:
        return _one_rank(*options.per_rank_memory)
    n, b, d = options.ranks, options.batch, options.dim
    names = [PEER, *_layouts(n)]
    times = _slowest(_group(n, _timed, names, b, d, options.rounds))
    memory = {n: {name: max(_group(n, _peak, name, b, d)) for name in [*names, OURS + "auto"]}}
    memory[2 * n] = {name: max(_group(2 * n, _peak, name, b, d)) for name in (OURS + "auto", OURS + "ring")}
    moved = {size: {name: _group(1, _counted, name, size)[0] for name in [PEER, OURS + "auto"]} for size in WIDE}
    report = {"ranks": n, "batch": b, "dim": d, "times": times, "memory": memory, "moved": moved}
    _show(report)
    missed = _missed(report)
    for line in missed:
        print(f"missed: {line}")
    if options.json:
        Path(options.json).write_text(json.dumps(report | {"missed": missed}, indent=1))
    return int(bool(missed) and options.require)


def _parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench contrast", description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4096, help="pairs a rank")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--require", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--per-rank-memory", nargs=3, type=int, metavar=("N", "b", "d"))
    return parser.parse_args(argv)


def _layouts(n: int) -> list[str]:
    from distpre.contrast.layout import plans

    return [OURS + plan.name for plan in plans(n)]


# One pass of a contestant on one rank


def _batch(b: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(_rank())
    x, y = (F.normalize(torch.randn(b, d, generator=g), dim=1).requires_grad_() for _ in range(2))
    return x, y, torch.tensor([14.3], requires_grad=True)


def _loss(name: str, x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    if name == PEER:
        from open_clip.loss import ClipLoss

        peer = ClipLoss(local_loss=True, gather_with_grad=True, rank=_rank(), world_size=dist.get_world_size())
        return peer(x, y, scale)
    from distpre.contrast import Block, contrast

    out = contrast(Block(x), Block(y), scale, layout=name.removeprefix(OURS))
    return (out.rows.loss().mean() + out.columns.loss().mean()) / 2


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


# What is measured, on every rank


def _timed(names: list[str], b: int, d: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round; the first, which makes groups and touches memory, is not counted."""
    x, y, scale = _batch(b, d)
    times: dict[str, list[float]] = {name: [] for name in [*names, FLOOR]}
    for i in range(rounds + 1):
        for name, each in times.items():
            dist.barrier()
            start = time.perf_counter()
            seconds = _product(b, d) if name == FLOOR else torch.autograd.grad(_loss(name, x, y, scale), (x, y, scale))
            dist.barrier()
            taken = seconds if name == FLOOR else time.perf_counter() - start
            if i:
                each.append(taken)
    return times


def _product(b: int, d: int) -> float:
    """Seconds that 8·b·B·d FLOP take at the rate of the sweep's own product, measured on an eighth of them."""
    x, y = torch.randn(1024, d), torch.randn(d, 1024)
    out = torch.empty(1024, 1024)
    repeats = max(1, b * b * dist.get_world_size() // 2**20 // 2)
    start = time.perf_counter()
    for _ in range(repeats):
        torch.mm(x, y, out=out)
    return (time.perf_counter() - start) / repeats * (4 * b * b * dist.get_world_size() / 2**20)


def _peak(name: str, b: int, d: int) -> float:
    """MiB above the inputs at the highest moment of one pass, after a small one that loads code."""
    small, large = _batch(64, d), _batch(b, d)
    torch.autograd.grad(_loss(name, *small), small)
    dist.barrier()
    with _high_water() as peak:
        torch.autograd.grad(_loss(name, *large), large)
    return peak[0]


@contextmanager
def _high_water() -> Iterator[list[float]]:
    """MiB that the resident size rose by at most; Linux counts it."""
    Path("/proc/self/clear_refs").write_text("5")
    before, out = _status("VmRSS"), [0.0]
    yield out
    out[0] = (_status("VmHWM") - before) / 1024


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(key)))


def _counted(name: str, n: int) -> float:
    """Bytes that rank 0 of n receives in one pass, in units of b·d·4."""
    b, d = SMALL
    batch = _batch(b, d)
    with _pretended(n), _counting() as received:
        torch.autograd.grad(_loss(name, *batch), batch)
    return received[0] / (4 * b * d)


@contextmanager
def _pretended(n: int) -> Iterator[None]:
    """A process group of n of which only this process is real; collectives move nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from distpre.contrast import layout

    dist.init_process_group("fake", rank=0, world_size=n, store=FakeStore())
    with mock.patch.object(layout, "exchange", lambda numbers, device: [numbers] * n):
        yield
    dist.destroy_process_group()


@contextmanager
def _counting() -> Iterator[list[float]]:
    """Adds up what this rank receives, by the algorithms whose bytes are least: a ring for gathers and reductions."""
    from distpre.contrast.layout import ALL_GATHER, REDUCE_SCATTER

    received, n = [0.0], dist.get_world_size

    def size(x: Tensor | list[Tensor]) -> int:
        return sum(map(size, x)) if isinstance(x, list) else x.numel() * x.itemsize

    rules: dict[str, Callable[..., float]] = {
        ALL_GATHER: lambda out, x, group=None: size(out) - size(x),
        "all_gather": lambda out, x, group=None: size(out) - size(x),
        REDUCE_SCATTER: lambda out, x, op=None, group=None: size(x) - size(out),
        "reduce_scatter": lambda out, x, op=None, group=None: size(x) - size(out),
        "all_to_all": lambda out, x, group=None: size(out) * (n(group) - 1) / n(group),
        "all_reduce": lambda x, op=None, group=None: 2 * size(x) * (n(group) - 1) / n(group),
        "batch_isend_irecv": lambda ops: sum(size(op.tensor) for op in ops if op.op is dist.irecv),
    }

    def watched(name: str) -> Callable:
        real = getattr(dist, name)

        def call(*args: Any, **keywords: Any) -> Any:
            received[0] += rules[name](*args, **{k: v for k, v in keywords.items() if k in ("op", "group")})
            return real(*args, **keywords)

        return call

    with mock.patch.multiple(dist, **{name: watched(name) for name in rules}):
        yield received


def _one_rank(n: int, b: int, d: int) -> int:
    """What one rank of a job of n needs for the contrast, from running that rank's own tiles."""
    from distpre.contrast.layout import choose
    from distpre.contrast.primitive import HELD_BYTES

    print(f"layout  {choose(n, b, d, node=min(n, 8), memory=HELD_BYTES)}")
    peak, seconds = _group(1, _alone, n, b, d)[0]
    print(
        f"memory  {peak:,.0f} MiB above the inputs of {2 * b * d * 4 / 2**20:,.0f} MiB; the tiles took {seconds:,.1f} s"
    )
    return 0


def _alone(n: int, b: int, d: int) -> tuple[float, float]:
    os.environ["LOCAL_WORLD_SIZE"] = str(min(n, 8))
    batch = _batch(b, d)
    with _pretended(n), _high_water() as peak:
        start = time.perf_counter()
        torch.autograd.grad(_loss(OURS + "auto", *batch), batch)
    return peak[0], time.perf_counter() - start


# Processes


def _group(n: int, function: Callable, *args: Any) -> list[Any]:
    """[function(*args) on rank 0, 1, ...] of n real processes; one process makes no group of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "open_clip"])
    pipes = [context.Pipe(duplex=False) for _ in range(n)]
    with free_port() as port:
        processes = [
            context.Process(target=_ranked, args=(rank, n, port, mine, function, args), daemon=True)
            for rank, (_, mine) in enumerate(pipes)
        ]
        for process in processes:
            process.start()
        for _, mine in pipes:
            mine.close()
        out = [theirs.recv() for theirs, _ in pipes]
        for process in processes:
            process.join()
    return out


def _ranked(rank: int, n: int, port: int, end: Any, function: Callable, args: tuple) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)  # open_clip's, of the collective it calls
    if n > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=n)
    end.send(function(*args))
    if n > 1:
        dist.barrier()
        dist.destroy_process_group()


# The report


def _slowest(ranks: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    return {name: [max(r[name][i] for r in ranks) for i in range(len(ranks[0][name]))] for name in ranks[0]}


def _ratio(times: dict[str, list[float]], name: str, other: str) -> float:
    """Median over rounds of name's time by other's in the same round."""
    return statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))


def _show(report: dict) -> None:
    n, b, d, times = report["ranks"], report["batch"], report["dim"], report["times"]
    table = Table(title=f"{n} ranks x {b} pairs x {d}, forward and backward, medians of {len(times[PEER])} rounds")
    for column in ("", "s", "open_clip / it", "it / floor", f"MiB at {n}", f"MiB at {2 * n}", "of open_clip's"):
        table.add_column(column, justify="left" if not column else "right")
    for name in [*times, OURS + "auto"]:
        taken = ["", "", ""]
        if name in times:
            taken = [f"{statistics.median(times[name]):.3f}", f"{_ratio(times, PEER, name):.2f}"]
            taken.append(f"{_ratio(times, name, FLOOR):.2f}")
        held = [report["memory"][size].get(name) for size in (n, 2 * n)]
        share = "" if held[0] is None else f"1/{report['memory'][n][PEER] / held[0]:.1f}"
        table.add_row(name, *taken, *("" if x is None else f"{x:,.0f}" for x in held), share)
    Console(width=120).print(table)
    table = Table(title="received by a rank in a step, in units of b·d·4 bytes, counted")
    for column in ("", *(f"N = {size}" for size in WIDE)):
        table.add_column(column, justify="left" if not column else "right")
    for name in report["moved"][WIDE[0]]:
        table.add_row(name, *(f"{report['moved'][size][name]:.1f}" for size in WIDE))
    table.add_row("formula: 2 (R + C - 2)", *(f"{_formula(size):.1f}" for size in WIDE))
    Console(width=120).print(table)


def _formula(n: int) -> int:
    return 2 * _grid(n).received


def _grid(n: int) -> Any:
    from distpre.contrast.layout import choose

    return choose(n, *SMALL, node=n, memory=2**40)


def _missed(report: dict) -> list[str]:
    n, times, memory, moved = (report[key] for key in ("ranks", "times", "memory", "moved"))
    ours = [name for name in times if name.startswith(OURS) and "ring" not in name]
    best = min(ours, key=lambda name: statistics.median(times[name]))
    out = []
    if (ratio := _ratio(times, PEER, best)) < FASTER:
        out.append(f"{best} is {ratio:.2f}x as fast as open_clip, not {FASTER}x")
    if (ratio := _ratio(times, best, FLOOR)) > OF_FLOOR:
        out.append(f"{best} takes {ratio:.2f} of the matrix product's time, not {OF_FLOOR}")
    if (share := memory[n][best] / memory[n][PEER]) > OF_MEMORY:
        out.append(f"{best} needs {share:.2f} of open_clip's memory, not {OF_MEMORY:.2f}")
    held = sum(_grid(2 * n).grid) * report["batch"] * report["dim"] * 8 / 2**20
    if (more := memory[2 * n][OURS + "auto"] - memory[n][OURS + "auto"]) > held:
        out.append(f"twice the ranks need {more:.0f} MiB more, and rows, columns and their gradients are {held:.0f}")
    if any(abs(moved[size][OURS + "auto"] / _formula(size) - 1) > 0.02 for size in WIDE):
        out.append("the bytes counted are not those of the formula")
    if (share := moved[64][OURS + "auto"] / moved[64][PEER]) > OF_BYTES:
        out.append(f"64 ranks move {share:.3f} of open_clip's bytes, not {OF_BYTES}")
    return out
