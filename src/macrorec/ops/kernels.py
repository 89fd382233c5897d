"""Which loops over a sparse matrix run as machine code? Imported only when the first of them runs.

Every kernel owns the rows ``lo : hi`` of its output and adds in a fixed order, so results do not depend on the number
of threads. None holds the interpreter's lock; none checks bounds: callers do. An empty array is an absent argument.

Sums of gathered rows stay in registers, as far as the width is whole vectors; neighbours without a gradient cost one
look-up. Loops over d stand where a slice would read better: NumPy-style assignment of a row costs a quarter of the
whole product, and a row passed to a function is counted as a reference by all threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from macrorec.ops.registers import VECTOR_BYTES, add_four, add_one

Array = npt.NDArray[Any]


@njit(nogil=True, cache=True)
def gather(
    start: Array,
    col: Array,
    value: Array,
    x: Array,
    rows: Array,
    add: Array,
    place: Array,
    out: Array,
    lo: int,
    hi: int,
) -> None:
    """out_k = add_r + sum_e value_e x[col_e] over the entries e of row r, r = rows_k or k.

    ``add`` has a row per row of the matrix; or, given ``place``, add_r is add[place_r], and nothing where place_r < 0.
    """
    width, lanes = x.shape[1], VECTOR_BYTES // x.itemsize
    for k in range(lo, hi):
        r = rows[k] if len(rows) else k
        at = place[r] if len(place) else r
        y = out[k]
        if len(add) and at >= 0:
            for d in range(width):
                y[d] = add[at, d]
        else:
            for d in range(width):
                y[d] = 0
        first, last = start[r], start[r + 1]
        d0 = 0
        while d0 + 4 * lanes <= width:
            add_four(out, k, x, width, d0, col, value, first, last)
            d0 += 4 * lanes
        while d0 + lanes <= width:
            add_one(out, k, x, width, d0, col, value, first, last)
            d0 += lanes
        if d0 < width:
            for e in range(first, last):
                n, v = col[e], value[e]
                for d in range(d0, width):
                    y[d] += v * x[n, d]


@njit(nogil=True, cache=True)
def gather_placed(
    start: Array, col: Array, value: Array, x: Array, add: Array, place: Array, out: Array, lo: int, hi: int
) -> None:
    """``gather`` where few rows n of the operands are not zero: x[place_n] and add[place_n], for place_n >= 0.

    The entries that meet such a row are listed without a branch, which no processor could foresee, and then added.
    """
    width, lanes = x.shape[1], VECTOR_BYTES // x.itemsize
    longest = 0
    for r in range(lo, hi):
        longest = max(longest, start[r + 1] - start[r])
    met, factor = np.empty(longest + 1, place.dtype), np.empty(longest + 1, value.dtype)
    for r in range(lo, hi):
        n_met = 0
        for e in range(start[r], start[r + 1]):
            at = place[col[e]]
            met[n_met] = at
            factor[n_met] = value[e]
            n_met += at >= 0
        at, y = place[r], out[r]
        if at >= 0:
            for d in range(width):
                y[d] = add[at, d]
        else:
            for d in range(width):
                y[d] = 0
        d0 = 0
        while d0 + 4 * lanes <= width:
            add_four(out, r, x, width, d0, met, factor, 0, n_met)
            d0 += 4 * lanes
        while d0 + lanes <= width:
            add_one(out, r, x, width, d0, met, factor, 0, n_met)
            d0 += lanes
        if d0 < width:
            for e in range(n_met):
                n, v = met[e], factor[e]
                for d in range(d0, width):
                    y[d] += v * x[n, d]


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
