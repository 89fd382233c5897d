"""How does MacGNN score many items for one user in one loop? Machine code, imported when first needed.

Items stand side by side in columns, W at a time, so that every loop over w is one over neighbouring numbers; a number
depends on its own column alone. What is the user's, and so the same for all of them, is computed once. None of the
loops holds the interpreter's lock; none checks bounds: callers do, but for the rows of nodes, which may be missing.

Of others the file calls ``prefetch`` alone: numba's cache of compiled loops sees changes of their own file only. Shape
letters: see ``macgnn_layout``.
"""

from typing import Any

import numpy as np
from numba import njit

from macrorec.graph.prefetch import prefetch
from macrorec.ops.macgnn_layout import WIDTH

_LOW, _LEAST, _MOST = np.float32(-1e30), np.float32(-87.0), np.float32(88.0)
_ZERO, _HALF, _ONE, _TINY = np.float32(0), np.float32(0.5), np.float32(1), np.float32(np.finfo(np.float32).tiny)
_LOG2E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504088896341), np.float32(0.693359375), np.float32(-2.12194440e-4)
_E0, _E1, _E2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_E3, _E4, _E5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_L0, _L1, _L2 = np.float32(7.0376836292e-2), np.float32(-1.1514610310e-1), np.float32(1.1676998740e-1)
_L3, _L4, _L5 = np.float32(-1.2420140846e-1), np.float32(1.4249322787e-1), np.float32(-1.6668057665e-1)
_L6, _L7, _L8 = np.float32(2.0000714765e-1), np.float32(-2.4999993993e-1), np.float32(3.3333331174e-1)
_ROOT = np.float32(0.707106781186547524)
_BIAS, _SHIFT, _MANTISSA, _BELOW = np.int32(127), np.int32(23), np.int32(0x007FFFFF), np.int32(126)
_HALF_BITS = np.int32(0x3F000000)


def kernel(function: Any, *more: str) -> Any:
    """Machine code that must not allocate: it counts no references. A product and a sum may be one operation; nothing
    else is reordered, unless ``more`` allows it."""
    options: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "_nrt": False}
    return njit(fastmath={"contract", "nsz", *more}, **options)(function)


@kernel
def exponential(x_W: Any, bits_W: Any, power_W: Any, width: int) -> None:
    """x = exp(x), between e^-87 and e^88, as in Cephes. ``power_W`` is ``bits_W`` read as float32."""
    for w in range(width):
        v = min(max(x_W[w], _LEAST), _MOST)
        n = np.floor(v * _LOG2E + _HALF)
        r = v - n * _LN2_HIGH - n * _LN2_LOW
        p = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
        x_W[w] = p * (r * r) + r + _ONE
        bits_W[w] = (np.int32(n) + _BIAS) << _SHIFT
    for w in range(width):
        x_W[w] *= power_W[w]


@kernel
def logarithm(x_W: Any, bits_W: Any, power_W: Any, width: int) -> None:
    """x = log(x) of normal positive numbers, as in Cephes."""
    for w in range(width):
        power_W[w] = x_W[w]
    for w in range(width):
        bits = bits_W[w]
        x_W[w] = np.float32((bits >> _SHIFT) - _BELOW)
        bits_W[w] = (bits & _MANTISSA) | _HALF_BITS
    for w in range(width):
        e, m = x_W[w], power_W[w]
        small = m < _ROOT
        e, m = (e - _ONE, m + m - _ONE) if small else (e, m - _ONE)
        z = m * m
        p = (((((((_L0 * m + _L1) * m + _L2) * m + _L3) * m + _L4) * m + _L5) * m + _L6) * m + _L7) * m + _L8
        x_W[w] = m + (p * m * z + e * _LN2_LOW - _HALF * z) + e * _LN2_HIGH


