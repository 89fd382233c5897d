"""Which loops lay events out in lists, sum them to rows and hand rows out? Machine code, imported when first needed.

None of them calls another: numba's cache of compiled loops sees changes of their own file only. None holds the
interpreter's lock; none checks bounds: callers do. A kernel over ``lo : hi`` writes these rows alone, so results do not
depend on the number of threads. Shape letters: see ``slabs``; B impressions, K and D columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numba import njit

from macrorec.graph.slabs import Events, Rows, Slabs

Array = npt.NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """``function`` as machine code, which must not allocate: it counts no references.

    Else numba counts every array of a tuple up and down whenever it is looked at, and takes ten times as long for an
    event.
    """
    options: dict[str, Any] = {"nogil": True, "cache": True, "_nrt": False}
    compiled: F = njit(**options)(function)
    return compiled


@kernel
def first_bad(events: Events, n_users: int, n_items: int, most: float) -> int:
    """The first event outside the tables, or whose weight is not in [0, most]; -1 if all are good."""
    for e in range(len(events.user_E)):
        known = 0 <= events.user_E[e] < n_users and 0 <= events.item_E[e] < n_items
        if not (known and 0 <= events.weight_E[e] <= most):
            return e
    return -1


@kernel
def fill(slabs: Slabs, node_E: Array, other_E: Array, weight_E: Array, time_E: Array) -> None:
    """Events in the order of time into the lists of their nodes, which have room for them."""
    for e in range(len(node_E)):
        n = node_E[e]
        at = slabs.start_N[n] + slabs.size_N[n]
        slabs.key[at], slabs.value[at], slabs.time[at] = other_E[e], weight_E[e], time_E[e]
        slabs.size_N[n] += 1


@kernel
def move(old: Slabs, new: Slabs) -> None:
    """The lists of ``old`` into the empty, large enough ones of ``new``."""
    for n in range(len(old.start_N)):
        a, b = old.start_N[n], new.start_N[n]
        for e in range(old.size_N[n]):
            new.key[b + e] = old.key[a + e]
            new.value[b + e] = old.value[a + e]
        if len(old.time):
            for e in range(old.size_N[n]):
                new.time[b + e] = old.time[a + e]
        new.size_N[n] = old.size_N[n]


@kernel
def merge(slabs: Slabs, old_N: Array, key_M: Array, value_M: Array, time_M: Array) -> None:
    """Put lists in the order of time whose first old_n entries are, and the others, too; equal times as they stand.

    ``key_M``, ``value_M``, ``time_M`` are room for the other entries of any one list.
    """
    key, value, time = slabs.key, slabs.value, slabs.time
    for n in range(len(old_N)):
        first, a = slabs.start_N[n], old_N[n]
        b = slabs.size_N[n] - a
        if a == 0 or b == 0 or time[first + a - 1] <= time[first + a]:
            continue
        for e in range(b):
            key_M[e], value_M[e], time_M[e] = key[first + a + e], value[first + a + e], time[first + a + e]
        i, j = a - 1, b - 1
        while j >= 0:
            at = first + i + j + 1
            if i >= 0 and time[first + i] > time_M[j]:
                key[at], value[at], time[at] = key[first + i], value[first + i], time[first + i]
                i -= 1
            else:
                key[at], value[at], time[at] = key_M[j], value_M[j], time_M[j]
                j -= 1


@kernel
def sum_weights(slabs: Slabs, out_N: Array, lo: int, hi: int) -> None:
    """out_n = sum_e w_e over the events of n."""
    for n in range(lo, hi):
        total = 0.0
        for e in range(slabs.start_N[n], slabs.start_N[n] + slabs.size_N[n]):
            total += slabs.value[e]
        out_N[n] = total


@kernel
def sum_groups(slabs: Slabs, group_M: Array, out_NK: Array, lo: int, hi: int) -> None:
    """out_n[k] = sum_e w_e over the events e of n whose other node m_e is in group k."""
    for n in range(lo, hi):
        for e in range(slabs.start_N[n], slabs.start_N[n] + slabs.size_N[n]):
            k = group_M[slabs.key[e]]
            if k >= 0:
                out_NK[n, k] += slabs.value[e]


@kernel
def sum_rows(slabs: Slabs, source: Rows, out_NK: Array, lo: int, hi: int) -> None:
    """out_n = sum_e w_e source[m_e] over the events e of n."""
    for n in range(lo, hi):
        for e in range(slabs.start_N[n], slabs.start_N[n] + slabs.size_N[n]):
            m, weight = slabs.key[e], np.float64(slabs.value[e])
            if len(source.dense_NK):
                for k in range(source.width):
                    out_NK[n, k] += weight * source.dense_NK[m, k]
            else:
                first = source.sparse.start_N[m]
                for f in range(first, first + source.sparse.size_N[m]):
                    out_NK[n, source.sparse.key[f]] += weight * source.sparse.value[f]


@njit(nogil=True, cache=True)
def sum_sparse(
    slabs: Slabs, group_M: Array, source: Rows, out: Slabs, counting: bool, width: int, lo: int, hi: int
) -> None:
    """``sum_groups``, or without ``group_M`` ``sum_rows``, into a sparse table of ``width`` columns.

    ``counting`` first, which only sets ``size_N``; then again into lists with that room.
    """
    acc, met = np.zeros(width), np.empty(width, np.int32)
    nodes, weights, y_MK, starts, sizes = (
        slabs.key,
        slabs.value,
        source.dense_NK,
        source.sparse.start_N,
        source.sparse.size_N,
    )
    columns, counts, out_key, out_value = source.sparse.key, source.sparse.value, out.key, out.value
    for n in range(lo, hi):
        n_met = 0
        for e in range(slabs.start_N[n], slabs.start_N[n] + slabs.size_N[n]):
            m, weight = nodes[e], np.float64(weights[e])
            if len(group_M):
                first, last = 0, 1 if group_M[m] >= 0 else 0
            elif len(y_MK):
                first, last = 0, width
            else:
                first, last = starts[m], starts[m] + sizes[m]
            for f in range(first, last):
                if len(group_M):
                    k, value = group_M[m], weight
                elif len(y_MK):
                    k, value = f, weight * y_MK[m, f]
                else:
                    k, value = columns[f], weight * counts[f]
                if value != 0:
                    if acc[k] == 0:
                        met[n_met] = k
                        n_met += 1
                    acc[k] += value
        ordered = np.sort(met[:n_met])
        for place in range(n_met):
            if not counting:
                at = out.start_N[n] + place
                out_key[at], out_value[at] = ordered[place], acc[ordered[place]]
            acc[ordered[place]] = 0
        out.size_N[n] = n_met


@kernel
def take(x_KD: Array, index_B: Array, out_BD: Array, lo: int, hi: int) -> None:
    """out_b = x[index_b]."""
    for b in range(lo, hi):
        k = index_B[b]
        for d in range(x_KD.shape[1]):
            out_BD[b, d] = x_KD[k, d]


@njit(nogil=True, cache=True)
def distinct(number_B: Array, distinct_K: Array, index_B: Array) -> int:
    """The K distinct numbers by first appearance; number_b = distinct_K[index_b]. By open addressing."""
    n_places = 1
    while n_places < 2 * len(number_B):
        n_places *= 2
    place, count = np.full(n_places, -1, np.int32), 0
    for b in range(len(number_B)):
        number = number_B[b]
        at = (number * 2654435761 >> 12) & (n_places - 1)
        while place[at] >= 0 and distinct_K[place[at]] != number:
            at = (at + 1) & (n_places - 1)
        if place[at] < 0:
            place[at] = count
            distinct_K[count] = number
            count += 1
        index_B[b] = place[at]
    return count
