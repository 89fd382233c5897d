"""What do the closed-form models compute with? Neighbours, inverses, singular vectors.

Shape letters: B query rows, T target rows, R rows and C columns of a matrix, E stored entries, K neighbours or vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

Array = npt.NDArray[Any]

_BLOCK = 1024
_TILE = 512
_DENSE = 500


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
    """The inverse of a symmetric positive definite matrix by Cholesky, in the argument's own memory.

    Works on the lower triangle by tiles of ``_TILE`` rows: A = L L^T, then L^-1, then A^-1 = L^-T L^-1. So LAPACK sees
    no more than a tile; given all, the threaded ``potrf`` of OpenBLAS ends the process for some sizes above 20,000.
    Beside the matrix it takes 2 C ``_TILE`` entries. Raises torch.linalg.LinAlgError if it is not positive definite.
    """
    n = len(matrix_CC)
    tiles = [slice(first, min(first + _TILE, n)) for first in range(0, n, _TILE)]
    for number, k in enumerate(tiles):
        matrix_CC[k, k] = torch.linalg.cholesky(matrix_CC[k, k])
        below = torch.linalg.solve_triangular(matrix_CC[k, k].T, matrix_CC[k.stop :, k], upper=True, left=False)
        matrix_CC[k.stop :, k] = below
        for i in tiles[number + 1 :]:
            matrix_CC[i, k.stop : i.stop].addmm_(matrix_CC[i, k], below[: i.stop - k.stop].T, alpha=-1)
    for number, k in enumerate(tiles):
        diagonal = torch.linalg.solve_triangular(
            matrix_CC[k, k], torch.eye(k.stop - k.start).to(matrix_CC), upper=False
        )
        left = [matrix_CC[k, j.start : k.start] @ matrix_CC[j.start : k.start, j] for j in tiles[:number]]
        for j, product in zip(tiles, left, strict=False):
            matrix_CC[k, j] = -diagonal @ product
        matrix_CC[k, k] = diagonal
    for k in tiles:
        matrix_CC[k, : k.stop] = matrix_CC[k.start :, k].T @ matrix_CC[k.start :, : k.stop]
        matrix_CC[: k.start, k] = matrix_CC[k, : k.start].T
        matrix_CC[k, k] = (matrix_CC[k, k] + matrix_CC[k, k].T) / 2
    return matrix_CC


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
    """A ~ P diag(s) Q^T with the k largest singular values, from a seeded start vector.

    Dense, and so complete, where k reaches the smaller side or no side is above ``_DENSE``. Else by ARPACK: each
    triplet to machine precision, but of a value that repeats (as 1 does, once per connected component of a normalized
    graph) it may miss copies, and answer smaller values in their place.
    Signs are fixed by the entry of largest magnitude in each column of Q, so that equal input gives equal output.

    Shapes:
        matrix (R, C), out: P (R, K), s (K,) falling, Q (C, K), float64, K = min(k, R, C)
    """
    matrix = matrix.astype(np.float64)
    side = min(matrix.shape)
    if k >= side or max(matrix.shape) <= _DENSE:
        left, values, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
    else:
        left, values, right = _arpack(matrix, k, generator)
    order = np.argsort(-values, kind="stable")[:k]
    left, values, right = left[:, order], values[order], right[order].T
    peak = np.abs(right).argmax(0)
    sign = np.where(right[peak, np.arange(len(order))] < 0, -1.0, 1.0)
    return torch.from_numpy(left * sign), torch.from_numpy(values.copy()), torch.from_numpy(right * sign)


def _arpack(
    matrix: sp.csr_matrix, k: int, generator: torch.Generator
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """The k largest singular triplets (R, K), (K,), (K, C), from the eigenvectors of the smaller of A^T A and A A^T.

    Not ``scipy.sparse.linalg.svds``: where singular values repeat, ARPACK restarts from random vectors, and ``svds``
    gives it no generator to draw them from, so that equal seeds would give unequal vectors.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T.tocsr()
    wide = tall.T.tocsr()
    gram = LinearOperator((tall.shape[1],) * 2, matvec=lambda x: wide @ (tall @ x), dtype=np.float64)
    start = torch.rand(tall.shape[1], generator=generator, dtype=torch.float64).numpy()
    seed = int(torch.randint(2**31, (1,), generator=generator))
    vectors = np.linalg.qr(eigsh(gram, k, v0=start, rng=np.random.default_rng(seed))[1])[0]
    outer, values, turn = np.linalg.svd(tall @ vectors, full_matrices=False)
    inner = turn @ vectors.T
    return (outer, values, inner) if tall is matrix else (inner.T, values, outer.T)
