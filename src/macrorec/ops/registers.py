"""How does a sum of gathered rows stay in registers? Loops in LLVM's own words, for what numba does not find by itself.

numba keeps a row of sums in memory and adds to it; told in vectors, the sums stay in registers from the first entry to
the last, and the rows to come are asked for ahead of time, which hides half of the wait for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

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
add_one = _adder(1)
"""One vector: 16 columns of float32, 8 of float64."""
