"""Which loops of the fields of an impression run as machine code? Imported only when the first of them runs.

None holds the interpreter's lock; none checks bounds: callers do. An empty array is an absent argument.

Shape letters: b impression, r place in a bag, d number of a vector.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]


@njit(nogil=True, cache=True)
def shares(index: Array, n_rows: int, weight: Array) -> None:
    """weight_br = share of the number index_br among the row's numbers below ``n_rows``, at its first place; else 0."""
    for b in range(len(index)):
        total = 0
        for r in range(index.shape[1]):
            n = index[b, r]
            weight[b, r] = 0
            if n < 0 or n >= n_rows:
                continue
            total += 1
            first = 0
            while index[b, first] != n:
                first += 1
            weight[b, first] += 1
        for r in range(index.shape[1]):
            weight[b, r] /= max(total, 1)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def bag(x: Array, index: Array, weight: Array, out: Array, square: Array) -> None:
    """out_b = sum_r weight_br x[index_br], square_b = sum_r (weight_br x[index_br])^2; weight 0 stands for no row."""
    for b in range(len(index)):
        for d in range(x.shape[1]):
            out[b, d] = 0
        if len(square):
            for d in range(x.shape[1]):
                square[b, d] = 0
        for r in range(index.shape[1]):
            a, n = weight[b, r], index[b, r]
            if a == 0:
                continue
            for d in range(x.shape[1]):
                out[b, d] += a * x[n, d]
            if len(square):
                for d in range(x.shape[1]):
                    square[b, d] += a * a * x[n, d] * x[n, d]


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def bag_back(x: Array, index: Array, weight: Array, grad: Array, grad_square: Array, grad_x: Array) -> None:
    """Adds to ``grad_x`` what the gradients of ``bag``'s outputs imply, in the order of b and r."""
    for b in range(len(index)):
        for r in range(index.shape[1]):
            a, n = weight[b, r], index[b, r]
            if a == 0:
                continue
            for d in range(x.shape[1]):
                grad_x[n, d] += a * grad[b, d]
            if len(grad_square):
                for d in range(x.shape[1]):
                    grad_x[n, d] += 2 * a * a * x[n, d] * grad_square[b, d]
