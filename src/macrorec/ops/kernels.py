"""Which loops over a sparse matrix run as machine code? Imported only when the first of them runs.

Every kernel owns the rows ``lo : hi`` of its output and adds in a fixed order, so results do not depend on the number
of threads. None holds the interpreter's lock; none checks bounds: callers do. An empty array is an absent argument.

Sums of gathered rows stay in registers, as far as the width is whole vectors, by loops in LLVM's own words: numba would
keep them in memory. The rows to come are asked for ahead of time. All this stands in one file, since numba's cache of
compiled loops sees changes of their own file only.

Neighbours without a gradient cost one look-up. Loops over d stand where a slice would read better: NumPy-style
assignment of a row costs a quarter of the whole product, and a row passed to a function is counted as a reference by
all threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

Array = npt.NDArray[Any]

VECTOR_BYTES = 64
"""Of one vector, and of a line of the cache; LLVM cuts vectors to what the processor has."""
AHEAD = 16
"""Entries between asking for a row and adding it."""


def _adder(n_vectors: int) -> Callable[..., None]:
    """A loop over entries that adds to ``n_vectors`` vectors of a row at once."""

    @intrinsic
    def add_entries(context, out, row, x, width, d, col, value, first, last):  # type: ignore[no-untyped-def]
        """out[row, d : d + w] += sum_e value_e x[col_e, d : d + w] for first <= e < last, in this order.

        w = n_vectors * VECTOR_BYTES / itemsize; ``out`` and ``x`` have rows of ``width`` and lie in C order.
        """
        signature = types.void(out, types.int64, x, types.int64, types.int64, col, value, types.int64, types.int64)
        return signature, _generate

    def _generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        real = context.get_data_type(kinds[2].dtype)
        itemsize = kinds[2].dtype.bitwidth // 8
        lanes = VECTOR_BYTES // itemsize
        vector, i32, i64 = ir.VectorType(real, lanes), ir.IntType(32), ir.IntType(64)
        row, width, d, first, last = (arguments[n] for n in (1, 3, 4, 7, 8))
        out, x, col, value = (context.make_array(kinds[n])(context, builder, arguments[n]).data for n in (0, 2, 5, 6))

        def place(array: Any, number: Any) -> Any:
            return builder.gep(array, [builder.add(builder.mul(number, width), d)])

        def part(start: Any, number: int) -> Any:
            return builder.bitcast(builder.gep(start, [i64(number * lanes)]), vector.as_pointer())

        def column(entry: Any) -> Any:
            return context.cast(builder, builder.load(builder.gep(col, [entry])), kinds[5].dtype, types.int64)

        prefetch_type = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, i32, i32, i32])
        insert: Any = cgutils.get_or_insert_function
        prefetch = insert(builder.module, prefetch_type, "llvm.prefetch.p0")
        goal = place(out, row)
        begin = [builder.load(part(goal, n), align=itemsize) for n in range(n_vectors)]
        before, head = builder.block, builder.append_basic_block("entries")
        body, after = builder.append_basic_block("entry"), builder.append_basic_block("stored")
        final = builder.sub(last, i64(1))
        builder.branch(head)

        builder.position_at_end(head)
        entry = builder.phi(i64)
        entry.add_incoming(first, before)
        sums = [builder.phi(vector) for _ in range(n_vectors)]
        for total, value_before in zip(sums, begin, strict=True):
            total.add_incoming(value_before, before)
        builder.cbranch(builder.icmp_signed("<", entry, last), body, after)

        builder.position_at_end(body)
        later = builder.add(entry, i64(AHEAD))
        later = builder.select(builder.icmp_signed("<", later, last), later, final)
        coming = place(x, column(later))
        for n in range(n_vectors):
            line = builder.bitcast(part(coming, n), cgutils.voidptr_t)
            builder.call(prefetch, [line, i32(0), i32(3), i32(1)])  # to be read, soon, as data
        loaded = builder.load(builder.gep(value, [entry]))
        number = context.cast(builder, loaded, kinds[6].dtype, kinds[2].dtype)
        factor = builder.insert_element(ir.Constant(vector, ir.Undefined), number, i32(0))
        spread = ir.Constant(ir.VectorType(i32, lanes), [0] * lanes)
        factor = builder.shuffle_vector(factor, ir.Constant(vector, ir.Undefined), spread)
        source = place(x, column(entry))
        following = builder.add(entry, i64(1))
        for n, total in enumerate(sums):
            term = builder.fmul(factor, builder.load(part(source, n), align=itemsize), flags=["contract"])
            total.add_incoming(builder.fadd(total, term, flags=["contract"]), body)
        entry.add_incoming(following, body)
        builder.branch(head)

        builder.position_at_end(after)
        for n, total in enumerate(sums):
            builder.store(total, part(goal, n), align=itemsize)
        return context.get_dummy_value()

    adder: Callable[..., None] = add_entries
    return adder


add_four = _adder(4)
"""Four vectors at once: 64 columns of float32, 32 of float64."""
add_two = _adder(2)
"""Two vectors: 32 columns of float32, 16 of float64."""
add_one = _adder(1)
"""One vector: 16 columns of float32, 8 of float64."""


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
        while d0 + 2 * lanes <= width:
            add_two(out, k, x, width, d0, col, value, first, last)
            d0 += 2 * lanes
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

    The entries that meet such a row are listed without a branch, which no processor could foresee, and then added. The
    matrix is square where ``add`` is given.
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
        at, y = place[r] if len(add) else -1, out[r]
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
        while d0 + 2 * lanes <= width:
            add_two(out, r, x, width, d0, met, factor, 0, n_met)
            d0 += 2 * lanes
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
