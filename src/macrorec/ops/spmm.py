"""How does a sparse matrix multiply a dense one, forward and backward, without being transposed again?"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn


class SparseMatrix(nn.Module):
    """A constant sparse matrix (M, N) with E stored entries, kept by rows and by columns.

    Entries are numbered by row, then column; ``order_E`` gives the entry number of each entry in column order.
    All tensors are non-persistent buffers: they move with ``.to(device)`` and are not saved.
    """

    start_M: Tensor
    """Row pointers, int64, shape (M + 1,): the entries of row m are start_M[m] : start_M[m + 1]."""
    col_E: Tensor
    """Column of each entry, int32, ascending within its row."""
    value_E: Tensor
    """Value of each entry, float32 or float64."""
    start_N: Tensor
    row_E: Tensor
    order_E: Tensor
    value_by_col_E: Tensor

    def __init__(self, row_E: Tensor, col_E: Tensor, value_E: Tensor, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape
        by_row = torch.argsort(row_E.long() * shape[1] + col_E.long(), stable=True)
        row_E, col_E, value_E = row_E[by_row].long(), col_E[by_row].long(), value_E[by_row]
        order_E = torch.argsort(col_E, stable=True)
        self.register_buffer("start_M", _pointers(row_E, shape[0]), persistent=False)
        self.register_buffer("col_E", col_E.int(), persistent=False)
        self.register_buffer("value_E", value_E, persistent=False)
        self.register_buffer("start_N", _pointers(col_E, shape[1]), persistent=False)
        self.register_buffer("row_E", row_E[order_E].int(), persistent=False)
        self.register_buffer("order_E", order_E.int(), persistent=False)
        self.register_buffer("value_by_col_E", value_E[order_E], persistent=False)

    @property
    def n_entries(self) -> int:
        """Stored entries, E."""
        return len(self.value_E)

    def rows(self) -> Tensor:
        """Row of each entry in row order, int64, shape (E,)."""
        return torch.arange(self.shape[0], device=self.start_M.device).repeat_interleave(self.start_M.diff())


def spmm(matrix: SparseMatrix, x_ND: Tensor, weight_E: Tensor | None = None, *, transpose: bool = False) -> Tensor:
    """y_m = sum_n A[m, n] x_n, shape (M, D), differentiable in ``x_ND`` and in ``weight_E``.

    ``weight_E`` (E,), in the order of entries (by row, then column), takes the place of the stored values.
    ``transpose`` multiplies by the transpose, (M, D) to (N, D), with weights in the same order of entries.
    """
    y_MD: Tensor = _Product.apply(matrix, x_ND, weight_E, transpose)  # type: ignore[no-untyped-call]
    return y_MD


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: SparseMatrix, x_ND: Tensor, weight_E: Tensor | None, transpose: bool) -> Tensor:
        ctx.matrix, ctx.transpose = matrix, transpose
        wants_weight = weight_E is not None and ctx.needs_input_grad[2]
        ctx.save_for_backward(x_ND if wants_weight else None, weight_E)
        return _multiply(matrix, x_ND, weight_E, transpose)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, Tensor | None, None]:
        matrix, transpose, grad_MD = ctx.matrix, ctx.transpose, grads[0]
        x_ND, weight_E = ctx.saved_tensors
        grad_x = _multiply(matrix, grad_MD, weight_E, not transpose) if ctx.needs_input_grad[1] else None
        if x_ND is None:
            return None, grad_x, None, None
        left, right = (x_ND, grad_MD) if transpose else (grad_MD, x_ND)
        return None, grad_x, _inner(matrix, left, right), None


def _multiply(matrix: SparseMatrix, x: Tensor, weight_E: Tensor | None, transpose: bool) -> Tensor:
    if transpose:
        start, index, shape = matrix.start_N, matrix.row_E, matrix.shape[::-1]
        value = matrix.value_by_col_E if weight_E is None else weight_E[matrix.order_E]
    else:
        start, index, shape = matrix.start_M, matrix.col_E, matrix.shape
        value = matrix.value_E if weight_E is None else weight_E
    with warnings.catch_warnings():  # torch calls its CSR layout beta, once per process
        warnings.simplefilter("ignore", UserWarning)
        csr = torch.sparse_csr_tensor(start.int(), index, value.to(x.dtype), size=shape, check_invariants=False)
    return csr @ x.contiguous()


def _inner(matrix: SparseMatrix, left_MD: Tensor, right_ND: Tensor) -> Tensor:
    """<left_m, right_n> for each entry (m, n), shape (E,), in blocks so that no (E, D) array is written."""
    row_E, col_E, block = matrix.rows(), matrix.col_E, 1 << 16
    parts = [
        (left_MD[row_E[at : at + block]] * right_ND[col_E[at : at + block]]).sum(1)
        for at in range(0, matrix.n_entries, block)
    ]
    return torch.cat(parts) if parts else left_MD.new_zeros(0)


def _pointers(sorted_E: Tensor, n: int) -> Tensor:
    start = torch.zeros(n + 1, dtype=torch.int64, device=sorted_E.device)
    torch.cumsum(torch.bincount(sorted_E, minlength=n), 0, out=start[1:])
    return start
