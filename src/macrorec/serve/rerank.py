"""What is the exact score of each candidate? The same sums, to the bit, as an exact search over all items makes.

Shape letters: B queries, I items of the fit, N items announced since, C candidates, D embedding, W of a block.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from macrorec.eval.topk import multiply

BLOCK = 512
"""W, candidates multiplied at once; their vectors stay in the second-level cache."""


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
                if item < 0:
                    continue
                row_D = items_ID[item] if item < n_items else later_ND[item - n_items]
                for d in range(dim):
                    tile_DW[d, c - start] = row_D[d]
            multiply(vectors_BD[b], vectors_BD[b], tile_DW, scores_2W[0], scores_2W[1])
            for c in range(start, stop):
                scores_BC[b, c] = scores_2W[0, c - start] if numbers_BC[b, c] >= 0 else -np.inf
