"""The global contrast: ours in each layout and open_clip's local loss with gather_with_grad, in turn, on the same batch.

    python -m tools.bench contrast --ranks 4 --batch 4096 --dim 512 [--rounds 3] [--json FILE] [--require]
    python -m tools.bench contrast --per-rank-memory N b d

Every contestant runs forward and backward on the same unit vectors, one thread a rank, over gloo on this machine. Time
is the slowest rank's; memory the highest resident size above the inputs of one pass in a process of its own; bytes are
counted at the collectives. The floor is 8·b·B·d FLOP at the rate of this machine's own matrix product with all ranks at
work. For N = 16 and 64 the collectives of one rank are recorded over a group that moves nothing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from distpre.contrast import Block, contrast, layout
from distpre.contrast.layout import plans

PEER = "open_clip local + gather_with_grad"
FASTER, OF_FLOOR, OF_MEMORY, OF_BYTES = 1.6, 1.25, 1 / 6, 1 / 8
WIDE = (4, 16, 64)


def main(argv: list[str]) -> int:
    options = _parsed(argv)
    if options.per_rank_memory:
        return _alone(*options.per_rank_memory)
    names = [PEER, *(f"ours, {plan.name}" for plan in plans(options.ranks))]
    timed = _group(options.ranks, _times, names, options)
    memory = {n: {name: _group(n, _memory, name, options) for name in _for(names, n)} for n in (options.ranks, 2 * options.ranks)}
    report = _report(names, timed, memory, options)
    _show(report)
    missed = _missed(report, options)
    for line in missed:
        print(f"missed: {line}")
    if options.json:
        Path(options.json).write_text(json.dumps(report | {"missed": missed}, indent=1))
    return int(bool(missed) and options.require)
