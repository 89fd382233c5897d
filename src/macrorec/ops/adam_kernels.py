"""Which loops step single rows of a table by Adam, as if every row had been stepped every time?

A row that has no gradient still moves, by what its moments remember. Where nothing reads it meanwhile, these steps can
wait, and be made as one. Without a gradient, the j-th step after step s moves a number by

    lr beta1^j m / (1 - beta1^(s + j)) / (sqrt(beta2^j v / (1 - beta2^(s + j))) + eps)

which is lr m / sqrt(v) times r^j c(s + j), r = beta1 / sqrt(beta2), c(n) = sqrt(1 - beta2^n) / (1 - beta1^n), but for
eps. The sum over j of what does not depend on the row's numbers is fade(s) - r^k fade(s + k) for k missed steps, where
fade(n) = sum_{j >= 1} r^j c(n + j). What eps adds to sqrt(v) is taken as of the first missed step.
"""

from __future__ import annotations

import numpy as np
from numba import njit

ZERO = np.float32(0)


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def catch_up(table, moment, square, last, node, numbers, fade):  # type: ignore[no-untyped-def]
    """The steps of Adam that ``node`` has missed for want of a gradient, as one: see ``faded``."""
    lr, beta1, beta2, eps, step = numbers[2], numbers[3], numbers[4], numbers[5], int(numbers[7])
    since = last[node]
    missed = step - since
    if since == 0 or missed <= 0:
        return
    ratio = beta1 / np.sqrt(beta2)
    end = len(fade) - 1
    reach = fade[min(since, end)] - ratio**missed * fade[min(step, end)]
    floor = np.float32(eps * np.sqrt((1 - beta2 ** (since + 1)) / beta2))
    rate, keep, keep_square = np.float32(lr * reach), np.float32(beta1**missed), np.float32(beta2**missed)
    if keep < np.float32(1e-30):
        keep = ZERO  # and not a denormal number, which is slow
    for d in range(table.shape[1]):
        table[node, d] -= rate * moment[node, d] / (np.sqrt(square[node, d]) + floor)
        moment[node, d] *= keep
        square[node, d] *= keep_square
    last[node] = step


@njit(nogil=True, cache=True)
def catch_up_all(table, moment, square, last, numbers, fade, lo, hi):  # type: ignore[no-untyped-def]
    """``catch_up`` of the rows lo : hi."""
    for node in range(lo, hi):
        catch_up(table, moment, square, last, node, numbers, fade)


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def adam(table, moment, square, node, gradient, g, numbers):  # type: ignore[no-untyped-def]
    """One step of Adam for a row with ``gradient[g]`` (Kingma & Ba 2015, algorithm 1), with torch's weight decay."""
    lr, beta1, beta2, eps, decay, step = numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7] + 1
    rate, root = np.float32(lr / (1 - beta1**step)), np.float32(1 / np.sqrt(1 - beta2**step))
    b1, b2, floor, l2 = np.float32(1 - beta1), np.float32(1 - beta2), np.float32(eps), np.float32(decay)
    keep = np.float32(beta2)
    for d in range(table.shape[1]):
        slope = gradient[g, d] + l2 * table[node, d]
        m = moment[node, d] + b1 * (slope - moment[node, d])
        v = keep * square[node, d] + b2 * slope * slope
        moment[node, d], square[node, d] = m, v
        table[node, d] -= rate * m / (np.sqrt(v) * root + floor)


@njit(nogil=True, cache=True)
def decay(table, moment, square, last, node, nothing, numbers):  # type: ignore[no-untyped-def]
    """The step of a row that is not in the batch: its gradient is that of weight decay alone."""
    step = int(numbers[7]) + 1
    if last[node] < step:
        adam(table, moment, square, node, nothing, 0, numbers)
        last[node] = step
