"""How does a sparse matrix multiply a dense one, forward and backward, without being transposed again?

Shape letters: M rows and N columns of the matrix, E stored entries, D embedding, K chosen rows.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from macrorec.ops.gather import Side, compiled, gather, gather_placed, inner


class SparseMatrix(nn.Module):
    """A constant sparse matrix (M, N) with E stored entries, kept by rows and by columns.

    Entries are numbered by row, then column. All tensors are non-persistent buffers: they move with ``.to(device)`` and
    are not saved. A symmetric matrix keeps one side only.
    """

    shape: tuple[int, int]
    start_M: Tensor
    """Row pointers, int64, shape (M + 1,): the entries of row m are start_M[m] : start_M[m + 1]."""
    col_E: Tensor
    """Column of each entry, int32, ascending within its row."""
    value_E: Tensor
    """Value of each entry."""
    order_E: Tensor
    """The entries by column, then row: their numbers, int32."""
    start_N: Tensor
    """Column pointers, as ``start_M``; this and the next two are None where the matrix is symmetric."""
    row_by_col_E: Tensor
    value_by_col_E: Tensor

    def __init__(self, row_E: Tensor, col_E: Tensor, value_E: Tensor, shape: tuple[int, int]) -> None:
        """The matrix with the entries (row_E, col_E, value_E), in any order. Entries of one place add up."""
        super().__init__()
        self.shape = shape
        for place_E, size in ((row_E, shape[0]), (col_E, shape[1])):
            assert not len(place_E) or (place_E.min() >= 0 and place_E.max() < size), "entries lie inside the matrix"
        by_row = torch.argsort(row_E.long() * shape[1] + col_E.long(), stable=True)
        row_E, col_E, value_E = row_E[by_row].int(), col_E[by_row].int(), value_E[by_row]
        order_E = torch.argsort(col_E, stable=True)
        by_row_side = (_pointers(row_E, shape[0]), col_E, value_E)
        by_col_side = (_pointers(col_E, shape[1]), row_E[order_E], value_E[order_E])
        self.symmetric = all(torch.equal(a, b) for a, b in zip(by_row_side, by_col_side, strict=True))
        for name, tensor in zip(("start_M", "col_E", "value_E"), by_row_side, strict=True):
            self.register_buffer(name, tensor, persistent=False)
        for name, tensor in zip(("start_N", "row_by_col_E", "value_by_col_E"), by_col_side, strict=True):
            self.register_buffer(name, None if self.symmetric else tensor, persistent=False)
        self.register_buffer("order_E", order_E.int(), persistent=False)

    def __len__(self) -> int:
        """Stored entries, E."""
        return len(self.value_E)

    def side(self, *, transpose: bool, weight_E: Tensor | None = None) -> Side:
        """CSR form of the matrix or of its transpose: pointers, indices, and values, or weights in their place."""
        if not transpose:
            return self.start_M, self.col_E, self.value_E if weight_E is None else weight_E
        if self.symmetric:
            start, index, value = self.start_M, self.col_E, self.value_E
        else:
            start, index, value = self.start_N, self.row_by_col_E, self.value_by_col_E
        return start, index, value if weight_E is None else weight_E[self.order_E]


def spmm(matrix: SparseMatrix, x_ND: Tensor, weight_E: Tensor | None = None, *, transpose: bool = False) -> Tensor:
    """y_m = sum_n A[m, n] x_n, shape (M, D), differentiable in ``x_ND`` and in ``weight_E``.

    ``weight_E`` (E,), in the order of entries (by row, then column), takes the place of the stored values.
    ``transpose`` multiplies by the transpose, (M, D) to (N, D), with weights in the same order of entries.
    The same result to the bit run after run and for any number of threads on the CPU.
    """
    y_MD: Tensor = _Product.apply(matrix, x_ND, weight_E, transpose)  # type: ignore[no-untyped-call]
    return y_MD


def spmm_rows(matrix: SparseMatrix, x_ND: Tensor, rows_K: Tensor, *, transpose: bool = False) -> Tensor:
    """The rows ``rows_K``, distinct, of ``spmm``, shape (K, D): what a batch needs of a last layer.

    Costs what the entries of these rows cost; the gradient meets no others.
    """
    if not compiled(x_ND):
        return spmm(matrix, x_ND, transpose=transpose)[rows_K]
    y_KD: Tensor = _ProductRows.apply(matrix, x_ND, rows_K, transpose)  # type: ignore[no-untyped-call]
    return y_KD


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: SparseMatrix, x_ND: Tensor, weight_E: Tensor | None, transpose: bool) -> Tensor:
        assert x_ND.shape[0] == matrix.shape[0 if transpose else 1], (x_ND.shape, matrix.shape, transpose)
        assert weight_E is None or weight_E.shape == matrix.value_E.shape, "one weight per entry"
        ctx.matrix, ctx.transpose = matrix, transpose
        ctx.save_for_backward(x_ND if ctx.needs_input_grad[2] else None, weight_E)
        return product(matrix.side(transpose=transpose, weight_E=weight_E), x_ND)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None, None]:
        x_ND, weight_E = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_x = product(ctx.matrix.side(transpose=not ctx.transpose, weight_E=weight_E), grad)
        if ctx.needs_input_grad[2]:
            grad_weight = inner_product(
                ctx.matrix.side(transpose=False), *((x_ND, grad) if ctx.transpose else (grad, x_ND))
            )
        return None, grad_x, grad_weight, None


class _ProductRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: SparseMatrix, x_ND: Tensor, rows_K: Tensor, transpose: bool) -> Tensor:
        assert x_ND.shape[0] == matrix.shape[0 if transpose else 1], (x_ND.shape, matrix.shape, transpose)
        ctx.matrix, ctx.rows_K, ctx.transpose = matrix, rows_K, transpose
        return gather(matrix.side(transpose=transpose), x_ND, rows_B=rows_K)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_KD: Tensor) -> tuple[None, Tensor, None, None]:
        place_M = torch.full((ctx.matrix.shape[1 if ctx.transpose else 0],), -1, dtype=torch.int32)
        place_M[ctx.rows_K] = torch.arange(len(ctx.rows_K), dtype=torch.int32)
        return None, gather_placed(ctx.matrix.side(transpose=not ctx.transpose), grad_KD, None, place_M), None, None


def product(side: Side, x_ND: Tensor, add_MD: Tensor | None = None) -> Tensor:
    """add_m + sum_n A[m, n] x_n, shape (M, D), A in CSR form; outside autograd."""
    if compiled(x_ND):
        return gather(side, x_ND, add_MD=add_MD)
    start_M, col_E, value_E = side
    with warnings.catch_warnings():  # torch calls its CSR layout beta, once per process
        warnings.simplefilter("ignore", UserWarning)
        csr = torch.sparse_csr_tensor(
            start_M.int(), col_E, value_E.to(x_ND.dtype), size=(len(start_M) - 1, len(x_ND)), check_invariants=False
        )
    return csr @ x_ND if add_MD is None else torch.addmm(add_MD, csr, x_ND)


def inner_product(side: Side, left_MD: Tensor, right_ND: Tensor) -> Tensor:
    """<left_m, right_n> for each entry (m, n) of a matrix in CSR form, shape (E,), without an array (E, D)."""
    if compiled(left_MD):
        return inner(side, left_MD, right_ND)
    start_M, col_E, _ = side
    row_E = torch.arange(len(start_M) - 1, device=col_E.device).repeat_interleave(start_M.diff())
    inner_E, block = left_MD.new_empty(len(col_E)), 1 << 16
    for at in range(0, len(col_E), block):
        here = slice(at, at + block)
        inner_E[here] = (left_MD[row_E[here]] * right_ND[col_E[here]]).sum(1)
    return inner_E


def _pointers(place_E: Tensor, n: int) -> Tensor:
    start = torch.zeros(n + 1, dtype=torch.int64, device=place_E.device)
    torch.cumsum(torch.bincount(place_E, minlength=n), 0, out=start[1:])
    return start
