"""The Triton tile against the torch tile: Triton's interpreter on the CPU, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import torch
from distpre.contrast import fused, tiles
from tests.contrast.forms import FORMS, Case, assert_exact, expected, found

fused.BLOCK, fused.DEEP = 16, 16
assert fused.usable(torch.zeros(1))
used, launch = [], fused.Fused._launch
fused.Fused._launch = lambda self, name, *out: (used.append(name), launch(self, name, *out))
tiles.TILE = {"cpu": (24, 40)}
for name in ("own_pair", "own_pair_out", "own_pair_weighted", "sigmoid"):
    for size in (1, 16, 51):
        case = Case.make(5, size, 9.0, torch.float32)
        assert_exact(name, [found(name, case, slice(None))], expected(name, case), case)
assert set(used) == {"sums", "pull"}
print(len(used), "launches")
"""


def test_the_fused_tile_is_as_exact_as_torchs():
    pytest.importorskip("triton", reason="Triton is not installed")
    root = Path(__file__).parents[2]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("launches\n")
