"""How do the kernels run? On NumPy views of CPU tensors, over blocks of rows.

Shape letters: M rows and N columns of the matrix, D embedding, B chosen rows, K rows that are not zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from macrorec.ops.threads import in_blocks
from macrorec.ops.threads import pool as pool

Side = tuple[Tensor, Tensor, Tensor]
"""A matrix in CSR form: row pointers int64 (M + 1,), column numbers int32 (E,), values (E,)."""


def compiled(x: Tensor) -> bool:
    """Whether the kernels apply: float32 or float64 on the CPU."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def gather(
    side: Side,
    x_ND: Tensor,
    *,
    rows_B: Tensor | None = None,
    add_MD: Tensor | None = None,
    place_M: Tensor | None = None,
) -> Tensor:
    """add_m + sum_n A[m, n] x_n, shape (M, D), or only its rows ``rows_B``, shape (B, D).

    With ``place_M`` (int32), ``add_MD`` holds few rows: add_m is add_MD[place_M[m]], and zero where place_M[m] < 0.
    """
    from macrorec.ops import gather_kernels as kernels

    start, col, value, x = map(view, (*side, x_ND))
    rows = np.empty(0, np.int64) if rows_B is None else view(rows_B)
    add = x[:0] if add_MD is None else view(add_MD)
    place = np.empty(0, np.int32) if place_M is None else view(place_M)
    if rows_B is None:
        cost = start
    else:
        cost = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(start[rows + 1] - start[rows], out=cost[1:])
    out = np.empty((len(cost) - 1, x.shape[1]), x.dtype)  # NumPy asks for huge pages, torch does not
    in_blocks(lambda lo, hi: kernels.gather(start, col, value, x, rows, add, place, out, lo, hi), cost, x.shape[1])
    return torch.from_numpy(out)


def gather_placed(side: Side, x_KD: Tensor, add_KD: Tensor | None, place_N: Tensor) -> Tensor:
    """``gather`` of operands that are zero outside K rows: row n of each is x_KD[place_N[n]] or, if negative, zero.

    ``add_KD`` is for square matrices only.
    """
    from macrorec.ops import gather_kernels as kernels

    start, col, value, x, place = map(view, (*side, x_KD, place_N))
    add = x[:0] if add_KD is None else view(add_KD)
    out = np.empty((len(start) - 1, x.shape[1]), x.dtype)
    in_blocks(lambda lo, hi: kernels.gather_placed(start, col, value, x, add, place, out, lo, hi), start, x.shape[1])
    return torch.from_numpy(out)


def inner(side: Side, left_MD: Tensor, right_ND: Tensor) -> Tensor:
    """<left_m, right_n> for each stored entry (m, n), shape (E,), without an array (E, D)."""
    from macrorec.ops import kernels

    start, col, left, right = map(view, (*side[:2], left_MD, right_ND))
    out = np.empty(len(col), left.dtype)
    in_blocks(lambda lo, hi: kernels.inner(start, col, left, right, out, lo, hi), start, left.shape[1])
    return torch.from_numpy(out)


def distinct(rows_B: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct rows (K,), the place of each of ``rows_B`` among them (B,), and of each of n rows, or -1, int32 (n,)."""
    from macrorec.ops import kernels

    assert not len(rows_B) or (rows_B.min() >= 0 and rows_B.max() < n), "rows lie inside the matrix"
    rows_K, index_B = torch.empty_like(rows_B), torch.empty_like(rows_B)
    place_N = torch.from_numpy(np.full(n, -1, np.int32))
    count = kernels.number_distinct(*map(view, (rows_B, place_N, rows_K, index_B)))
    return rows_K[:count], index_B, place_N


def take_rows(index_B: Tensor, x_ND: Tensor, divisor: float = 1.0) -> Tensor:
    """x[index_b] / divisor, shape (B, D). On one thread: to wake others costs more than a batch."""
    from macrorec.ops import kernels

    index, x = map(view, (index_B, x_ND))
    out = np.empty((len(index), x.shape[1]), x.dtype)
    kernels.take_rows(index, x, divisor, out)
    return torch.from_numpy(out)


def sum_rows(index_B: Tensor, x_BD: Tensor, size: int, divisor: float = 1.0) -> Tensor:
    """y_k = sum of the x_b / divisor with index_b = k, in the order of b, shape (size, D). On one thread."""
    from macrorec.ops import kernels

    index, x = map(view, (index_B, x_BD))
    out = np.zeros((size, x.shape[1]), x.dtype)
    kernels.add_rows(index, x, divisor, out)
    return torch.from_numpy(out)


def view(tensor: Tensor) -> npt.NDArray[Any]:
    """The numbers of a tensor on the CPU, in C order, as an array."""
    return tensor.detach().contiguous().numpy()