@kernel
def times(a_MK: Any, b_M: Any, x_KW: Any, out_MW: Any, width: int) -> None:
    """out = a x + b in the first columns; M and K are multiples of 4."""
    for m in range(0, a_MK.shape[0], 4):
        o0, o1, o2, o3 = out_MW[m], out_MW[m + 1], out_MW[m + 2], out_MW[m + 3]
        b0, b1, b2, b3 = b_M[m], b_M[m + 1], b_M[m + 2], b_M[m + 3]
        for w in range(width):
            o0[w], o1[w], o2[w], o3[w] = b0, b1, b2, b3
        for k in range(0, a_MK.shape[1], 4):
            x0, x1, x2, x3 = x_KW[k], x_KW[k + 1], x_KW[k + 2], x_KW[k + 3]
            a00, a01, a02, a03 = a_MK[m, k], a_MK[m, k + 1], a_MK[m, k + 2], a_MK[m, k + 3]
            a10, a11, a12, a13 = a_MK[m + 1, k], a_MK[m + 1, k + 1], a_MK[m + 1, k + 2], a_MK[m + 1, k + 3]
            a20, a21, a22, a23 = a_MK[m + 2, k], a_MK[m + 2, k + 1], a_MK[m + 2, k + 2], a_MK[m + 2, k + 3]
            a30, a31, a32, a33 = a_MK[m + 3, k], a_MK[m + 3, k + 1], a_MK[m + 3, k + 2], a_MK[m + 3, k + 3]
            for w in range(width):
                y0, y1, y2, y3 = x0[w], x1[w], x2[w], x3[w]
                o0[w] = o0[w] + a00 * y0 + a01 * y1 + a02 * y2 + a03 * y3
                o1[w] = o1[w] + a10 * y0 + a11 * y1 + a12 * y2 + a13 * y3
                o2[w] = o2[w] + a20 * y0 + a21 * y1 + a22 * y2 + a23 * y3
                o3[w] = o3[w] + a30 * y0 + a31 * y1 + a32 * y2 + a33 * y3


@kernel
def softmax(x_KW: Any, kept_KW: Any, n: int, masked: bool, room: Any, width: int) -> None:
    """Softmax over the first n rows; ``masked``: over those whose ``kept`` is above 0, the others get 0."""
    sum_W = room.sum_W
    for w in range(width):
        sum_W[w] = _LOW
    for k in range(n):
        x, kept = x_KW[k], kept_KW[k]
        if masked:
            for w in range(width):
                x[w] = x[w] if kept[w] > _ZERO else _LOW
        for w in range(width):
            sum_W[w] = max(sum_W[w], x[w])
    for k in range(n):
        x = x_KW[k]
        for w in range(width):
            x[w] -= sum_W[w]
        exponential(x, room.bits_W, room.power_W, width)
    for w in range(width):
        sum_W[w] = _ZERO
    for k in range(n):
        x = x_KW[k]
        for w in range(width):
            sum_W[w] += x[w]
    for w in range(width):
        sum_W[w] = _ONE / sum_W[w]
    for k in range(n):
        x, kept = x_KW[k], kept_KW[k]
        for w in range(width):
            x[w] *= sum_W[w]
        if masked:
            for w in range(width):
                x[w] = x[w] if kept[w] > _ZERO else _ZERO


