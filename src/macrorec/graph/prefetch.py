"""How does a compiled loop ask for memory that it will need soon? Far rows come at once then, not one after the other.

A look at each of some hundred rows that lie anywhere in a large table waits some hundred times for memory, a tenth of a
microsecond each; asked for beforehand, a dozen are under way together.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


def _prefetch(typing_context: Any, array: Any, row: Any, column: Any) -> Any:
    """Fetch the cache line of array[row, column], of two dimensions; of one, ``column`` is passed over."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        place = [
            context.cast(builder, value, one, types.intp)
            for value, one in zip(arguments[1:], signature.args[1:], strict=True)
        ]
        view = context.make_array(kind)(context, builder, arguments[0])
        tools: Any = cgutils
        pointer = tools.get_item_pointer(context, builder, kind, view, place[: kind.ndim], wraparound=False)
        whole, byte = ir.IntType(32), cgutils.voidptr_t
        call = tools.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole]), "llvm.prefetch.p0"
        )
        builder.call(call, [builder.bitcast(pointer, byte), *(ir.Constant(whole, n) for n in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, row, column), generate


prefetch: Any = intrinsic(_prefetch)
"""In compiled loops only."""
