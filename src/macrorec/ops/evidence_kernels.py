"""Which loop collects the evidence of pairs as machine code? Imported only when it first runs.

It holds no interpreter's lock and checks no bounds: callers do. Every row of pairs is written by itself, in a fixed
order, so that results do not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]


@njit(nogil=True, cache=True)
def collect(
    users: Array,
    held: Array,
    start: Array,
    items: Array,
    rows_start: Array,
    rows_item: Array,
    degree: Array,
    both: Array,
    mean: Array,
    fixed: Array,
    led_start: Array,
    led_item: Array,
    led_count: Array,
    led_value: Array,
    near_item: Array,
    near_value: Array,
    prior: float,
    shrinkage: float,
    out: Array,
    lo: int,
    hi: int,
) -> None:
    """Write the table of the pairs of users ``lo : hi``; see ``macrorec.ops.evidence`` for its columns.

    Shapes:
        users, held (B,), start (B + 1,), items (C,); rows_start (R, U + 1), rows_item (E,); degree (R, I),
        both (R - 1, I), mean (R - 1,), fixed (I, 2 R - 1); led_start (R, I + 1), the other ``led`` (Q,);
        near_item and near_value (R - 1, I, K); out (C, 10 (R - 1) + 4)
    """
    n_behaviors, n_items = degree.shape
    target = n_behaviors - 1
    n_sums = n_behaviors + 1 + 4 * target
    sums = np.empty((n_items + 1, n_sums), np.float32)  # of the items asked for; row 0 is nobody's
    place = np.zeros(n_items, np.int32)
    mark = np.zeros((n_items, n_behaviors), np.int8)
    size, known = np.zeros(n_behaviors), np.zeros(n_behaviors)
    for b in range(lo, hi):
        u, p = users[b], held[b]
        own, n_places = 0.0, 0
        for c in range(start[b], start[b + 1]):
            if not place[items[c]]:
                n_places += 1
                place[items[c]] = n_places
        sums[: n_places + 1] = 0
        size[:] = 0
        known[:] = 0
        for e in range(rows_start[target, u], rows_start[target, u + 1]):
            j = rows_item[e]
            if j == p:
                own = 1.0
            else:
                mark[j, target] = 1
                size[target] += 1
        for r in range(target):
            for e in range(rows_start[r, u], rows_start[r, u + 1]):
                j = rows_item[e]
                mark[j, r] = 1
                size[r] += 1
                known[r] += mark[j, target]
        for r in range(n_behaviors):
            for e in range(rows_start[r, u], rows_start[r, u + 1]):
                j = rows_item[e]
                if r == target and j == p:
                    continue
                for q in range(led_start[r, j], led_start[r, j + 1]):
                    i, w = led_item[q], led_value[q]
                    n = place[i]
                    if not n:
                        continue
                    if i == p and own:
                        w = (led_count[q] - 1) / (math.sqrt((degree[target, i] - 1) * degree[r, j]) + shrinkage)
                    sums[n, r] += w
                    if r == target:
                        sums[n, n_behaviors] = max(sums[n, n_behaviors], w)
                if r < target:
                    at = n_behaviors + 1 + 4 * r
                    for k in range(near_item.shape[2]):
                        n, w = place[near_item[r, j, k]], near_value[r, j, k]
                        sums[n, at] += w
                        sums[n, at + 1] = max(sums[n, at + 1], w)
                else:
                    for s in range(target):
                        at = n_behaviors + 3 + 4 * s
                        for k in range(near_item.shape[2]):
                            n, w = place[near_item[s, j, k]], near_value[s, j, k]
                            sums[n, at] += w
                            sums[n, at + 1] = max(sums[n, at + 1], w)
        for c in range(start[b], start[b + 1]):
            i, n, column = items[c], place[items[c]], 0
            held_here = own if i == p else 0.0
            for r in range(target):
                edge, at = float(mark[i, r]), n_behaviors + 1 + 4 * r
                out[c, 0 + column] = edge
                out[c, 1 + column] = fixed[i, 2 * r]
                out[c, 2 + column] = fixed[i, 2 * r + 1]
                if edge:
                    buyers, others = both[r, i] - max(held_here, mark[i, target]), degree[r, i] - 1
                    out[c, 1 + column] = math.log((buyers + prior * mean[r]) / (others + prior) / mean[r])
                    out[c, 2 + column] = math.log1p(others)
                out[c, 3 + column] = (known[r] + 1) / (size[target] + 2)
                out[c, 4 + column] = math.log1p(size[r] - known[r])
                out[c, 5 + column] = math.sqrt(sums[n, r])
                out[c, 6 + column] = sums[n, at] / max(size[r] - edge, 1.0)
                out[c, 7 + column] = sums[n, at + 1]
                out[c, 8 + column] = sums[n, at + 2]
                out[c, 9 + column] = sums[n, at + 3]
                column += 10
            out[c, column] = math.log1p(degree[target, i] - 1) if held_here else fixed[i, 2 * target]
            out[c, 1 + column] = math.log1p(size[target])
            out[c, 2 + column] = math.sqrt(sums[n, target])
            out[c, 3 + column] = sums[n, n_behaviors]
        for c in range(start[b], start[b + 1]):
            place[items[c]] = 0
        for r in range(n_behaviors):
            for e in range(rows_start[r, u], rows_start[r, u + 1]):
                mark[rows_item[e], r] = 0
