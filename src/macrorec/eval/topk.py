"""Which k columns of each score row are best? Compiled selection: exact, one order, ties by column number.

The order is everywhere (-score, column). A column at -inf is unreachable; NaN is refused. Kernels release the
interpreter lock; ``macrorec.eval.ranking`` runs them over blocks of rows in threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]

WIDTH = 64
"""Columns that are compared with the current k-th best at once; the comparison vectorises."""


@njit(cache=True, nogil=True, inline="always")
def _worse(score_a, item_a, score_b, item_b):  # type: ignore[no-untyped-def]
    return score_a < score_b or (score_a == score_b and item_a > item_b)


@njit(cache=True, nogil=True)
def sift_down(heap_score_K, heap_item_K, size, place):  # type: ignore[no-untyped-def]
    """Restore the heap (worst entry at the root) below ``place``."""
    score, item = heap_score_K[place], heap_item_K[place]
    child = 2 * place + 1
    while child < size:
        other = child + 1
        if other < size and _worse(heap_score_K[other], heap_item_K[other], heap_score_K[child], heap_item_K[child]):
            child = other
        if not _worse(heap_score_K[child], heap_item_K[child], score, item):
            break
        heap_score_K[place], heap_item_K[place] = heap_score_K[child], heap_item_K[child]
        place, child = child, 2 * child + 1
    heap_score_K[place], heap_item_K[place] = score, item


@njit(cache=True, nogil=True)
def push(heap_score_K, heap_item_K, size, score, item):  # type: ignore[no-untyped-def]
    """Add an entry to a heap of ``size`` < K entries, or replace the root of a full one that is worse."""
    if size == len(heap_score_K):
        heap_score_K[0], heap_item_K[0] = score, item
        sift_down(heap_score_K, heap_item_K, size, 0)
        return size
    place = size
    while place > 0:
        parent = (place - 1) // 2
        if not _worse(score, item, heap_score_K[parent], heap_item_K[parent]):
            break
        heap_score_K[place], heap_item_K[place] = heap_score_K[parent], heap_item_K[parent]
        place = parent
    heap_score_K[place], heap_item_K[place] = score, item
    return size + 1


@njit(cache=True, nogil=True)
def unheap(heap_score_K, heap_item_K, size):  # type: ignore[no-untyped-def]
    """Sort a heap in place, best first; places from ``size`` on become (-inf, -1)."""
    for place in range(size, len(heap_score_K)):
        heap_score_K[place], heap_item_K[place] = -np.inf, -1
    for last in range(size - 1, 0, -1):
        heap_score_K[0], heap_score_K[last] = heap_score_K[last], heap_score_K[0]
        heap_item_K[0], heap_item_K[last] = heap_item_K[last], heap_item_K[0]
        sift_down(heap_score_K, heap_item_K, last, 0)


@njit(cache=True, nogil=True)
def has(sorted_M, value):  # type: ignore[no-untyped-def]
    """Whether ``value`` stands in ``sorted_M``."""
    low, high = 0, len(sorted_M)
    while low < high:
        middle = (low + high) // 2
        if sorted_M[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low < len(sorted_M) and sorted_M[low] == value


@njit(cache=True, nogil=True)
def scan(scores_I, first, masked_M, heap_score_K, heap_item_K, size):  # type: ignore[no-untyped-def]
    """Offer columns first, first + 1, ... with ``scores_I`` to a heap; returns its new size, or -1 on NaN.

    Columns must be offered in ascending order: then an equal score never replaces an earlier one.
    """
    k = len(heap_score_K)
    threshold = heap_score_K[0] if size == k else -np.inf
    for start in range(0, len(scores_I), WIDTH):
        stop = min(start + WIDTH, len(scores_I))
        count = 0
        for i in range(start, stop):
            count += not (scores_I[i] <= threshold)  # also true of NaN
        if count == 0:
            continue
        for i in range(start, stop):
            score = scores_I[i]
            if score <= threshold:
                continue
            if score != score:
                return -1
            if has(masked_M, first + i):
                continue
            size = push(heap_score_K, heap_item_K, size, score, first + i)
            if size == k:
                threshold = heap_score_K[0]
    return size


@njit(cache=True, nogil=True)
def select(scores_BI, masked_start_B, masked_E, items_BK, best_BK):  # type: ignore[no-untyped-def]
    """The best K columns of each row into ``items_BK``, ``best_BK``; returns the first row with NaN, or -1.

    The masked columns of row b are masked_E[masked_start_B[b] : masked_start_B[b + 1]], ascending.
    """
    for b in range(len(scores_BI)):
        masked_M = masked_E[masked_start_B[b] : masked_start_B[b + 1]]
        size = scan(scores_BI[b], 0, masked_M, best_BK[b], items_BK[b], 0)
        if size < 0:
            return b
        unheap(best_BK[b], items_BK[b], size)
    return -1
