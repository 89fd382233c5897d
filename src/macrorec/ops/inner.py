"""What is the inner product of the two vectors of each stored pair? Sampled from a product that is never formed.

Shape letters: M rows and N columns of the matrix, E stored entries, D embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from macrorec.ops.gather import compiled, inner
from macrorec.ops.spmm import SparseMatrix, product

_AT_ONCE = 1 << 16
"""Pairs whose vectors are held at once where no kernel applies."""


def inner_products(matrix: SparseMatrix, left_MD: Tensor, right_ND: Tensor) -> Tensor:
    """<left_m, right_n> for each entry (m, n) of ``matrix``, shape (E,), by row, then column.

    Differentiable in both. No array (E, D) is written; on the CPU the bits are the same for any number of threads.
    """
    inner_E: Tensor = _InnerProducts.apply(matrix, left_MD, right_ND)  # type: ignore[no-untyped-call]
    return inner_E


class _InnerProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: SparseMatrix, left_MD: Tensor, right_ND: Tensor) -> Tensor:
        assert matrix.shape == (len(left_MD), len(right_ND)), (matrix.shape, left_MD.shape, right_ND.shape)
        ctx.matrix = matrix
        ctx.save_for_backward(left_MD, right_ND)
        if compiled(left_MD):
            return inner(matrix.side(transpose=False), left_MD, right_ND)
        row_E = torch.arange(matrix.shape[0], device=left_MD.device).repeat_interleave(matrix.start_M.diff())
        blocks = zip(torch.split(row_E, _AT_ONCE), torch.split(matrix.col_E, _AT_ONCE), strict=True)
        return torch.cat([(left_MD[row] * right_ND[col]).sum(1) for row, col in blocks])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_E: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        left_MD, right_ND = ctx.saved_tensors
        grad_left = grad_right = None
        if ctx.needs_input_grad[1]:
            grad_left = product(ctx.matrix.side(transpose=False, weight_E=grad_E), right_ND)
        if ctx.needs_input_grad[2]:
            grad_right = product(ctx.matrix.side(transpose=True, weight_E=grad_E), left_MD)
        return None, grad_left, grad_right
