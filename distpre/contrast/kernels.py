"""The Triton kernels of fused.py. Imported only where they run."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def logits(
    x,
    y,
    scale,
    row,
    column,
    r,
    c,
    d,
    first,
    last,
    shift,
    BLOCK: tl.constexpr,
    DEEP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """(BLOCK, BLOCK) logits of this program, -inf outside and at own pairs, and its indices."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    k = tl.arange(0, DEEP)
    total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for start in range(0, d, DEEP):
        deep = start + k
        a = tl.load(x + i[:, None] * d + deep[None, :], mask=(i < r)[:, None] & (deep < d)[None, :], other=0.0)
        b = tl.load(y + j[None, :] * d + deep[:, None], mask=(j < c)[None, :] & (deep < d)[:, None], other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    low = float("-inf")
    total = total * tl.load(scale)
    total += tl.load(row + i, mask=i < r, other=low)[:, None] + tl.load(column + j, mask=j < c, other=low)[None, :]
    own = (j[None, :] == i[:, None] + shift) & (i >= first)[:, None] & (i < last)[:, None]
    return tl.where(own, low, total), i, j


@triton.jit
def sums(
    x, y, scale, row, column, row_top, row_sum, column_top, column_sum, r, c, d, first, last, shift,
    SOFTMAX: tl.constexpr, BLOCK: tl.constexpr, DEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Each program's maximum and sum (softmax: of exponentials below the maximum) of its rows and columns."""
    total, i, j = logits(x, y, scale, row, column, r, c, d, first, last, shift, BLOCK, DEEP, PRECISION)
    tops, deep = tl.max(total, 1), tl.max(total, 0)
    if SOFTMAX:
        by_row = tl.sum(tl.exp(total - tl.where(tops == float("-inf"), 0.0, tops)[:, None]), 1)
        by_column = tl.sum(tl.exp(total - tl.where(deep == float("-inf"), 0.0, deep)[None, :]), 0)
    else:
        each = tl.maximum(total, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(total)))
        by_row, by_column = tl.sum(each, 1), tl.sum(each, 0)
    tl.store(row_top + tl.program_id(1) * r + i, tops, mask=i < r)
    tl.store(row_sum + tl.program_id(1) * r + i, by_row, mask=i < r)
    tl.store(column_top + tl.program_id(0) * c + j, deep, mask=j < c)
    tl.store(column_sum + tl.program_id(0) * c + j, by_column, mask=j < c)


@triton.jit
def pull(
    x, y, scale, row, column, g, h, row_lse, column_lse, out, r, c, d, first, last, shift,
    SOFTMAX: tl.constexpr, BLOCK: tl.constexpr, DEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out (r, c): the derivative by the logit."""
    total, i, j = logits(x, y, scale, row, column, r, c, d, first, last, shift, BLOCK, DEEP, PRECISION)
    left = tl.load(g + i, mask=i < r, other=0.0)[:, None]
    right = tl.load(h + j, mask=j < c, other=0.0)[None, :]
    if SOFTMAX:
        by_row = tl.exp(total - tl.load(row_lse + i, mask=i < r, other=0.0)[:, None])
        by_column = tl.exp(total - tl.load(column_lse + j, mask=j < c, other=0.0)[None, :])
        value = tl.where(left == 0.0, 0.0, left * by_row) + tl.where(right == 0.0, 0.0, right * by_column)
    else:
        value = (left + right) / (1.0 + tl.exp(-total))
    tl.store(out + i[:, None] * c + j[None, :], value, mask=(i < r)[:, None] & (j < c)[None, :])
