"""Which loops over the edges of a bipartite graph run as machine code? Imported only when the first of them runs.

Every kernel owns the rows ``lo : hi`` of its output and adds in a fixed order, so results do not depend on the number
of threads. None holds the interpreter's lock; none checks bounds: callers do. An empty array is an absent argument.

Nodes are users, then items; the entries of node n are start[n] : start[n + 1], those of users numbered as the edges
are. Loops over d stand where a slice would read better: a view of a row costs more than the row. Propagation over them
is in ``gather_kernels``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def weigh(
    start: Array,
    node: Array,
    x: Array,
    beta: Array,
    hidden: Array,
    logit: Array,
    weight: Array,
    distance: Array,
    lo: int,
    hi: int,
) -> None:
    """logit_e = ELU(|x_u - x_i| . beta), weight_e its softmax over u's edges not hidden, distance_e = |x_u - x_i|^2."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for u in range(lo, hi):
        first, last = start[u], start[u + 1]
        highest = -one  # no ELU is lower
        for e in range(first, last):
            i = node[e]
            along, square = zero, zero
            for d in range(x.shape[1]):
                apart = x[u, d] - x[i, d]
                along += abs(apart) * beta[d]
                square += apart * apart
            logit[e] = along if along > zero else np.exp(along) - one
            distance[e] = square
            if not len(hidden) or not hidden[e]:
                highest = max(highest, logit[e])
        total = zero
        for e in range(first, last):
            weight[e] = zero if len(hidden) and hidden[e] else np.exp(logit[e] - highest)
            total += weight[e]
        if total > zero:
            for e in range(first, last):
                weight[e] /= total


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def weigh_back_users(
    start: Array,
    node: Array,
    x: Array,
    beta: Array,
    logit: Array,
    weight: Array,
    grad_weight: Array,
    grad_distance: Array,
    slope: Array,
    grad_x: Array,
    grad_beta: Array,
    lo: int,
    hi: int,
) -> None:
    """slope_e = gradient of |x_u - x_i| . beta; and for users the gradient of x_u, and of beta by user."""
    zero, one, two = x.dtype.type(0), x.dtype.type(1), x.dtype.type(2)
    for u in range(lo, hi):
        mean = zero
        for e in range(start[u], start[u + 1]):
            mean += weight[e] * grad_weight[e]
        for d in range(x.shape[1]):
            grad_x[u, d] = zero
            grad_beta[u, d] = zero
        for e in range(start[u], start[u + 1]):
            i, s, g = node[e], weight[e] * (grad_weight[e] - mean), two * grad_distance[e]
            if logit[e] <= zero:
                s *= logit[e] + one
            slope[e] = s
            for d in range(x.shape[1]):
                apart = x[u, d] - x[i, d]
                step = s if apart > zero else (-s if apart < zero else zero)
                grad_x[u, d] += step * beta[d] + g * apart
                grad_beta[u, d] += step * apart


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def weigh_back_items(
    start: Array,
    node: Array,
    slope: Array,
    grad_distance: Array,
    x: Array,
    beta: Array,
    grad_x: Array,
    n_users: int,
    lo: int,
    hi: int,
) -> None:
    """The gradient of x_i for items ``lo : hi``; ``slope`` and ``grad_distance`` in the order of their entries."""
    zero, two = x.dtype.type(0), x.dtype.type(2)
    for i in range(n_users + lo, n_users + hi):
        for d in range(x.shape[1]):
            grad_x[i, d] = zero
        for k in range(start[i], start[i + 1]):
            u, s, g = node[k], slope[k - start[n_users]], two * grad_distance[k - start[n_users]]
            for d in range(x.shape[1]):
                apart = x[i, d] - x[u, d]
                step = s if apart > zero else (-s if apart < zero else zero)
                grad_x[i, d] += step * beta[d] + g * apart


@njit(nogil=True, cache=True)
def scale(start: Array, node: Array, value: Array, factor: Array, add: Array, out: Array, lo: int, hi: int) -> None:
    """out_e = value_e factor_u factor_i + add_u + add_i."""
    for u in range(lo, hi):
        for e in range(start[u], start[u + 1]):
            i = node[e]
            out[e] = value[e] * (factor[u] * factor[i])
            if len(add):
                out[e] += add[u] + add[i]
