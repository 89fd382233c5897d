"""How do impressions look up rows of a table, one each or many at once? Numbers outside the table mean: no row.

On the CPU, compiled loops: torch's gradient of a look-up costs more there than all else in a step of a ranker.

Shape letters: B impressions, R neighbours of each, N rows of the table, D embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from macrorec.ops.gather import compiled


def rows_or_zero(table_ND: Tensor, number_B: Tensor) -> Tensor:
    """Row number_b of the table, and zero for a number outside it, shape (B, D)."""
    if compiled(table_ND):
        row_BD: Tensor = _Rows.apply(table_ND, number_B)  # type: ignore[no-untyped-call]
        return row_BD
    inside_B = inside(number_B, len(table_ND))
    return table_ND[number_B * inside_B] * inside_B[:, None]


def attend(table_ND: Tensor, number_BR: Tensor, query_BD: Tensor | None) -> Tensor:
    """sum_r a_br E_r over the rows E_r of number_br, a_b = softmax_r <E_r, q_b>, shape (B, D).

    Without queries every a_br is 1. Numbers outside the table take no part; where all are, the sum is zero.
    """
    if compiled(table_ND):
        sum_BD: Tensor = _Attend.apply(table_ND, number_BR, query_BD)  # type: ignore[no-untyped-call]
        return sum_BD
    row_BRD = table_ND[number_BR * inside(number_BR, len(table_ND))]
    return torch.einsum("br,brd->bd", attention(table_ND, number_BR, query_BD), row_BRD)


def attention(table_ND: Tensor, number_BR: Tensor, query_BD: Tensor | None) -> Tensor:
    """The a_br of ``attend``, shape (B, R); 0 where there is no row."""
    inside_BR = inside(number_BR, len(table_ND))
    if query_BD is None:
        return inside_BR.to(table_ND.dtype)
    logit_BR = torch.einsum("brd,bd->br", table_ND[number_BR * inside_BR], query_BD)
    return masked_softmax(logit_BR, inside_BR)


def masked_softmax(logit_BK: Tensor, keep_BK: Tensor) -> Tensor:
    """Softmax over those k to keep; the others get 0, and so does a row with none to keep."""
    lowest = torch.finfo(logit_BK.dtype).min
    return logit_BK.masked_fill(~keep_BK, lowest).softmax(-1) * keep_BK


def inside(number: Tensor, size: int) -> Tensor:
    """Which numbers are rows of a table of ``size`` rows."""
    return (number >= 0) & (number < size)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table_ND: Tensor, number_B: Tensor) -> Tensor:
        from macrorec.ops import kernels

        number_B = number_B.contiguous()
        ctx.save_for_backward(number_B)
        ctx.size = len(table_ND)
        out_BD = table_ND.new_empty(len(number_B), table_ND.shape[1])
        kernels.take_rows_or_zero(number_B.numpy(), table_ND.detach().numpy(), out_BD.numpy())
        return out_BD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BD: Tensor) -> tuple[Tensor, None]:
        from macrorec.ops import kernels

        (number_B,) = ctx.saved_tensors
        grad_ND = grad_BD.new_zeros(ctx.size, grad_BD.shape[1])
        kernels.add_rows_inside(number_B.numpy(), grad_BD.contiguous().numpy(), grad_ND.numpy())
        return grad_ND, None


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table_ND: Tensor, number_BR: Tensor, query_BD: Tensor | None) -> Tensor:
        from macrorec.ops import kernels

        number_BR = number_BR.contiguous()
        query = table_ND.new_empty(0, table_ND.shape[1]) if query_BD is None else query_BD.detach().contiguous()
        weight_BR = table_ND.new_empty(number_BR.shape)
        out_BD = table_ND.new_empty(len(number_BR), table_ND.shape[1])
        arrays = (table_ND.detach(), number_BR, query, weight_BR, out_BD)
        kernels.attend(*(array.numpy() for array in arrays))
        ctx.save_for_backward(table_ND, number_BR, query, weight_BR)
        return out_BD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BD: Tensor) -> tuple[Tensor, None, Tensor | None]:
        from macrorec.ops import kernels

        table_ND, number_BR, query, weight_BR = ctx.saved_tensors
        grad_ND, grad_query = torch.zeros_like(table_ND), torch.zeros_like(query)
        arrays = (table_ND.detach(), number_BR, query, weight_BR, grad_BD.contiguous(), grad_ND, grad_query)
        kernels.attend_back(*(array.numpy() for array in arrays))
        return grad_ND, None, grad_query if len(query) else None
