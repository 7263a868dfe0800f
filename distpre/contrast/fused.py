"""The tile in Triton: a product and its exponentials without a pass over logits in memory. Same answers as torch's.

One program computes BLOCK by BLOCK logits from a loop over the width. `sums` leaves only a maximum and a sum for each
of its rows and columns; `pull` leaves the derivative, which two library products then carry to rows and columns. bf16
inputs are multiplied as they are and accumulated in fp32; fp32 inputs in full precision, not TF32. Under
TRITON_INTERPRET=1 the same code runs on the CPU, which is how it is tested; on a GPU it is not measured yet.
"""

from __future__ import annotations

import functools
import importlib
import os
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from distpre.contrast.forms import Form, Softmax

BLOCK, DEEP = 128, 32


def usable(x: Tensor) -> bool:
    """The tensor is where Triton compiles for, or Triton interprets."""
    if x.dtype == torch.float64 or not (x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"):
        return False
    return _kernels() is not None


@dataclass(frozen=True)
class Fused:
    """Negatives of a tile: scale·<x_i, y_j> + row_i + column_j, but for own pairs (i, i + shift), first <= i < last.

    x: (r, d), y: (c, d), scale [1]; row (r,) and column (c,): log-weights and bias, -inf for an absent sample.
    """

    x: Tensor
    y: Tensor
    scale: Tensor
    row: Tensor
    column: Tensor
    own: tuple[int, int, int]  # first, last, shift
    form: Form

    def sums(self, both: bool) -> tuple[Tensor, Tensor | None]:
        """The form's sums of rows (r,) and of columns (c,)."""
        row, column, *_ = self._partial
        return row, column if both else None

    def tops(self) -> tuple[Tensor, Tensor]:
        """Highest logit of each row and of each column."""
        return self._partial[2:]

    def pull(self, g: Tensor, row: Tensor, h: Tensor | None, column: Tensor | None) -> Tensor:
        """As Form.pull."""
        (r, _), (c, _) = self.x.shape, self.y.shape
        out = self.x.new_empty((r, c), dtype=torch.float32)
        blank = self.column.new_zeros(c)
        low = torch.zeros_like
        lse = [torch.where(t.isinf(), low(t), t) for t in (row, blank if column is None else column)]
        self._launch("pull", g.contiguous(), blank if h is None else h.contiguous(), *lse, out)
        return out

    @functools.cached_property
    def _partial(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(row sums, column sums, row tops, column tops) from those of the blocks."""
        (r, _), (c, _) = self.x.shape, self.y.shape
        parts = [
            self.x.new_empty((count, n), dtype=torch.float32)
            for count, n in ((_blocks(c), r), (_blocks(c), r), (_blocks(r), c), (_blocks(r), c))
        ]
        self._launch("sums", *parts)
        row_top, row_sum, column_top, column_sum = parts
        if not isinstance(self.form, Softmax):
            return row_sum.sum(0), column_sum.sum(0), row_top.amax(0), column_top.amax(0)
        row, column = (
            (sums.log() + tops).logsumexp(0) for sums, tops in ((row_sum, row_top), (column_sum, column_top))
        )
        return row, column, row_top.amax(0), column_top.amax(0)

    def _launch(self, name: str, *outputs: Tensor) -> None:
        (r, d), (c, _) = self.x.shape, self.y.shape
        kernel = getattr(_kernels(), name)
        precision = "ieee" if self.x.dtype == torch.float32 else "tf32"
        kernel[_blocks(r), _blocks(c)](
            self.x.contiguous(), self.y.contiguous(), self.scale, self.row, self.column, *outputs, r, c, d, *self.own,
            SOFTMAX=isinstance(self.form, Softmax), BLOCK=BLOCK, DEEP=DEEP, PRECISION=precision,
        )  # fmt: skip


def _blocks(n: int) -> int:
    return -(-n // BLOCK)


@functools.cache
def _kernels() -> ModuleType | None:
    """None where Triton is not installed."""
    try:
        return importlib.import_module("distpre.contrast.kernels")
    except ImportError:
        return None
