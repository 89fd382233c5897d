"""What do the closed-form models compute with? Sparse row products, neighbours, inverses, singular vectors.

Shape letters: B rows of a batch, R rows and C columns of a matrix, E stored entries, K neighbours or vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse as sp
import torch
from numba import njit
from scipy.sparse.linalg import svds
from torch import Tensor

Array = npt.NDArray[Any]

_BLOCK = 1024
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
        left = _sparse(start_B, row_P, weight_P, len(start_R) - 1)
        out_BC += (left @ _sparse(start_R, column_E, value_E, out_BC.shape[1])).to_dense()
        return out_BC
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
        rows_times(start_B, row_P, weight_P, start_R, middle_E, None, middle_BM)
        out_BC += middle_BM.mul_(scale_M) @ _sparse(start_M, column_F, value_F, out_BC.shape[1])
        return out_BC
    arrays = (start_B, row_P, weight_P, start_R, middle_E, scale_M, start_M, column_F, value_F, out_BC)
    _in_threads(_add_rows_there_and_back, arrays, len(out_BC))
    return out_BC


def _sparse(start_R: Tensor, column_E: Tensor, value_E: Tensor | None, n_columns: int) -> Tensor:
    values = torch.ones(len(column_E), device=column_E.device) if value_E is None else value_E
    return torch.sparse_csr_tensor(start_R, column_E, values, (len(start_R) - 1, n_columns))


def _in_threads(kernel: Callable[..., None], tensors: Sequence[Tensor | None], n_rows: int) -> None:
    """Run ``kernel(*arrays, lo, hi)`` over slices of the rows 0 : n_rows; a missing tensor becomes an empty array."""
    arrays = [np.empty(0, dtype=np.float32) if tensor is None else tensor.numpy() for tensor in tensors]
    n_threads = torch.get_num_threads()
    if n_rows < _ROWS_PER_TASK or n_threads == 1:
        kernel(*arrays, 0, n_rows)
        return
    starts = range(0, n_rows, _ROWS_PER_TASK)
    with ThreadPoolExecutor(n_threads) as pool:
        for task in [pool.submit(kernel, *arrays, lo, min(lo + _ROWS_PER_TASK, n_rows)) for lo in starts]:
            task.result()


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


def cosine_neighbors(
    queries: sp.csr_matrix, targets: sp.csr_matrix, k: int, shrinkage: float, *, same: bool
) -> tuple[Tensor, Tensor]:
    """s(q, t) = <q, t> / (|q| |t| + shrinkage): the k nearest rows of ``targets`` to each row of ``queries``.

    Ties go to the lower row number. With ``same`` the two are one matrix and a row is no neighbour of itself. Rows with
    fewer than k overlapping targets are filled up with similarity 0 and number 0, or with ``same`` their own number.
    Works in blocks of sparse products.

    Shapes:
        queries (B, C), targets (T, C), out: numbers (B, K) int64 in falling order of similarity, similarities (B, K)
        float32, K = min(k, T)
    """
    k = min(k, targets.shape[0])
    number_BK = np.zeros((queries.shape[0], k), dtype=np.int64)
    similarity_BK = np.zeros((queries.shape[0], k), dtype=np.float32)
    query_norm, target_norm = (
        np.sqrt(np.asarray(m.multiply(m).sum(1), dtype=np.float64).ravel()) for m in (queries, targets)
    )
    transposed = targets.T.tocsr()
    for first in range(0, queries.shape[0], _BLOCK):
        block = (queries[first : first + _BLOCK] @ transposed).tocsr()
        for b, (begin, end) in enumerate(zip(block.indptr[:-1], block.indptr[1:], strict=True), start=first):
            number = block.indices[begin:end].astype(np.int64)
            similarity = block.data[begin:end] / (query_norm[b] * target_norm[number] + shrinkage)
            if same:
                similarity[number == b] = 0
            best = _largest(similarity, number, k)
            best = best[similarity[best] > 0]
            number_BK[b] = b if same else 0
            number_BK[b, : len(best)] = number[best]
            similarity_BK[b, : len(best)] = similarity[best]
    return torch.from_numpy(number_BK), torch.from_numpy(similarity_BK)


def _largest(value: Array, number: Array, k: int) -> Array:
    """Positions of the k largest values, in falling order; ties by lower number."""
    if len(value) > k:
        threshold = np.partition(value, len(value) - k)[len(value) - k]
        candidates = np.flatnonzero(value >= threshold)
    else:
        candidates = np.arange(len(value))
    return candidates[np.lexsort((number[candidates], -value[candidates]))][:k]


def gram(rows: sp.csr_matrix, dtype: torch.dtype) -> Tensor:
    """X^T X as a dense (C, C) matrix of ``dtype``, filled in blocks, so that it is the only large array."""
    columns = rows.T.tocsr()
    dense = torch.zeros(rows.shape[1], rows.shape[1], dtype=dtype)
    for first in range(0, rows.shape[1], _BLOCK):
        dense[first : first + _BLOCK] = torch.from_numpy((columns[first : first + _BLOCK] @ rows).toarray())
    return dense


def inverse_(matrix_CC: Tensor) -> Tensor:
    """The inverse of a symmetric positive definite matrix by Cholesky; on the CPU in the argument's own memory."""
    if matrix_CC.device.type != "cpu":
        return torch.cholesky_inverse(torch.linalg.cholesky(matrix_CC))
    # A symmetric C-ordered array is its own Fortran-ordered view; LAPACK's lower triangle is our upper one.
    view = matrix_CC.numpy().T
    potrf, potri = scipy.linalg.get_lapack_funcs(("potrf", "potri"), (view,))
    factor, info = potrf(view, lower=True, overwrite_a=True, clean=False)
    assert info == 0, f"not positive definite: potrf answered {info}"
    inverse, info = potri(factor, lower=True, overwrite_c=True)
    assert info == 0, f"singular: potri answered {info}"
    upper = inverse.T
    for first in range(0, len(upper), _BLOCK):
        stop = min(first + _BLOCK, len(upper))
        corner = np.triu(upper[first:stop, first:stop])
        upper[first:stop, first:stop] = corner + np.triu(corner, 1).T
        upper[stop:, first:stop] = upper[first:stop, stop:].T
    return torch.from_numpy(upper)


