"""Which loops learn soft clusters as machine code? Rows of a batch forward, back, and one step of Adam, in one go.

All matrices lie in flat arrays, rows padded with zeros to whole vectors. Several threads may call ``learn`` on the same
arrays: each takes the next tile of rows until none is left. A tile's arithmetic, and the order in which tiles are
summed, do not depend on who takes it, so results do not depend on the number of threads. (Numba's cache of compiled
loops sees changes of their own file only: after one in a file imported here, delete ``__pycache__``.)

Shape letters: B batch, M = 1 + N items of a pair, R distinct rows of the batch (users first), W rows of a tile, P pairs
seen from both ends, D embedding, K clusters, H hidden, Q preferences.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from macrorec.ops.adam_kernels import adam, catch_up, decay
from macrorec.ops.cluster_layout import ONE, TINY, ZERO, places
from macrorec.ops.tile_kernels import CLOSED, add, fetch_add, read, yield_now

WIDTH = 64
"""W, rows of a tile."""
PARTS = 64
"""Tiles are taken together, so that there are at most so many sums of gradients."""
HALF = np.float32(0.5)


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def tanh(x):  # type: ignore[no-untyped-def]
    """A quotient of polynomials that is within 3e-7 of tanh, without branches (Eigen's)."""
    x = max(min(x, np.float32(7.90531)), np.float32(-7.90531))
    y = x * x
    p = np.float32(-2.76076847742355e-16) * y + np.float32(2.00018790482477e-13)
    p = p * y + np.float32(-8.60467152213735e-11)
    p = p * y + np.float32(5.12229709037114e-08)
    p = p * y + np.float32(1.48572235717979e-05)
    p = p * y + np.float32(6.37261928875436e-04)
    p = p * y + np.float32(4.89352455891786e-03)
    q = np.float32(1.19825839466702e-06) * y + np.float32(1.18534705686654e-04)
    q = q * y + np.float32(2.26843463243900e-03)
    q = q * y + np.float32(4.89352518554385e-03)
    return x * p / q


@njit(nogil=True, cache=True)
def sigmoid(x):  # type: ignore[no-untyped-def]
    """1 / (1 + exp(-x))."""
    return HALF + HALF * tanh(HALF * x)


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def exp_share(x):  # type: ignore[no-untyped-def]
    """exp(x - 1/2) for x in [0, 1], to the last bit but one."""
    x -= HALF
    p = np.float32(1 / 40320)
    for n in (5040, 720, 120, 24, 6, 2, 1, 1):
        p = p * x + np.float32(1 / n)
    return p


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def forward(table, moment, square, last, lo, hi, side, shape, numbers, fade, node_R, weights, rows):  # type: ignore[no-untyped-def]
    """(1) to (6) of the rows lo : hi: directions, cosines with centres, MLP, and what remains of them."""
    x_RD, t_RK, h_RH, o_RQ, a_RQ, norm_R = rows
    D, Dp, K, Kp, H, Hp, Q, Qp = shape[:8]
    activation, softmax = shape[8], shape[9]
    _, size, _, _, to, _ = places(shape)
    to += side * size
    n = hi - lo
    if numbers[6] == 0:
        catch_up(table, moment, square, last, node_R, lo, hi, numbers, fade)
    for r in range(lo, hi):
        node = node_R[r]
        total = ZERO
        for d in range(D):
            total += table[node, d] * table[node, d]
        norm = max(np.sqrt(total), TINY)
        norm_R[r] = norm
        over = ONE / norm
        for d in range(D):
            x_RD[r, d] = table[node, d] * over
    if K == 0:
        return
    t_RK[lo:hi] = ZERO
    add(t_RK.reshape(-1), lo * Kp, Kp, n, Kp, x_RD.reshape(-1), lo * Dp, Dp, 1, weights, K * Dp, Kp, D)
    if H:
        h_RH[lo:hi] = weights[to + K * Hp : to + K * Hp + Hp]
        o_RQ[lo:hi] = weights[to + K * Hp + Hp + H * Qp : to + K * Hp + Hp + H * Qp + Qp]
        add(h_RH.reshape(-1), lo * Hp, Hp, n, Hp, t_RK.reshape(-1), lo * Kp, Kp, 1, weights, to, Hp, K)
        for r in range(lo, hi):
            if activation == 1:
                for h in range(H):
                    h_RH[r, h] = max(h_RH[r, h], ZERO)
            elif activation == 2:
                for h in range(H):
                    h_RH[r, h] = tanh(h_RH[r, h])
            elif activation == 3:
                for h in range(H):
                    h_RH[r, h] = sigmoid(h_RH[r, h])
        add(o_RQ.reshape(-1), lo * Qp, Qp, n, Qp, h_RH.reshape(-1), lo * Hp, Hp, 1, weights, to + K * Hp + Hp, Qp, H)
    else:
        o_RQ[lo:hi] = t_RK[lo:hi]
    for r in range(lo, hi):
        for q in range(Q):
            o_RQ[r, q] = sigmoid(o_RQ[r, q])
        if side == 0:
            for q in range(Q):
                a_RQ[r, q] = o_RQ[r, q]
            continue
        total = ZERO
        for q in range(Q):
            value = exp_share(o_RQ[r, q]) if softmax else o_RQ[r, q]
            a_RQ[r, q] = value
            total += value
        norm_R[len(norm_R) // 2 + r] = total
        over = ONE / total
        for q in range(Q):
            a_RQ[r, q] *= over


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def backward(  # type: ignore[no-untyped-def]
    table, moment, square, last, lo, hi, side, shape, numbers, node_R, start_R, other_P, weights, rows, sums_S, own
):
    """(7), (8) and (10) of the pairs of the rows lo : hi, back to the rows, and their step; returns (10) over users."""
    x_RD, t_RK, h_RH, o_RQ, a_RQ, norm_R = rows
    dx_WD, da_WQ, dh_WH, dt_WK = own
    D, Dp, K, Kp, H, Hp, Q, Qp = shape[:8]
    activation, softmax = shape[8], shape[9]
    _, size, size_sums, _, to, at = places(shape)
    to, at = to + side * size, at + side * size_sums
    alpha, scale = np.float32(numbers[0]), np.float32(2 * numbers[8])
    rest, negative = ONE - alpha, np.float32(numbers[9])
    n, loss = hi - lo, np.float64(0)
    dx_WD[:] = ZERO
    da_WQ[:] = ZERO
    dh_WH[:] = ZERO
    dt_WK[:] = ZERO
    for r in range(lo, hi):
        w = r - lo
        for p in range(start_R[r], start_R[r + 1]):
            other = other_P[p]
            edge = ONE if other >= 0 else ZERO
            if other < 0:
                other = ~other
            cosine, implicit = ZERO, ZERO
            for d in range(D):
                cosine += x_RD[r, d] * x_RD[other, d]
            for q in range(Q):
                implicit += a_RQ[r, q] * a_RQ[other, q]
            gap = alpha * HALF * (cosine + ONE) + rest * implicit - edge
            weight = ONE if edge > ZERO else negative
            loss += weight * gap * gap
            gap *= weight
            g = scale * gap * alpha * HALF
            for d in range(D):
                dx_WD[w, d] += g * x_RD[other, d]
            g = scale * gap * rest
            for q in range(Q):
                da_WQ[w, q] += g * a_RQ[other, q]
        if side == 1 and K:
            total = ZERO
            for q in range(Q):
                total += da_WQ[w, q] * a_RQ[r, q]
            if softmax:
                for q in range(Q):
                    da_WQ[w, q] = (da_WQ[w, q] - total) * a_RQ[r, q]
            else:
                over = ONE / norm_R[len(norm_R) // 2 + r]
                for q in range(Q):
                    da_WQ[w, q] = (da_WQ[w, q] - total) * over
        for q in range(Q):
            o = o_RQ[r, q]
            da_WQ[w, q] *= o * (ONE - o)
    if H:
        add(
            dh_WH.reshape(-1), 0, Hp, n, Hp, da_WQ.reshape(-1), 0, Qp, 1, weights, to + K * Hp + Hp + H * Qp + Qp, Hp, Q
        )
        add(sums_S, at + H * Kp + Hp, Hp, Q, Hp, da_WQ.reshape(-1), 0, 1, Qp, h_RH.reshape(-1), lo * Hp, Hp, n)
        bias_H = sums_S[at + H * Kp : at + H * Kp + Hp]
        bias_Q = sums_S[at + H * Kp + Hp + Q * Hp : at + H * Kp + Hp + Q * Hp + Qp]
        for w in range(n):
            for q in range(Q):
                bias_Q[q] += da_WQ[w, q]
            for h in range(H):
                y = h_RH[lo + w, h]
                if activation == 1:
                    dh_WH[w, h] = dh_WH[w, h] if y > ZERO else ZERO
                elif activation == 2:
                    dh_WH[w, h] *= ONE - y * y
                elif activation == 3:
                    dh_WH[w, h] *= y * (ONE - y)
            for h in range(H):
                bias_H[h] += dh_WH[w, h]
        add(sums_S, at, Kp, H, Kp, dh_WH.reshape(-1), 0, 1, Hp, t_RK.reshape(-1), lo * Kp, Kp, n)
        add(
            dt_WK.reshape(-1),
            0,
            Kp,
            n,
            Kp,
            dh_WH.reshape(-1),
            0,
            Hp,
            1,
            weights,
            to + K * Hp + Hp + H * Qp + Qp + Q * Hp,
            Kp,
            H,
        )
    elif K:
        dt_WK[:n] = da_WQ[:n]
    if K:
        add(sums_S, 0, Dp, K, Dp, dt_WK.reshape(-1), 0, 1, Kp, x_RD.reshape(-1), lo * Dp, Dp, n)
        add(dx_WD.reshape(-1), 0, Dp, n, Dp, dt_WK.reshape(-1), 0, Kp, 1, weights, 0, Dp, K)
    for r in range(lo, hi):
        w = r - lo
        total = ZERO
        for d in range(D):
            total += dx_WD[w, d] * x_RD[r, d]
        over = ONE / norm_R[r]
        for d in range(D):
            dx_WD[w, d] = (dx_WD[w, d] - total * x_RD[r, d]) * over
    adam(table, moment, square, last, node_R, lo, hi, dx_WD, numbers)
    return loss if side == 0 else 0.0


@njit(nogil=True, cache=True)
def learn(  # type: ignore[no-untyped-def]
    users, items, shape, counts, numbers, fade, node_R, start_R, other_P, weights, rows, sums, losses, counters
):
    """What one thread does of a step: parts of the rows forward, of the pairs back, of the other rows' decay."""
    if fetch_add(counters, 0, 1) >= CLOSED:
        return
    Dp, Kp, Hp, Qp = shape[1], shape[3], shape[5], shape[7]
    n_users, n_rows = counts[0], counts[1]
    first = (n_users + WIDTH - 1) // WIDTH
    n_tiles = first + (n_rows - n_users + WIDTH - 1) // WIDTH
    per_part = (n_tiles + PARTS - 1) // PARTS
    n_parts = (n_tiles + per_part - 1) // per_part
    while True:
        part = fetch_add(counters, 8, 1)
        if part >= n_parts:
            break
        for tile in range(part * per_part, min((part + 1) * per_part, n_tiles)):
            if tile < first:
                lo, hi = tile * WIDTH, min((tile + 1) * WIDTH, n_users)
                forward(*users, lo, hi, 0, shape, numbers, fade, node_R, weights, rows)  # type: ignore[call-arg]
            else:
                lo = n_users + (tile - first) * WIDTH
                forward(*items, lo, min(lo + WIDTH, n_rows), 1, shape, numbers, fade, node_R, weights, rows)  # type: ignore[call-arg]
        fetch_add(counters, 16, 1)
    while read(counters, 16) < n_parts:
        yield_now()
    own = (
        np.empty((WIDTH, Dp), np.float32),
        np.empty((WIDTH, Qp), np.float32),
        np.empty((WIDTH, Hp), np.float32),
        np.empty((WIDTH, Kp), np.float32),
    )
    while True:
        part = fetch_add(counters, 24, 1)
        if part >= n_parts:
            break
        sums[part] = ZERO
        loss = 0.0
        for tile in range(part * per_part, min((part + 1) * per_part, n_tiles)):
            if tile < first:
                lo, hi = tile * WIDTH, min((tile + 1) * WIDTH, n_users)
                loss += backward(  # type: ignore[call-arg]
                    *users, lo, hi, 0, shape, numbers, node_R, start_R, other_P, weights, rows, sums[part], own
                )
            else:
                lo = n_users + (tile - first) * WIDTH
                hi = min(lo + WIDTH, n_rows)
                loss += backward(  # type: ignore[call-arg]
                    *items, lo, hi, 1, shape, numbers, node_R, start_R, other_P, weights, rows, sums[part], own
                )
        losses[part] = loss
        fetch_add(counters, 32, 1)
    while read(counters, 32) < n_parts:
        yield_now()
    if numbers[6] > 0:
        n_all = len(users[3]) + len(items[3])
        chunk = max(WIDTH, (n_all + PARTS - 1) // PARTS)
        while True:
            lo = fetch_add(counters, 40, 1) * chunk
            if lo >= n_all:
                break
            hi, n_first = min(lo + chunk, n_all), len(users[3])
            decay(*users, min(lo, n_first), min(hi, n_first), numbers)  # type: ignore[call-arg]
            decay(*items, max(lo - n_first, 0), max(hi - n_first, 0), numbers)  # type: ignore[call-arg]
            fetch_add(counters, 48, 1)
    fetch_add(counters, 56, 1)


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def finish(small, moment, square, shape, counts, numbers, weights, sums, losses, gradient):  # type: ignore[no-untyped-def]
    """Sums of all parts to the gradient of centres and matrices, (11), and the step; returns (10) and (11)."""
    D, Dp, K, Kp, H, Hp, Q, _ = shape[:8]
    n_users, n_rows, size, raw = counts[0], counts[1], shape[11], shape[10]
    n_tiles = (n_users + WIDTH - 1) // WIDTH + (n_rows - n_users + WIDTH - 1) // WIDTH
    per_part = (n_tiles + PARTS - 1) // PARTS
    n_parts = (n_tiles + per_part - 1) // per_part
    structure = losses[0]
    for part in range(1, n_parts):
        structure += losses[part]
        for n in range(size):
            sums[0, n] += sums[part, n]
    structure *= numbers[8]
    if K == 0:
        return structure, 0.0
    own, _, size_sums, at, _, to = places(shape)
    for _ in range(2 if H else 0):
        for h in range(H):
            for k in range(K):
                gradient[0, at + h * K + k] = sums[0, to + h * Kp + k]
            gradient[0, at + H * K + h] = sums[0, to + H * Kp + h]
        second = at + H * K + H
        for q in range(Q):
            for h in range(H):
                gradient[0, second + q * H + h] = sums[0, to + H * Kp + Hp + q * Hp + h]
            gradient[0, second + Q * H + q] = sums[0, to + H * Kp + Hp + Q * Hp + q]
        at, to = at + own, to + size_sums
    beta = numbers[1]
    total_D, squares = np.zeros(D, np.float32), 0.0
    for k in range(K):
        for d in range(D):
            c = small[0, k * D + d] if raw else weights[k * Dp + d]
            total_D[d] += c
            squares += c * c
    clusters, push = K * squares, np.float32(2 * beta)
    for d in range(D):
        clusters -= total_D[d] * total_D[d]
    for k in range(K):
        norm, radial = ZERO, ZERO
        for d in range(D):
            norm += small[0, k * D + d] * small[0, k * D + d]
            g = sums[0, k * Dp + d]
            if not raw:
                g += push * (total_D[d] - K * weights[k * Dp + d])
            sums[0, k * Dp + d] = g
            radial += g * weights[k * Dp + d]
        over = ONE / max(np.sqrt(norm), TINY)
        for d in range(D):
            g = (sums[0, k * Dp + d] - radial * weights[k * Dp + d]) * over
            if raw:
                g += push * (total_D[d] - K * small[0, k * D + d])
            gradient[0, k * D + d] = g
    adam(small, moment, square, np.zeros(1, np.int32), np.zeros(1, np.int64), 0, 1, gradient, numbers)
    return structure, -beta * clusters
