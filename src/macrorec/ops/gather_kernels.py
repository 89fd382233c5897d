"""Which loops add up gathered rows of a table as machine code? Imported only when the first of them runs.

Every kernel owns the rows ``lo : hi`` of its output and adds in a fixed order, so results do not depend on the number
of threads. None holds the interpreter's lock; none checks bounds: callers do. An empty array is an absent argument.

Sums stay in registers, as far as the width is whole vectors, by loops in LLVM's own words: numba would keep them in
memory. With them go the inner products that the gradient of an entry's value is: one look-up serves both, and takes
less than half of the time. The rows to come are asked for ahead of time. All this stands in one file, since numba's
cache of compiled loops sees changes of their own file only.

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
Drop = tuple[int, int, int, float]
"""Two keys, the threshold below which a hash means to drop (0: nothing is dropped), and the factor of what stays."""

VECTOR_BYTES = 64
"""Of one vector, and of a line of the cache; LLVM cuts vectors to what the processor has."""
AHEAD = 16
"""Entries between asking for a row and using it."""


def _walker(n_vectors: int, *, inner: bool) -> Callable[..., None]:
    """A loop over entries that adds to ``n_vectors`` vectors of a row at once, with ``inner`` products beside it."""

    @intrinsic
    def walk(context, out, row, own, x, width, d, node, value, total, first, last):  # type: ignore[no-untyped-def]
        """out[row, d : d + w] += sum_f value_f x[node_f, d : d + w] for first <= f < last, in this order.

        With ``inner``, total_f += <own[row, d : d + w], x[node_f, d : d + w]>, too; without, ``own`` and ``total`` are
        not read. All rows are of ``width`` and lie in C order; w = n_vectors * VECTOR_BYTES / itemsize.
        """
        whole = types.int64
        return types.void(out, whole, own, x, whole, whole, node, value, total, whole, whole), _generate

    def _generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        real, itemsize = context.get_data_type(kinds[3].dtype), kinds[3].dtype.bitwidth // 8
        lanes = VECTOR_BYTES // itemsize
        vector, i32, i64 = ir.VectorType(real, lanes), ir.IntType(32), ir.IntType(64)
        row, width, d, first, last = (arguments[n] for n in (1, 4, 5, 9, 10))
        out, own, x, node, value, total = (
            context.make_array(kinds[n])(context, builder, arguments[n]).data for n in (0, 2, 3, 6, 7, 8)
        )

        def place(array: Any, number: Any) -> Any:
            return builder.gep(array, [builder.add(builder.mul(number, width), d)])

        def part(start: Any, number: int) -> Any:
            return builder.bitcast(builder.gep(start, [i64(number * lanes)]), vector.as_pointer())

        def other(entry: Any) -> Any:
            return context.cast(builder, builder.load(builder.gep(node, [entry])), kinds[6].dtype, types.int64)

        insert: Any = cgutils.get_or_insert_function
        prefetch_type = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, i32, i32, i32])
        prefetch = insert(builder.module, prefetch_type, "llvm.prefetch.p0")
        goal, mine = place(out, row), place(own, row)
        begin = [builder.load(part(goal, n), align=itemsize) for n in range(n_vectors)]
        own_n = [builder.load(part(mine, n), align=itemsize) for n in range(n_vectors)] if inner else []
        before, head = builder.block, builder.append_basic_block("entries")
        body, after = builder.append_basic_block("entry"), builder.append_basic_block("stored")
        final = builder.sub(last, i64(1))
        builder.branch(head)

        builder.position_at_end(head)
        entry = builder.phi(i64)
        entry.add_incoming(first, before)
        sums = [builder.phi(vector) for _ in range(n_vectors)]
        for added, value_before in zip(sums, begin, strict=True):
            added.add_incoming(value_before, before)
        builder.cbranch(builder.icmp_signed("<", entry, last), body, after)

        builder.position_at_end(body)
        later = builder.add(entry, i64(AHEAD))
        later = builder.select(builder.icmp_signed("<", later, last), later, final)
        coming = place(x, other(later))
        for n in range(n_vectors):
            line = builder.bitcast(part(coming, n), cgutils.voidptr_t)
            builder.call(prefetch, [line, i32(0), i32(3), i32(1)])  # to be read, soon, as data
        none = ir.Constant(vector, ir.Undefined)
        number = builder.load(builder.gep(value, [entry]))
        number = context.cast(builder, number, kinds[7].dtype, kinds[3].dtype)
        factor = builder.insert_element(none, number, i32(0))
        factor = builder.shuffle_vector(factor, none, ir.Constant(ir.VectorType(i32, lanes), [0] * lanes))
        source, following = place(x, other(entry)), builder.add(entry, i64(1))
        rows = [builder.load(part(source, n), align=itemsize) for n in range(n_vectors)]
        for added, loaded in zip(sums, rows, strict=True):
            term = builder.fmul(factor, loaded, flags=["contract"])
            added.add_incoming(builder.fadd(added, term, flags=["contract"]), body)
        if inner:
            along = ir.Constant(vector, [0.0] * lanes)
            for left, right in zip(own_n, rows, strict=True):
                along = builder.fadd(along, builder.fmul(left, right, flags=["contract"]), flags=["contract"])
            reduce_type = ir.FunctionType(real, [real, vector])
            reduce = insert(builder.module, reduce_type, f"llvm.vector.reduce.fadd.v{lanes}f{8 * itemsize}")
            slot = builder.gep(total, [entry])
            product = builder.call(reduce, [ir.Constant(real, 0.0), along], fastmath=["reassoc"])
            builder.store(builder.fadd(builder.load(slot), product), slot)
        entry.add_incoming(following, body)
        builder.branch(head)

        builder.position_at_end(after)
        for n, added in enumerate(sums):
            builder.store(added, part(goal, n), align=itemsize)
        return context.get_dummy_value()

    walker: Callable[..., None] = walk
    return walker


add_four, add_two, add_one = (_walker(n, inner=False) for n in (4, 2, 1))
"""Four vectors at once, which are 64 columns of float32 or 32 of float64, or two, or one; only the sums."""
meet_two, meet_one = (_walker(n, inner=True) for n in (2, 1))
"""The same, and the inner products."""


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
            add_four(out, k, x, x, width, d0, col, value, value, first, last)
            d0 += 4 * lanes
        while d0 + 2 * lanes <= width:
            add_two(out, k, x, x, width, d0, col, value, value, first, last)
            d0 += 2 * lanes
        while d0 + lanes <= width:
            add_one(out, k, x, x, width, d0, col, value, value, first, last)
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
            add_four(out, r, x, x, width, d0, met, factor, factor, 0, n_met)
            d0 += 4 * lanes
        while d0 + 2 * lanes <= width:
            add_two(out, r, x, x, width, d0, met, factor, factor, 0, n_met)
            d0 += 2 * lanes
        while d0 + lanes <= width:
            add_one(out, r, x, x, width, d0, met, factor, factor, 0, n_met)
            d0 += lanes
        if d0 < width:
            for e in range(n_met):
                n, v = met[e], factor[e]
                for d in range(d0, width):
                    y[d] += v * x[n, d]


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def spread(
    start: Array,
    node: Array,
    value: Array,
    own: Array,
    x: Array,
    rows: Array,
    drop: Drop,
    out: Array,
    lo: int,
    hi: int,
) -> None:
    """out_k = own_r x_r + sum_f value_f x[node_f] over the entries f of r, r = rows_k or k; then dropout."""
    width, lanes = x.shape[1], VECTOR_BYTES // x.itemsize
    for k in range(lo, hi):
        r = rows[k] if len(rows) else k
        for d in range(width):
            out[k, d] = own[r] * x[r, d]
        first, last, d0 = start[r], start[r + 1], 0
        while d0 + 2 * lanes <= width:
            add_two(out, k, x, x, width, d0, node, value, value, first, last)
            d0 += 2 * lanes
        while d0 + lanes <= width:
            add_one(out, k, x, x, width, d0, node, value, value, first, last)
            d0 += lanes
        if d0 < width:
            for f in range(first, last):
                n, v = node[f], value[f]
                for d in range(d0, width):
                    out[k, d] += v * x[n, d]
        if drop[2]:
            for d in range(width):
                out[k, d] = out[k, d] * x.dtype.type(drop[3]) if kept(r * width + d, drop) else 0


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def spread_back(
    start: Array,
    node: Array,
    value: Array,
    own: Array,
    x: Array,
    grad: Array,
    add: Array,
    place: Array,
    drop: Drop,
    out: Array,
    grad_value: Array,
    grad_own: Array,
    lo: int,
    hi: int,
) -> None:
    """Of y = own x + value x by entry: the gradient of x, from ``grad`` of y; adds to those of ``value`` and ``own``.

    The graph is symmetric: out_r = own_r grad_r + sum_f value_f grad[node_f] + add[place_r], the last where
    place_r >= 0; then dropout of x. To grad_value_f comes <x_r, grad[node_f]>, to grad_own_r <x_r, grad_r>.
    """
    width, lanes = x.shape[1], VECTOR_BYTES // x.itemsize
    for r in range(lo, hi):
        at = place[r] if len(add) else -1
        total = x.dtype.type(0)
        for d in range(width):
            out[r, d] = own[r] * grad[r, d]
            total += x[r, d] * grad[r, d]
        grad_own[r] += total
        first, last, d0 = start[r], start[r + 1], 0
        while d0 + 2 * lanes <= width:
            meet_two(out, r, x, grad, width, d0, node, value, grad_value, first, last)
            d0 += 2 * lanes
        while d0 + lanes <= width:
            meet_one(out, r, x, grad, width, d0, node, value, grad_value, first, last)
            d0 += lanes
        if d0 < width:
            for f in range(first, last):
                n, v = node[f], value[f]
                total = x.dtype.type(0)
                for d in range(d0, width):
                    out[r, d] += v * grad[n, d]
                    total += x[r, d] * grad[n, d]
                grad_value[f] += total
        if at >= 0:
            for d in range(width):
                out[r, d] += add[at, d]
        if drop[2]:
            for d in range(width):
                out[r, d] = out[r, d] * x.dtype.type(drop[3]) if kept(r * width + d, drop) else 0


@njit(nogil=True, cache=True)
def drop_rows(x: Array, rows: Array, drop: Drop) -> None:
    """x_k <- x_k after dropout, x_k the row rows_k of a table."""
    for k in range(len(rows)):
        for d in range(x.shape[1]):
            x[k, d] = x[k, d] * x.dtype.type(drop[3]) if kept(rows[k] * x.shape[1] + d, drop) else 0


@njit(nogil=True, cache=True)
def kept(entry: int, drop: Drop) -> bool:
    """Whether the entry stays by its hash: MurmurHash3's finaliser, twice, with a key before each."""
    h = np.uint32(entry)
    for key in drop[:2]:
        h = np.uint32(h ^ np.uint32(key))
        h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
        h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
        h = np.uint32(h ^ (h >> np.uint32(16)))
    return bool(h >= np.uint32(drop[2]))
