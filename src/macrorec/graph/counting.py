"""How many events of a node stand before each impression? Machine code, imported when it is first needed."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def counted_before(node_H, node_S, before_S, n_nodes):  # type: ignore[no-untyped-def]
    """How many of the first before_S[s] events are of node_S[s], shape (S,); before_S never falls."""
    counts_N = np.zeros(n_nodes, dtype=np.int64)
    counted_S = np.empty(len(node_S), dtype=np.int64)
    done = 0
    for s in range(len(node_S)):
        for h in range(done, before_S[s]):
            counts_N[node_H[h]] += 1
        done = before_S[s]
        counted_S[s] = counts_N[node_S[s]]
    return counted_S
