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
    like: Array,
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
    n_near, n_neighbors = near_item.shape[0], near_item.shape[2]
    again = 3 * n_behaviors  # after sum of cosines, sum of shares and largest share of each behaviour; without the user
    near = again + 3 * target
    bought = near + 2 * target
    sums = np.empty((n_items + 1, bought + 1 + 2 * n_near), np.float32)  # of the items asked for; row 0 is nobody's
    place = np.zeros(n_items, np.int32)
    mark = np.zeros((n_items, n_behaviors), np.int8)
    size, known = np.zeros(n_behaviors), np.zeros(n_behaviors)
    habit, choice = np.zeros(target), np.zeros(target)
    profile, interest = np.zeros(like.shape[1], np.float32), np.zeros(like.shape[1], np.float32)
    begin = end = lo
    for b in range(lo, hi):
        u, p = users[b], held[b]
        if b == end:  # the first of this user's tables: what does not depend on the purchase is collected for all
            begin, n_places = b, 0
            while end < hi and users[end] == u:
                end += 1
            for c in range(start[b], start[end]):
                if not place[items[c]]:
                    n_places += 1
                    place[items[c]] = n_places
            sums[: n_places + 1] = 0
            known[:] = 0
            for r in range(target, -1, -1):
                size[r] = rows_start[r, u + 1] - rows_start[r, u]
                for e in range(rows_start[r, u], rows_start[r, u + 1]):
                    mark[rows_item[e], r] = 1
                    known[r] += mark[rows_item[e], target]
            interest[:] = 0
            for r in range(target):
                for e in range(rows_start[r, u], rows_start[r, u + 1]):
                    j = rows_item[e]
                    interest += like[j]
                    for q in range(led_start[r, j], led_start[r, j + 1]):
                        i = led_item[q]
                        n = place[i]
                        if n:
                            share = led_count[q] / (degree[r, j] + shrinkage)
                            sums[n, 3 * r] += led_value[q]
                            sums[n, 3 * r + 1] += share
                            sums[n, 3 * r + 2] = max(sums[n, 3 * r + 2], share)
                            if mark[i, target]:
                                share, at = (led_count[q] - 1) / (degree[r, j] + shrinkage), again + 3 * r
                                rest = math.sqrt((degree[target, i] - 1) * degree[r, j]) + shrinkage
                                sums[n, at] += (led_count[q] - 1) / rest
                                sums[n, at + 1] += share
                                sums[n, at + 2] = max(sums[n, at + 2], share)
                    for k in range(n_neighbors):
                        n, w, at = place[near_item[r, j, k]], near_value[r, j, k], near + 2 * r
                        if n:
                            sums[n, at] += w
                            sums[n, at + 1] = max(sums[n, at + 1], w)
            length = math.sqrt(_inner(interest, interest))
            if length:
                interest /= length
        own = 1.0 if p >= 0 and mark[p, target] else 0.0
        profile[:] = 0
        sums[: n_places + 1, 3 * target : again] = 0
        sums[: n_places + 1, bought:] = 0
        for e in range(rows_start[target, u], rows_start[target, u + 1]):
            j = rows_item[e]
            if j == p:
                continue
            profile += like[j]
            for q in range(led_start[target, j], led_start[target, j + 1]):
                i, w, count = led_item[q], led_value[q], led_count[q]
                n = place[i]
                if n:
                    if i == p:
                        count -= 1
                        w = count / (math.sqrt((degree[target, i] - 1) * degree[target, j]) + shrinkage)
                    share = count / (degree[target, j] + shrinkage)
                    sums[n, 3 * target] += w
                    sums[n, 3 * target + 1] += share
                    sums[n, 3 * target + 2] = max(sums[n, 3 * target + 2], share)
                    sums[n, bought] = max(sums[n, bought], w)
            for r in range(n_near):
                for k in range(n_neighbors):
                    n, w, at = place[near_item[r, j, k]], near_value[r, j, k], bought + 1 + 2 * r
                    if n:
                        sums[n, at] += w
                        sums[n, at + 1] = max(sums[n, at + 1], w)
        n_bought = size[target] - own
        for r in range(target):
            n_known = known[r] - (own if p >= 0 and mark[p, r] else 0.0)
            habit[r] = (n_known + 1) / (n_bought + 2)
            choice[r] = math.log1p(size[r] - n_known)
        for c in range(start[b], start[b + 1]):
            i, n, column = items[c], place[items[c]], 0
            held_here = own if i == p else 0.0
            for r in range(target):
                edge, at = float(mark[i, r]), again + 3 * r if held_here else 3 * r
                out[c, column] = edge
                out[c, column + 1] = fixed[i, 2 * r]
                out[c, column + 2] = fixed[i, 2 * r + 1]
                if edge:
                    buyers, others = both[r, i] - mark[i, target], degree[r, i] - 1
                    out[c, column + 1] = math.log((buyers + prior * mean[r]) / (others + prior) / mean[r])
                    out[c, column + 2] = math.log1p(others)
                out[c, column + 3] = habit[r]
                out[c, column + 4] = choice[r]
                out[c, column + 5] = math.sqrt(sums[n, at])
                out[c, column + 6] = math.sqrt(sums[n, at + 1])
                out[c, column + 7] = sums[n, at + 2]
                out[c, column + 8] = sums[n, near + 2 * r] / max(size[r] - edge, 1.0)
                out[c, column + 9] = sums[n, near + 2 * r + 1]
                column += 10
            for at in range(bought + 1, bought + 1 + 2 * n_near):
                out[c, column] = sums[n, at]
                column += 1
            out[c, column] = math.log1p(degree[target, i] - 1) if held_here else fixed[i, 2 * target]
            out[c, column + 1] = math.log1p(n_bought)
            out[c, column + 2] = math.sqrt(sums[n, 3 * target])
            out[c, column + 3] = sums[n, bought]
            out[c, column + 4] = math.sqrt(sums[n, 3 * target + 1])
            out[c, column + 5] = sums[n, 3 * target + 2]
            out[c, column + 6] = _inner(profile, like[i])
            out[c, column + 7] = _inner(interest, like[i])
            if mark[i, target] and not held_here:
                out[c, column + 6] -= _inner(like[i], like[i])
        if b + 1 == end:
            for c in range(start[begin], start[end]):
                place[items[c]] = 0
            for r in range(n_behaviors):
                for e in range(rows_start[r, u], rows_start[r, u + 1]):
                    mark[rows_item[e], r] = 0


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _inner(left: Array, right: Array) -> float:
    """<left, right>, summed in the order of the processor's lanes."""
    total = np.float32(0)
    for d in range(len(left)):
        total += left[d] * right[d]
    return float(total)