def csr_of(start_R: Tensor, column_E: Tensor, n_columns: int) -> sp.csr_matrix:
    """The (R, C) matrix of ones, float32, with the given row pointers and columns."""
    columns = column_E.cpu().numpy().astype(np.int32)
    return sp.csr_matrix(
        (np.ones(len(columns), np.float32), columns, start_R.cpu().numpy()), (len(start_R) - 1, n_columns)
    )


def normalized(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """D_r^-1/2 A D_c^-1/2 with row and column sums of A; empty rows and columns stay empty. float64."""
    scaled = matrix.astype(np.float64)
    row = inverse_root(torch.from_numpy(np.asarray(scaled.sum(1)).ravel())).numpy()
    column = inverse_root(torch.from_numpy(np.asarray(scaled.sum(0)).ravel())).numpy()
    scaled.data *= np.repeat(row, np.diff(scaled.indptr)) * column[scaled.indices]
    return scaled


def inverse_root(degree: Tensor) -> Tensor:
    """d^-1/2, and 0 where d is 0; same shape, floating point."""
    values = degree if degree.is_floating_point() else degree.float()
    return torch.where(values > 0, values, 1).rsqrt() * (values > 0)


def truncated_svd(matrix: sp.csr_matrix, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A ~ P diag(s) Q^T with the k largest singular values, by ARPACK to machine precision from a seeded start vector.

    Signs are fixed by the entry of largest magnitude in each column of Q, so that equal input gives equal output.
    Where k reaches the smaller side the decomposition is dense and complete.

    Shapes:
        matrix (R, C), out: P (R, K), s (K,) falling, Q (C, K), float64, K = min(k, R, C)
    """
    matrix = matrix.astype(np.float64)
    side = min(matrix.shape)
    if k >= side:
        left, values, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
    else:
        start = torch.rand(side, generator=generator, dtype=torch.float64).numpy()
        left, values, right = svds(matrix, k, v0=start)
    order = np.argsort(-values, kind="stable")
    left, values, right = left[:, order], values[order], right[order].T
    peak = np.abs(right).argmax(0)
    sign = np.where(right[peak, np.arange(len(order))] < 0, -1.0, 1.0)
    return torch.from_numpy(left * sign), torch.from_numpy(values.copy()), torch.from_numpy(right * sign)
