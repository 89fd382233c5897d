"""Where do a batch's rows and pairs, and CCBIE's matrices, lie while compiled loops take a step?

Shape letters: B batch, R distinct rows of the batch (users first), P pairs seen from both ends, D embedding, K
clusters, H hidden, Q preferences; Dp, Kp, Hp, Qp the same, padded to whole vectors.
"""

from __future__ import annotations

import numpy as np
from numba import njit

ZERO, ONE = np.float32(0), np.float32(1)
TINY = np.float32(1e-12)
"""The least norm, as of ``torch.nn.functional.normalize``."""


@njit(nogil=True, cache=True)
def number_rows(users_B, items_B, negatives_BN, place_U, place_I, node_R, start_R, other_P):  # type: ignore[no-untyped-def]
    """Distinct users, then distinct items of the batch, and the pairs of each: the other row, or ~row of a negative.

    ``place_U`` and ``place_I`` are full of -1 and are left so. Returns the numbers of users, and of both.
    """
    n_users, n_negatives = 0, negatives_BN.shape[1]
    for b in range(len(users_B)):
        if place_U[users_B[b]] < 0:
            place_U[users_B[b]] = n_users
            node_R[n_users] = users_B[b]
            n_users += 1
    n_rows = n_users
    for b in range(len(users_B)):
        for m in range(n_negatives + 1):
            item = items_B[b] if m == 0 else negatives_BN[b, m - 1]
            if place_I[item] < 0:
                place_I[item] = n_rows
                node_R[n_rows] = item
                n_rows += 1
    start_R[: n_rows + 2] = 0  # two places ahead, so that filling moves each to where it belongs
    for b in range(len(users_B)):
        start_R[place_U[users_B[b]] + 2] += n_negatives + 1
        start_R[place_I[items_B[b]] + 2] += 1
        for m in range(n_negatives):
            start_R[place_I[negatives_BN[b, m]] + 2] += 1
    for r in range(n_rows):
        start_R[r + 2] += start_R[r + 1]
    for b in range(len(users_B)):
        own = place_U[users_B[b]] + 1
        for m in range(n_negatives + 1):
            item = place_I[items_B[b] if m == 0 else negatives_BN[b, m - 1]]
            other_P[start_R[own]] = item if m == 0 else ~item
            other_P[start_R[item + 1]] = own - 1 if m == 0 else ~(own - 1)
            start_R[own] += 1
            start_R[item + 1] += 1
    for r in range(n_rows):
        if r < n_users:
            place_U[node_R[r]] = -1
        else:
            place_I[node_R[r]] = -1
    return n_users, n_rows


@njit(nogil=True, cache=True)
def places(shape):  # type: ignore[no-untyped-def]
    """Where matrices begin: sizes of a side among parameters, among weights and among sums, and of what precedes."""
    D, Dp, K, Kp, H, Hp, Q, Qp = shape[:8]
    own = H * K + H + Q * H + Q
    weights = K * Hp + Hp + H * Qp + Qp + Q * Hp + H * Kp
    sums = H * Kp + Hp + Q * Hp + Qp
    return own, weights, sums, K * D, K * Dp + D * Kp, K * Dp


@njit(nogil=True, cache=True)
def lay_out(small, shape, weights):  # type: ignore[no-untyped-def]
    """Directions of centres, and matrices, each in both orientations, padded."""
    D, Dp, K, Kp, H, Hp, Q, Qp = shape[:8]
    own, size, _, at, to, _ = places(shape)
    for k in range(K):
        total = ZERO
        for d in range(D):
            total += small[k * D + d] * small[k * D + d]
        scale = ONE / max(np.sqrt(total), TINY)
        for d in range(D):
            value = small[k * D + d] * scale
            weights[k * Dp + d] = value
            weights[K * Dp + d * Kp + k] = value
    for _ in range(2 if H else 0):
        second, last = at + H * K + H, at + H * K + H + Q * H
        for h in range(H):
            for k in range(K):
                weights[to + k * Hp + h] = small[at + h * K + k]
                weights[to + K * Hp + Hp + H * Qp + Qp + Q * Hp + h * Kp + k] = small[at + h * K + k]
            weights[to + K * Hp + h] = small[at + H * K + h]
        for q in range(Q):
            for h in range(H):
                weights[to + K * Hp + Hp + h * Qp + q] = small[second + q * H + h]
                weights[to + K * Hp + Hp + H * Qp + Qp + q * Hp + h] = small[second + q * H + h]
            weights[to + K * Hp + Hp + H * Qp + q] = small[last + q]
        at, to = at + own, to + size
