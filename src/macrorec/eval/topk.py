"""Which k items of a score row are best? Compiled selection: exact, in one order, for any block size.

The order is everywhere (-score, item). An item at -inf is unreachable; NaN is refused. Kernels release the interpreter
lock, and ``macrorec.eval.ranking`` runs them over blocks of rows in threads.

``search`` also multiplies: it walks item vectors in tiles small enough for the cache, two users at a time, adding over
the embedding in one fixed order, so a score depends on its user and item alone. Tiles come in descending vector norm;
once |u| |v| < the k-th best score of u, no later item can enter (Cauchy-Schwarz), and the rest is skipped.

Shape letters: B users, I items, D embedding, T tiles, W items of a tile, K ranks, M masked items of a user.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]

WIDTH = 32
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
def scan(scores_W, first, items_W, masked_M, heap_score_K, heap_item_K, size):  # type: ignore[no-untyped-def]
    """Offer one stretch of a score row to a heap; returns the heap's new size, or -1 on NaN.

    The items are ``items_W``; or, where that is None, first, first + 1, ..., offered in ascending order, so that an
    equal score never replaces an earlier one.
    """
    k = len(heap_score_K)
    threshold = heap_score_K[0] if size == k else np.float32(-np.inf)
    n = len(scores_W)
    for start in range(0, n, WIDTH):
        if start + WIDTH <= n:
            count = np.int32(0)
            if items_W is None:
                for w in range(WIDTH):
                    count += np.int32(not (scores_W[start + w] <= threshold))  # also true of NaN
            else:
                for w in range(WIDTH):
                    count += np.int32(not (scores_W[start + w] < threshold))
            if count == 0:
                continue
        for w in range(start, min(start + WIDTH, n)):
            score = scores_W[w]
            if score < threshold or score == -np.inf:
                continue
            if score != score:
                return -1
            item = first + w if items_W is None else items_W[w]
            if size == k and not _worse(threshold, heap_item_K[0], score, item):
                continue
            if has(masked_M, item):
                continue
            size = push(heap_score_K, heap_item_K, size, score, item)
            if size == k:
                threshold = heap_score_K[0]
    return size


@njit(cache=True, nogil=True)
def select(scores_BI, masked_start_B, masked_E, items_BK, best_BK):  # type: ignore[no-untyped-def]
    """The best K columns of each score row into ``items_BK``, ``best_BK``; returns the first row with NaN, or -1.

    The masked columns of row b are masked_E[masked_start_B[b] : masked_start_B[b + 1]], ascending.
    """
    for b in range(len(scores_BI)):
        masked_M = masked_E[masked_start_B[b] : masked_start_B[b + 1]]
        size = scan(scores_BI[b], 0, None, masked_M, best_BK[b], items_BK[b], 0)
        if size < 0:
            return b
        unheap(best_BK[b], items_BK[b], size)
    return -1


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"}, error_model="numpy")
def multiply(x_D, y_D, tile_DW, x_scores_W, y_scores_W):  # type: ignore[no-untyped-def]
    """Inner products of two users with a tile, added in the order of D, which is a multiple of 8."""
    for w in range(tile_DW.shape[1]):
        x_scores_W[w] = 0
        y_scores_W[w] = 0
    for d in range(0, tile_DW.shape[0], 8):
        x0, x1, x2, x3 = x_D[d], x_D[d + 1], x_D[d + 2], x_D[d + 3]
        x4, x5, x6, x7 = x_D[d + 4], x_D[d + 5], x_D[d + 6], x_D[d + 7]
        y0, y1, y2, y3 = y_D[d], y_D[d + 1], y_D[d + 2], y_D[d + 3]
        y4, y5, y6, y7 = y_D[d + 4], y_D[d + 5], y_D[d + 6], y_D[d + 7]
        t0, t1, t2, t3 = tile_DW[d], tile_DW[d + 1], tile_DW[d + 2], tile_DW[d + 3]
        t4, t5, t6, t7 = tile_DW[d + 4], tile_DW[d + 5], tile_DW[d + 6], tile_DW[d + 7]
        for w in range(tile_DW.shape[1]):
            x, y = x_scores_W[w], y_scores_W[w]
            x, y = x + x0 * t0[w], y + y0 * t0[w]
            x, y = x + x1 * t1[w], y + y1 * t1[w]
            x, y = x + x2 * t2[w], y + y2 * t2[w]
            x, y = x + x3 * t3[w], y + y3 * t3[w]
            x, y = x + x4 * t4[w], y + y4 * t4[w]
            x, y = x + x5 * t5[w], y + y5 * t5[w]
            x, y = x + x6 * t6[w], y + y6 * t6[w]
            x, y = x + x7 * t7[w], y + y7 * t7[w]
            x_scores_W[w], y_scores_W[w] = x, y


@njit(cache=True, nogil=True)
def search(users_BD, norm_B, tiles_TDW, norm_T, items_I, masked_start_B, masked_E, items_BK, best_BK):  # type: ignore[no-untyped-def]
    """The best K items by inner product into ``items_BK``, ``best_BK``; returns the first row with NaN, or -1.

    ``tiles_TDW`` holds the vectors of ``items_I`` in that order, padded with zeros; ``norm_T``, descending, is the
    largest norm in each tile. Norms are upper bounds.
    """
    n, width = len(users_BD), tiles_TDW.shape[2]
    sizes = np.zeros(n, np.int64)
    scores_2W = np.empty((2, width), np.float32)
    for t in range(len(tiles_TDW)):
        items_W = items_I[t * width : (t + 1) * width]
        for b in range(0, n, 2):
            c = min(b + 1, n - 1)
            open_b = sizes[b] < best_BK.shape[1] or norm_B[b] * norm_T[t] >= best_BK[b, 0]
            open_c = sizes[c] < best_BK.shape[1] or norm_B[c] * norm_T[t] >= best_BK[c, 0]
            if not (open_b or open_c):
                continue
            multiply(users_BD[b], users_BD[c], tiles_TDW[t], scores_2W[0], scores_2W[1])
            for row in range(b, c + 1):
                masked_M = masked_E[masked_start_B[row] : masked_start_B[row + 1]]
                scores_W = scores_2W[row - b, : len(items_W)]
                size = scan(scores_W, 0, items_W, masked_M, best_BK[row], items_BK[row], sizes[row])
                if size < 0:
                    return row
                sizes[row] = size
    for b in range(n):
        unheap(best_BK[b], items_BK[b], sizes[b])
    return -1
