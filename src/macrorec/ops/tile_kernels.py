"""How do small dense products stay in registers, and how do threads share a step? In LLVM's own words.

Matrices lie in flat arrays of float32, rows padded with zeros to whole vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LANES = 16
"""Numbers of a vector of float32; LLVM cuts it to what the processor has."""
CLOSED = 1 << 40
"""What the first counter holds while no thread may take part."""


def _adder(n_rows: int, n_vectors: int) -> Callable[..., None]:
    """A loop over k that keeps ``n_rows`` times ``n_vectors`` vectors in registers."""

    @intrinsic
    def add_products(context, out, o0, ldo, a, a0, sa, sk, b, b0, ldb, n):  # type: ignore[no-untyped-def]
        """out[r, :] += sum_k a[r, k] b[k, :], in the order of k; a[r, k] stands at a0 + r sa + k sk."""
        return types.void(out, *[types.int64] * 2, a, *[types.int64] * 3, b, *[types.int64] * 3), _generate

    def _generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        o0, ldo, a0, sa, sk, b0, ldb, n = (arguments[k] for k in (1, 2, 4, 5, 6, 8, 9, 10))
        out, a, b = (context.make_array(kinds[k])(context, builder, arguments[k]).data for k in (0, 3, 7))
        real, i32, i64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
        vector, spread = ir.VectorType(real, LANES), ir.Constant(ir.VectorType(i32, LANES), [0] * LANES)

        def part(base: Any, at: Any, number: int) -> Any:
            return builder.bitcast(builder.gep(base, [builder.add(at, i64(number * LANES))]), vector.as_pointer())

        goals = [builder.add(o0, builder.mul(i64(r), ldo)) for r in range(n_rows)]
        begin = [builder.load(part(out, goal, v), align=4) for goal in goals for v in range(n_vectors)]
        before, head = builder.block, builder.append_basic_block("terms")
        body, after = builder.append_basic_block("term"), builder.append_basic_block("stored")
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(i64)
        k.add_incoming(i64(0), before)
        sums = [builder.phi(vector) for _ in begin]
        for total, start in zip(sums, begin, strict=True):
            total.add_incoming(start, before)
        builder.cbranch(builder.icmp_signed("<", k, n), body, after)
        builder.position_at_end(body)
        source = builder.add(b0, builder.mul(k, ldb))
        rows = [builder.load(part(b, source, v), align=4) for v in range(n_vectors)]
        column = builder.add(a0, builder.mul(k, sk))
        for r in range(n_rows):
            number = builder.load(builder.gep(a, [builder.add(column, builder.mul(i64(r), sa))]))
            factor = builder.insert_element(ir.Constant(vector, ir.Undefined), number, i32(0))
            factor = builder.shuffle_vector(factor, ir.Constant(vector, ir.Undefined), spread)
            for v, row in enumerate(rows):
                total = sums[r * n_vectors + v]
                product = builder.fmul(factor, row, flags=["contract"])
                total.add_incoming(builder.fadd(total, product, flags=["contract"]), body)
        k.add_incoming(builder.add(k, i64(1)), body)
        builder.branch(head)
        builder.position_at_end(after)
        for number, total in enumerate(sums):
            builder.store(total, part(out, goals[number // n_vectors], number % n_vectors), align=4)
        return context.get_dummy_value()

    adder: Callable[..., None] = add_products
    return adder


add_4_2, add_4_1, add_1_2, add_1_1 = (_adder(*shape) for shape in ((4, 2), (4, 1), (1, 2), (1, 1)))


@intrinsic
def _fetch_add(context, counters, place, more):  # type: ignore[no-untyped-def]
    """counters[place] += more, at once for all threads; the value before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [arguments[1]]), arguments[2], "seq_cst")

    return types.int64(counters, types.int64, types.int64), generate


@intrinsic
def _read(context, counters, place):  # type: ignore[no-untyped-def]
    """counters[place], as other threads have left it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(builder.gep(data, [arguments[1]]), "seq_cst", 8)

    return types.int64(counters, types.int64), generate


@intrinsic
def _exchange(context, counters, place, value):  # type: ignore[no-untyped-def]
    """counters[place] = value, at once for all threads; the value before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("xchg", builder.gep(data, [arguments[1]]), arguments[2], "seq_cst")

    return types.int64(counters, types.int64, types.int64), generate


fetch_add: Any = _fetch_add
exchange: Any = _exchange
read: Any = _read
yield_now = types.ExternalFunction("sched_yield", types.int32())
"""Let another thread run, where there are more threads than processors."""


@njit(nogil=True, cache=True)
def add(out, o0, ldo, n_rows, n_columns, a, a0, sa, sk, b, b0, ldb, n):  # type: ignore[no-untyped-def]
    """out[r, :] += sum_k a[r, k] b[k, :] for n_rows rows of n_columns, whole vectors."""
    for j in range(0, n_columns, 2 * LANES):
        two = j + 2 * LANES <= n_columns
        r = 0
        while r + 4 <= n_rows:
            if two:
                add_4_2(out, o0 + r * ldo + j, ldo, a, a0 + r * sa, sa, sk, b, b0 + j, ldb, n)
            else:
                add_4_1(out, o0 + r * ldo + j, ldo, a, a0 + r * sa, sa, sk, b, b0 + j, ldb, n)
            r += 4
        while r < n_rows:
            if two:
                add_1_2(out, o0 + r * ldo + j, ldo, a, a0 + r * sa, sa, sk, b, b0 + j, ldb, n)
            else:
                add_1_1(out, o0 + r * ldo + j, ldo, a, a0 + r * sa, sa, sk, b, b0 + j, ldb, n)
            r += 1


@njit(nogil=True, cache=True)
def enter(counters):  # type: ignore[no-untyped-def]
    """Let threads in: all that they read is in place."""
    counters[1:] = 0
    exchange(counters, 0, 0)


@njit(nogil=True, cache=True)
def leave(counters):  # type: ignore[no-untyped-def]
    """Let nobody in any more, and wait until all are out."""
    entered = fetch_add(counters, 0, CLOSED)
    while read(counters, 56) < entered:
        yield_now()
