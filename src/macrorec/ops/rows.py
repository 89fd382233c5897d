"""How is a batch of sparse rows multiplied by a sparse matrix into a dense block? One or two steps, nothing formed.

Shape letters: B rows of a batch, P their entries; R rows, M middle nodes, C columns; E and F stored entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from macrorec.ops.threads import in_parts

Array = npt.NDArray[Any]

_ROWS_PER_TASK = 16


def rows_times(
    start_B: Tensor,
    row_P: Tensor,
    weight_P: Tensor | None,
    start_R: Tensor,
    column_E: Tensor,
    value_E: Tensor | None,
    out_BC: Tensor,
) -> Tensor:
    """out[b] += sum over p in start_B[b] : start_B[b + 1] of weight_P[p] * A[row_P[p]]; returns ``out_BC``.

    A (R, C) is given in CSR form; missing weights and values are ones. On the CPU each output row is summed by one
    thread in the order of its entries, so that neither threads nor batch mates change a bit.

    Shapes:
        start_B (B + 1,), row_P and weight_P (P,), start_R (R + 1,), column_E and value_E (E,), out_BC (B, C) float32
    """
    if out_BC.device.type != "cpu":
        return rows_times_by_torch(start_B, row_P, weight_P, start_R, column_E, value_E, out_BC)
    _in_threads(_add_rows, (start_B, row_P, weight_P, start_R, column_E, value_E, out_BC), len(out_BC))
    return out_BC


def rows_there_and_back(
    start_B: Tensor,
    row_P: Tensor,
    weight_P: Tensor,
    start_R: Tensor,
    middle_E: Tensor,
    scale_M: Tensor,
    start_M: Tensor,
    column_F: Tensor,
    value_F: Tensor,
    out_BC: Tensor,
) -> Tensor:
    """out[b] += sum over p in start_B[b] : start_B[b + 1] of weight_P[p] * (G diag(scale_M) A)[row_P[p]].

    G (R, M) is a pattern of ones and A (M, C) has values, both in CSR form; their product is never formed. Weights are
    positive. As in ``rows_times``, a row of the result depends on nothing but its own entries.
    """
    if out_BC.device.type != "cpu":
        middle_BM = out_BC.new_zeros(len(out_BC), len(scale_M))
        rows_times_by_torch(start_B, row_P, weight_P, start_R, middle_E, None, middle_BM)
        out_BC += middle_BM.mul_(scale_M) @ _sparse(start_M, column_F, value_F, out_BC.shape[1])
        return out_BC
    arrays = (start_B, row_P, weight_P, start_R, middle_E, scale_M, start_M, column_F, value_F, out_BC)
    _in_threads(_add_rows_there_and_back, arrays, len(out_BC))
    return out_BC


def rows_times_by_torch(
    start_B: Tensor,
    row_P: Tensor,
    weight_P: Tensor | None,
    start_R: Tensor,
    column_E: Tensor,
    value_E: Tensor | None,
    out_BC: Tensor,
) -> Tensor:
    """``rows_times`` by torch's sparse products, for devices without compiled loops."""
    left = _sparse(start_B, row_P, weight_P, len(start_R) - 1)
    out_BC += (left @ _sparse(start_R, column_E, value_E, out_BC.shape[1])).to_dense()
    return out_BC


def _sparse(start_R: Tensor, column_E: Tensor, value_E: Tensor | None, n_columns: int) -> Tensor:
    values = torch.ones(len(column_E), device=column_E.device) if value_E is None else value_E
    return torch.sparse_csr_tensor(start_R, column_E, values, (len(start_R) - 1, n_columns), check_invariants=False)


def _in_threads(kernel: Callable[..., None], tensors: Sequence[Tensor | None], n_rows: int) -> None:
    """Run ``kernel(*arrays, lo, hi)`` over slices of the rows 0 : n_rows; a missing tensor becomes an empty array."""
    arrays = [np.empty(0, dtype=np.float32) if tensor is None else tensor.numpy() for tensor in tensors]
    in_parts(lambda lo, hi: kernel(*arrays, lo, hi), [*range(0, n_rows, _ROWS_PER_TASK), n_rows])


@njit(nogil=True, cache=True)
def _add_rows(
    start_B: Array,
    row_P: Array,
    weight_P: Array,
    start_R: Array,
    column_E: Array,
    value_E: Array,
    out_BC: Array,
    lo: int,
    hi: int,
) -> None:
    weighted, valued = len(weight_P) > 0, len(value_E) > 0
    for b in range(lo, hi):
        for p in range(start_B[b], start_B[b + 1]):
            weight = weight_P[p] if weighted else np.float32(1)
            if weight == 0:
                continue
            row = row_P[p]
            if valued:
                for e in range(start_R[row], start_R[row + 1]):
                    out_BC[b, column_E[e]] += weight * value_E[e]
            else:
                for e in range(start_R[row], start_R[row + 1]):
                    out_BC[b, column_E[e]] += weight


@njit(nogil=True, cache=True)
def _add_rows_there_and_back(
    start_B: Array,
    row_P: Array,
    weight_P: Array,
    start_R: Array,
    middle_E: Array,
    scale_M: Array,
    start_M: Array,
    column_F: Array,
    value_F: Array,
    out_BC: Array,
    lo: int,
    hi: int,
) -> None:
    vote_M = np.zeros(len(scale_M), dtype=np.float32)
    met_M = np.empty(len(scale_M), dtype=np.int64)
    for b in range(lo, hi):
        n_met = 0
        for p in range(start_B[b], start_B[b + 1]):
            for e in range(start_R[row_P[p]], start_R[row_P[p] + 1]):
                middle = middle_E[e]
                if vote_M[middle] == 0:
                    met_M[n_met] = middle
                    n_met += 1
                vote_M[middle] += weight_P[p]
        for m in range(n_met):
            middle = met_M[m]
            vote = vote_M[middle] * scale_M[middle]
            vote_M[middle] = 0
            for e in range(start_M[middle], start_M[middle + 1]):
                out_BC[b, column_F[e]] += vote * value_F[e]


def check_numbers(number_E: Tensor, below: int) -> None:
    """Raise RuntimeError unless all of ``number_E`` are in 0 : below; for tensors read from a file."""
    if len(number_E) and not 0 <= int(number_E.min()) <= int(number_E.max()) < below:
        raise RuntimeError(f"stored numbers reach outside 0 : {below}")


def check_starts(start_R: Tensor, n_entries: int) -> None:
    """Raise RuntimeError unless ``start_R`` are row pointers into ``n_entries`` entries."""
    if int(start_R[0]) != 0 or int(start_R[-1]) != n_entries or bool((start_R.diff() < 0).any()):
        raise RuntimeError(f"stored row pointers do not divide {n_entries} entries")
