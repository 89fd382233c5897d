"""Which loops over rows of a table run as machine code? Imported only when the first of them runs.

Every kernel owns the rows ``lo : hi`` of its output and adds in a fixed order, so results do not depend on the number
of threads. None holds the interpreter's lock; none checks bounds: callers do. An empty array is an absent argument.

Sums of gathered rows are in ``gather_kernels``. Loops over d stand where a slice would read better: a view of a row
costs more than the row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]


@njit(nogil=True, cache=True, fastmath={"reassoc"})
def inner(start: Array, col: Array, left: Array, right: Array, out: Array, lo: int, hi: int) -> None:
    """out_e = <left_r, right[col_e]> over the entries e of rows lo : hi."""
    for r in range(lo, hi):
        for e in range(start[r], start[r + 1]):
            x, y = left[r], right[col[e]]
            total = x.dtype.type(0)
            for d in range(len(x)):
                total += x[d] * y[d]
            out[e] = total


@njit(nogil=True, cache=True)
def number_distinct(rows: Array, place: Array, distinct: Array, index: Array) -> int:
    """The K distinct values of ``rows`` by first appearance: distinct[:K]; rows_b = distinct[index_b]."""
    count = 0
    for b in range(len(rows)):
        r = rows[b]
        if place[r] < 0:
            place[r] = count
            distinct[count] = r
            count += 1
        index[b] = place[r]
    return count


@njit(nogil=True, cache=True)
def take_rows(index: Array, x: Array, divisor: float, out: Array) -> None:
    """out_b = x[index_b] / divisor."""
    for b in range(len(index)):
        y, x0 = out[b], x[index[b]]
        for d in range(len(y)):
            y[d] = x0[d] / x.dtype.type(divisor)


@njit(nogil=True, cache=True)
def add_rows(index: Array, x: Array, divisor: float, out: Array) -> None:
    """out[index_b] += x_b / divisor, in the order of b."""
    for b in range(len(index)):
        y, x0 = out[index[b]], x[b]
        for d in range(len(x0)):
            y[d] += x0[d] / x.dtype.type(divisor)


@njit(nogil=True, cache=True)
def take_rows_or_zero(index: Array, x: Array, out: Array) -> None:
    """out_b = x[index_b], and zero where index_b is no row of x."""
    for b in range(len(index)):
        n = index[b]
        if 0 <= n < len(x):
            for d in range(x.shape[1]):
                out[b, d] = x[n, d]
        else:
            for d in range(x.shape[1]):
                out[b, d] = 0


@njit(nogil=True, cache=True)
def add_rows_inside(index: Array, x: Array, out: Array) -> None:
    """out[index_b] += x_b where index_b is a row of out, in the order of b."""
    for b in range(len(index)):
        n = index[b]
        if 0 <= n < len(out):
            for d in range(x.shape[1]):
                out[n, d] += x[b, d]


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def attend(x: Array, index: Array, query: Array, weight: Array, out: Array) -> None:
    """out_b = sum_r weight_br x[index_br], weight_b = softmax_r <x[index_br], query_b>, over the rows there are.

    An empty ``query`` stands for weights of 1. ``weight`` is written, too; it is 0 where there is no row.
    """
    width, n_rows = x.shape[1], len(x)
    for b in range(len(index)):
        highest = x.dtype.type(-np.inf)
        for r in range(index.shape[1]):
            n = index[b, r]
            if n < 0 or n >= n_rows:
                continue
            logit = x.dtype.type(0)
            if len(query):
                for d in range(width):
                    logit += x[n, d] * query[b, d]
            weight[b, r] = logit
            highest = max(highest, logit)
        total = x.dtype.type(0)
        for r in range(index.shape[1]):
            n = index[b, r]
            if n < 0 or n >= n_rows:
                weight[b, r] = 0
            else:
                weight[b, r] = np.exp(weight[b, r] - highest)
                total += weight[b, r]
        for d in range(width):
            out[b, d] = 0
        for r in range(index.shape[1]):
            n = index[b, r]
            if n < 0 or n >= n_rows:
                continue
            if len(query):
                weight[b, r] /= total
            a = weight[b, r]
            for d in range(width):
                out[b, d] += a * x[n, d]


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def attend_back(
    x: Array, index: Array, query: Array, weight: Array, grad: Array, grad_x: Array, grad_query: Array
) -> None:
    """Adds to ``grad_x`` and ``grad_query`` what ``grad``, the gradient of ``attend``'s output, implies.

    With g = grad_b, a = weight_b and l_r = <x_r, q>: d l_r = a_r (<g, x_r> - sum_s a_s <g, x_s>).
    """
    width, n_rows = x.shape[1], len(x)
    slope = np.empty(index.shape[1], x.dtype)
    for b in range(len(index)):
        mean = x.dtype.type(0)
        if len(query):
            for r in range(index.shape[1]):
                n = index[b, r]
                if n < 0 or n >= n_rows:
                    continue
                inner_gx = x.dtype.type(0)
                for d in range(width):
                    inner_gx += grad[b, d] * x[n, d]
                slope[r] = inner_gx
                mean += weight[b, r] * inner_gx
        for r in range(index.shape[1]):
            n = index[b, r]
            if n < 0 or n >= n_rows:
                continue
            a = weight[b, r]
            if len(query):
                s = a * (slope[r] - mean)
                for d in range(width):
                    grad_query[b, d] += s * x[n, d]
                    grad_x[n, d] += a * grad[b, d] + s * query[b, d]
            else:
                for d in range(width):
                    grad_x[n, d] += a * grad[b, d]


@njit(nogil=True, cache=True)
def dice(x: Array, p: Array, alpha: Array, out: Array) -> None:
    """out = x (alpha + (1 - alpha) p); x, p and out (B, H), alpha (H,)."""
    one = x.dtype.type(1)
    for b in range(len(x)):
        for h in range(x.shape[1]):
            out[b, h] = x[b, h] * (alpha[h] + (one - alpha[h]) * p[b, h])


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def dice_back(
    x: Array, p: Array, mean: Array, scale: Array, alpha: Array, grad: Array, grad_x: Array, grad_alpha: Array
) -> None:
    """Gradients of y = x (alpha + (1 - alpha) p), p = sigmoid((x - mean) scale), mean and scale those of the batch.

    ``grad_x`` is written, ``grad_alpha`` added to. With q = dy/dp p (1 - p) and n = (x - mean) scale, what goes
    through p is scale (q - mean of q - n times the mean of q n).
    """
    n_rows, width = x.shape
    one = x.dtype.type(1)
    total, along = np.zeros(width, x.dtype), np.zeros(width, x.dtype)
    for b in range(n_rows):
        for h in range(width):
            gx, rest = grad[b, h] * x[b, h], one - p[b, h]
            grad_alpha[h] += gx * rest
            q = gx * (one - alpha[h]) * p[b, h] * rest
            grad_x[b, h] = q
            total[h] += q
            along[h] += q * (x[b, h] - mean[h])
    for h in range(width):
        total[h] /= n_rows
        along[h] *= scale[h] * scale[h] / n_rows
    for b in range(n_rows):
        for h in range(width):
            direct = grad[b, h] * (alpha[h] + (one - alpha[h]) * p[b, h])
            grad_x[b, h] = direct + scale[h] * (grad_x[b, h] - total[h] - (x[b, h] - mean[h]) * along[h])