@kernel
def combine(rules: Any, n: int, room: Any, width: int) -> None:
    """``weight`` = w a of (6) and (7) over n groups by ``count``, 0 in the rows beyond; ``logit`` is spoilt."""
    for k in range(n):
        count, weight = room.count_KW[k], room.weight_KW[k]
        if rules.weighted:
            for w in range(width):
                weight[w] = max(count[w], _ZERO) + _ONE
            logarithm(weight, room.bits_W, room.power_W, width)
            for w in range(width):
                weight[w] /= rules.tau
        elif rules.masked:
            for w in range(width):
                weight[w] = _ONE if count[w] > _ZERO else _ZERO
        else:
            for w in range(width):
                weight[w] = _ONE
    for k in range(n, len(room.weight_KW)):
        weight = room.weight_KW[k]
        for w in range(width):
            weight[w] = _ZERO
    if rules.weighted:
        softmax(room.weight_KW, room.count_KW, n, rules.masked, room, width)
    if rules.attends:
        softmax(room.logit_KW, room.count_KW, n, rules.masked, room, width)
        for k in range(n):
            weight, logit = room.weight_KW[k], room.logit_KW[k]
            for w in range(width):
                weight[w] *= logit[w]
    if rules.normalised:
        sum_W = room.sum_W
        for w in range(width):
            sum_W[w] = _ZERO
        for k in range(n):
            weight = room.weight_KW[k]
            for w in range(width):
                sum_W[w] += weight[w]
        for k in range(n):
            weight = room.weight_KW[k]
            for w in range(width):
                weight[w] /= max(sum_W[w], _TINY)


@kernel
def fill(rows_KW: Any, value_K: Any, n: int, width: int) -> None:
    """Every column of the first n rows is ``value_K``."""
    for k in range(n):
        row, value = rows_KW[k], value_K[k]
        for w in range(width):
            row[w] = value


@kernel
def spread(rows_KW: Any, value_BK: Any, first: int, n: int, width: int) -> None:
    """Rows of ``value_BK`` from ``first`` on, n numbers each, as columns; columns beyond the last repeat it."""
    for w in range(width):
        b = min(first + w, len(value_BK) - 1)
        for k in range(n):
            rows_KW[k, w] = value_BK[b, k]


@kernel
def fetch(table_ND: Any, n: int) -> None:
    """Ask for the row of a node, if it has one."""
    if 0 <= n < len(table_ND):
        for d in range(0, table_ND.shape[1], 16):
            prefetch(table_ND, n, d)
        prefetch(table_ND, n, table_ND.shape[1] - 1)


@kernel
def place(table_ND: Any, number: int, groups_KD: Any, group: int, own_group: bool, out_DW: Any, w: int) -> None:
    """E of a node, and of its group, as column w; zero for one without a row."""
    dim = table_ND.shape[1]
    there = 0 <= number < len(table_ND)
    for d in range(dim):
        out_DW[d, w] = table_ND[number, d] if there else _ZERO
    if own_group and 0 <= group < len(groups_KD):
        for d in range(dim):
            out_DW[d, w] += groups_KD[group, d]


def _product(table_ND: Any, n: int, query_D: Any) -> Any:
    """<row n, query>."""
    total = _ZERO
    for d in range(table_ND.shape[1]):
        total += table_ND[n, d] * query_D[d]
    return total


product = kernel(_product, "reassoc")


@kernel
def gather(table_ND: Any, number_BR: Any, first: int, attends: bool, room: Any, out_DW: Any, width: int) -> None:
    """sum_r a_r E_r over the recents of items from ``first`` on, one column each; a_r faces ``query``."""
    dim, n, logit_RW, kept_RW = table_ND.shape[1], number_BR.shape[1], room.logit_KW, room.count_KW
    for b in range(first, min(first + width, len(number_BR))):
        for r in range(n):
            fetch(table_ND, number_BR[b, r])
    for w in range(width):
        b = min(first + w, len(number_BR) - 1)
        for r in range(n):
            node, logit = number_BR[b, r], _ZERO
            there = 0 <= node < len(table_ND)
            if there and attends:
                logit = product(table_ND, node, room.query_D)
            logit_RW[r, w], kept_RW[r, w] = logit, _ONE if there else _ZERO
    if attends:
        softmax(logit_RW, kept_RW, n, True, room, width)
    for w in range(width):
        b = min(first + w, len(number_BR) - 1)
        for d in range(dim):
            room.sum_D[d] = _ZERO
        for r in range(n):
            node = number_BR[b, r]
            if 0 <= node < len(table_ND):
                weight = logit_RW[r, w] if attends else _ONE
                for d in range(dim):
                    room.sum_D[d] += weight * table_ND[node, d]
        for d in range(dim):
            out_DW[d, w] = room.sum_D[d]


