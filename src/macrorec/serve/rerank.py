"""What is the exact score of each candidate? The same sums, to the bit, as an exact search over all items makes.

Shape letters: B queries, I items of the fit, N items announced since, C candidates, M found roughly, D embedding, W of
a block, K ranks.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from macrorec.eval.topk import multiply, push, unheap
from macrorec.graph.prefetch import prefetch

BLOCK = 144
"""W, candidates multiplied at once. Rows of an odd number of cache lines: with 512, writing down the columns of a tile
hits the same few places of the cache again and again, 50 us for 260 candidates instead of 9."""


@njit(cache=True, nogil=True)
def score(vectors_BD, items_ID, later_ND, numbers_BC, scores_BC):  # type: ignore[no-untyped-def]
    """Inner products of each query with its candidates into ``scores_BC``; -inf where a number is negative.

    Numbers from I on are rows of ``later_ND``. Vectors are gathered into tiles and multiplied as ``eval.topk.search``
    does, so scores are those of an exact search. D of ``vectors_BD`` is a multiple of 8; beyond D of ``items_ID`` are
    zeros.
    """
    n_items, dim = items_ID.shape
    tile_DW = np.zeros((vectors_BD.shape[1], BLOCK), np.float32)
    scores_2W = np.empty((2, BLOCK), np.float32)
    for b in range(len(vectors_BD)):
        n = numbers_BC.shape[1]
        for start in range(0, n, BLOCK):
            stop = min(start + BLOCK, n)
            for c in range(start, stop):
                item = numbers_BC[b, c]
                if 0 <= item < n_items:
                    for d in range(0, dim, 16):
                        prefetch(items_ID, item, d)
            for c in range(start, stop):
                item = numbers_BC[b, c]
                if item < 0:
                    continue
                row_D = items_ID[item] if item < n_items else later_ND[item - n_items]
                for d in range(dim):
                    tile_DW[d, c - start] = row_D[d]
            multiply(vectors_BD[b], vectors_BD[b], tile_DW, scores_2W[0], scores_2W[1])
            for c in range(start, stop):
                scores_BC[b, c] = scores_2W[0, c - start] if numbers_BC[b, c] >= 0 else -np.inf


@njit(cache=True, nogil=True)
def take(numbers_M, scores_M, heap_score_K, heap_item_K):  # type: ignore[no-untyped-def]
    """The best K of M items by (-score, number) into two heaps; how many there are. Numbers below 0 are none."""
    size = 0
    for m in range(len(numbers_M)):
        score, item = scores_M[m], numbers_M[m]
        if item < 0:
            continue
        if size == len(heap_item_K):
            least, last = heap_score_K[0], heap_item_K[0]
            if score < least or (score == least and item > last):
                continue
        size = push(heap_score_K, heap_item_K, size, score, item)
    return size


@njit(cache=True, nogil=True)
def best(vectors_BD, items_ID, later_ND, rough_BM, numbers_BM, wanted, numbers_BK, scores_BK):  # type: ignore[no-untyped-def]
    """The K of largest inner product among those ``wanted`` of M items whose rough score is best; -1 and -inf beyond.

    By (-score, number); scores as ``score`` has them.
    """
    chosen_1C, rough_C = np.empty((1, wanted), np.int64), np.empty(wanted, np.float32)
    exact_1C = np.empty((1, wanted), np.float32)
    for b in range(len(vectors_BD)):
        n = take(numbers_BM[b], rough_BM[b], rough_C, chosen_1C[0])
        chosen_1C[0, n:] = -1
        score(vectors_BD[b : b + 1], items_ID, later_ND, chosen_1C, exact_1C)
        unheap(scores_BK[b], numbers_BK[b], take(chosen_1C[0], exact_1C[0], scores_BK[b], numbers_BK[b]))
