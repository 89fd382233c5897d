"""Which loops step single rows of a table by Adam, as if every row had been stepped every time?

A row that has no gradient still moves, by what its moments remember. Where nothing reads it meanwhile, these steps can
wait, and be made as one. Without a gradient, the j-th step after step s moves a number by

    lr beta1^j m / (1 - beta1^(s + j)) / (sqrt(beta2^j v / (1 - beta2^(s + j))) + eps)

which is lr m / sqrt(v) times r^j c(s + j), r = beta1 / sqrt(beta2), c(n) = sqrt(1 - beta2^n) / (1 - beta1^n), but for
eps. The sum over j of what does not depend on the row's numbers is fade(s) - r^k fade(s + k) for k missed steps, where
fade(n) = sum_{j >= 1} r^j c(n + j). What eps adds to sqrt(v) is taken as of the first missed step.

Loops over rows stand inside the functions: to pass arrays counts references to them, by all threads, at 70 ns a call.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def catch_up(table, moment, square, last, node_R, lo, hi, numbers, fade):  # type: ignore[no-untyped-def]
    """The steps of Adam that node_R[lo:hi] have missed for want of a gradient, as one.

    Rows of ``fade`` (5, n): fade(n), r^n, beta1^n, beta2^n, and what eps is beside sqrt(v) after step n.
    """
    step, end = int(numbers[7]), fade.shape[1] - 1
    for r in range(lo, hi):
        node = node_R[r]
        since = last[node]
        if since == 0 or since >= step:
            continue
        now, then, after = min(step, end), min(since, end), min(step - since, end)
        rate = np.float32(numbers[2] * (fade[0, then] - fade[1, after] * fade[0, now]))
        keep, keep_square, floor = np.float32(fade[2, after]), np.float32(fade[3, after]), np.float32(fade[4, then])
        for d in range(table.shape[1]):
            table[node, d] -= rate * moment[node, d] / (np.sqrt(square[node, d]) + floor)
            moment[node, d] *= keep
            square[node, d] *= keep_square
        last[node] = step


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def adam(table, moment, square, last, node_R, lo, hi, gradient, numbers):  # type: ignore[no-untyped-def]
    """One step of node_R[lo:hi] by gradient[0 : hi - lo] (Kingma & Ba 2015, algorithm 1), with torch's weight decay."""
    rate, root, floor = np.float32(numbers[10]), np.float32(numbers[11]), np.float32(numbers[5])
    keep, b1, b2 = np.float32(numbers[4]), np.float32(1 - numbers[3]), np.float32(1 - numbers[4])
    step, l2 = int(numbers[7]) + 1, np.float32(numbers[6])
    for r in range(lo, hi):
        node = node_R[r]
        for d in range(table.shape[1]):
            slope = gradient[r - lo, d] + l2 * table[node, d]
            m = moment[node, d] + b1 * (slope - moment[node, d])
            v = keep * square[node, d] + b2 * slope * slope
            moment[node, d], square[node, d] = m, v
            table[node, d] -= rate * m / (np.sqrt(v) * root + floor)
        last[node] = step


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def decay(table, moment, square, last, lo, hi, numbers):  # type: ignore[no-untyped-def]
    """The step of those of the rows lo : hi that are not in the batch: their gradient is that of weight decay alone."""
    rate, root, floor = np.float32(numbers[10]), np.float32(numbers[11]), np.float32(numbers[5])
    keep, b1, b2 = np.float32(numbers[4]), np.float32(1 - numbers[3]), np.float32(1 - numbers[4])
    step, l2 = int(numbers[7]) + 1, np.float32(numbers[6])
    for node in range(lo, hi):
        if last[node] == step:
            continue
        for d in range(table.shape[1]):
            slope = l2 * table[node, d]
            m = moment[node, d] + b1 * (slope - moment[node, d])
            v = keep * square[node, d] + b2 * slope * slope
            moment[node, d], square[node, d] = m, v
            table[node, d] -= rate * m / (np.sqrt(v) * root + floor)
        last[node] = step