@kernel
def meet(net: Any, rules: Any, seen: Any, room: Any) -> int:
    """The user's part: E_u, its queries, second hop and recents, and what the first layer makes of them.

    Returns how many recents there are.
    """
    n_d, n_p, dim = len(room.user_D1), len(seen.user_hop2_P), net.items_ID.shape[1]
    place(net.users_UD, seen.user[0], net.user_groups_PD, seen.user[1], rules.own_group, room.user_D1, 0)
    facing = rules.attends and (rules.hop2 or rules.item_side)
    if facing:
        times(net.user_keys_PD, room.zeros_K, room.user_D1, room.facing_K1, 1)
        times(net.user_query_DD, room.zeros_K, room.user_D1, room.query_D1, 1)
        for d in range(n_d):
            room.query_D[d] = room.query_D1[d, 0]
    constant_M = room.constant_M
    for m in range(net.sizes[1]):
        constant_M[m] = net.biases[m]
    for d in range(dim):
        add(net.user_KM, d, room.user_D1[d, 0], constant_M)
    at = n_d
    if rules.hop2:
        fill(room.count_KW, seen.user_hop2_P, n_p, 1)
        if facing:
            fill(room.logit_KW, room.facing_K1[:, 0], n_p, 1)
        combine(rules, n_p, room, 1)
        for p in range(n_p):  # of V and the first layer, of every group
            add(net.user_KM, at + p, room.weight_KW[p, 0], constant_M)
        at += -(-n_p // 4) * 4
    if rules.volumes:
        for c in range(len(seen.user_volume_C)):
            add(net.user_KM, at + c, np.log1p(max(seen.user_volume_C[c], _ZERO)), constant_M)

    n_kept = 0
    if rules.recents:
        for r in range(len(seen.user_recent_R)):
            i = seen.user_recent_R[r]
            if 0 <= i < len(net.items_ID):
                for d in range(dim):
                    room.recent_DR[d, n_kept] = net.items_ID[i, d]
                n_kept += 1
        for d in range(n_d):
            for r in range(n_kept, -(-n_kept // 4) * 4):
                room.recent_DR[d, r] = _ZERO
        if rules.attends:
            times(net.item_query_DD, room.zeros_K, room.recent_DR, room.keys_DR, n_kept)
            for r in range(n_kept):
                for d in range(n_d):
                    room.keys_RD[r, d] = room.keys_DR[d, r]
    return n_kept


@kernel
def add(rows_KM: Any, k: int, factor: float, out_M: Any) -> None:
    """out += factor x row k."""
    for m in range(rows_KM.shape[1]):
        out_M[m] += factor * rows_KM[k, m]


@kernel
def collect(net: Any, rules: Any, seen: Any, room: Any, n_kept: int, first: int, width: int) -> None:
    """The first layer's inputs of a block of items: see ``Net.layers``."""
    x_KW, n_d, last, zeros_K = room.inputs_KW, len(room.user_D1), len(seen.item_B) - 1, room.zeros_K
    n_q, n_p = len(seen.user_hop1_Q), len(seen.user_hop2_P)
    for b in range(first, min(first + width, last + 1)):
        fetch(net.items_ID, seen.item_B[b])
    for w in range(width):
        b = min(first + w, last)
        place(net.items_ID, seen.item_B[b], net.item_groups_QD, seen.item_group_B[b], rules.own_group, x_KW, w)
    at = n_d
    for hop in range(2 if rules.hop2 and rules.item_side else 1):
        if hop == 0:
            fill(room.count_KW, seen.user_hop1_Q, n_q, width)
        else:
            spread(room.count_KW, seen.item_hop2_BQ, first, n_q, width)
        if rules.attends:
            times(net.item_keys_QD, zeros_K, x_KW, room.logit_KW, width)
        combine(rules, n_q, room, width)
        times(net.item_groups_DQ, zeros_K, room.weight_KW, x_KW[at : at + n_d], width)
        at += n_d
    if rules.recents:
        n_r = -(-n_kept // 4) * 4
        if rules.attends:
            times(room.keys_RD[:n_r], zeros_K, x_KW, room.logit_KW, width)
            softmax(room.logit_KW, room.count_KW, n_kept, False, room, width)
        for r in range(0 if not rules.attends else n_kept, n_r):
            row = room.logit_KW[r]
            for w in range(width):
                row[w] = _ONE if r < n_kept else _ZERO
        times(room.recent_DR[:, :n_r], zeros_K, room.logit_KW, x_KW[at : at + n_d], width)
        at += n_d
    if rules.item_side:
        spread(room.count_KW, seen.item_hop1_BP, first, n_p, width)
        if rules.attends:
            fill(room.logit_KW, room.facing_K1[:, 0], n_p, width)
        combine(rules, n_p, room, width)
        times(net.user_groups_DP, zeros_K, room.weight_KW, x_KW[at : at + n_d], width)
        at += n_d
        if rules.recents:
            gather(net.users_UD, seen.item_recent_BR, first, rules.attends, room, x_KW[at : at + n_d], width)
            at += n_d
    if rules.volumes:
        for c in range(len(seen.user_volume_C)):
            for w in range(width):
                x_KW[at + c, w] = np.log1p(max(seen.item_volume_BC[min(first + w, last), c], _ZERO))


@kernel
def read_out(net: Any, room: Any, width: int) -> None:
    """The readout's layers; the logits come into the first row of ``weight_KW``."""
    x_KW, one_MW, other_MW, at, unit = room.inputs_KW, room.one_MW, room.other_MW, 0, 0
    last = len(net.sizes) - 2
    for layer in range(last + 1):
        n_in, n_out = net.sizes[layer], net.sizes[layer + 1]
        matrix = net.layers[at : at + n_in * n_out].reshape(n_out, n_in)
        times(matrix, room.constant_M if layer == 0 else net.biases[unit:], x_KW, one_MW, width)
        if layer < last:
            for m in range(n_out):
                row, gate_W = one_MW[m], other_MW[m]
                scale, shift, alpha = net.scales[unit + m], net.shifts[unit + m], net.alphas[unit + m]
                for w in range(width):
                    gate_W[w] = -(row[w] * scale + shift)
                exponential(gate_W, room.bits_W, room.power_W, width)
                for w in range(width):
                    row[w] *= alpha + (_ONE - alpha) / (_ONE + gate_W[w])
        at, unit = at + n_in * n_out, unit + n_out
        x_KW, one_MW, other_MW = one_MW, other_MW, one_MW
    for w in range(width):
        room.weight_KW[0, w] = x_KW[0, w]


@kernel
def score(net: Any, rules: Any, seen: Any, room: Any, out_B: Any) -> None:
    """Logits of one user with B items."""
    n_items, user = len(out_B), seen.user[0]
    n_blocks = -(-n_items // WIDTH)
    step = -(-n_items // (8 * max(n_blocks, 1))) * 8
    n_kept = meet(net, rules, seen, room)
    for block in range(n_blocks):
        first = block * step
        collect(net, rules, seen, room, n_kept, first, step)
        read_out(net, room, step)
        for b in range(first, min(first + step, n_items)):
            logit = room.weight_KW[0, b - first]
            if rules.biased and 0 <= user < len(net.user_bias_U):
                logit += net.user_bias_U[user]
            if rules.biased and 0 <= seen.item_B[b] < len(net.item_bias_I):
                logit += net.item_bias_I[seen.item_B[b]]
            out_B[b] = logit
