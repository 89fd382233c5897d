"""How many users per second get an exact top 20 over all Gowalla items, seen items left out? 64 dimensions, 4 threads.

Run as ``python -m benchmarks.topk``. The value is that of Gaussian vectors, the worst case; ``factors`` that of
truncated-SVD vectors. Baseline: matrix product, masked fill and ``torch.topk`` in blocks of 1024 users.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from benchmarks import gowalla
from benchmarks.line import emit
from benchmarks.turns import Took, timed
from macrorec.eval.vectors import Ranking, top_k_vectors
from macrorec.graph.bipartite import from_split

THREADS, DIM, K, BLOCK = 4, 64, 20, 1024


def blockwise(users_UD: Tensor, items_ID: Tensor, masked: sp.csr_matrix) -> Ranking:
    """The usual way: whole score rows, seen items at -inf, ``torch.topk``."""
    items, scores = [], []
    start_U, seen_E = masked.indptr, torch.from_numpy(masked.indices.astype(np.int64))
    for start in range(0, len(users_UD), BLOCK):
        scores_BI = users_UD[start : start + BLOCK] @ items_ID.T
        stop = start + len(scores_BI)
        row_E = torch.arange(len(scores_BI)).repeat_interleave(torch.from_numpy(np.diff(start_U[start : stop + 1])))
        scores_BI[row_E, seen_E[start_U[start] : start_U[stop]]] = -torch.inf
        best = scores_BI.topk(K)
        items.append(best.indices)
        scores.append(best.values)
    return torch.cat(items).numpy(), torch.cat(scores).numpy()


def by_implicit(users_UD: Tensor, items_ID: Tensor, masked: sp.csr_matrix) -> Callable[[], object] | None:
    """``recommend`` of the package implicit, if it is installed."""
    try:
        module = importlib.import_module("implicit.cpu.matrix_factorization_base")
    except ImportError:
        return None
    model = module.MatrixFactorizationBase()
    model.user_factors, model.item_factors = users_UD.numpy(), items_ID.numpy()
    users = np.arange(len(users_UD))
    return lambda: model.recommend(users, masked, N=K, filter_already_liked_items=True)


def users_per_second(took: Took) -> int:
    """All Gowalla users over the median wall time."""
    return round(gowalla.N_USERS / took.wall)


def main() -> None:
    """Measure and print the line."""
    torch.set_num_threads(THREADS)
    split, origin = gowalla.split()
    graph = from_split(split)
    masked = graph.masked()
    vectors = gowalla.gaussian(DIM)
    ours, theirs = top_k_vectors(*vectors, K, masked), blockwise(*vectors, masked)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-4)
    other = by_implicit(*vectors, masked)
    calls = [lambda: top_k_vectors(*vectors, K, masked), lambda: blockwise(*vectors, masked)]
    took = timed(*calls, *([other] if other else []))
    rate, baseline, *rest = (users_per_second(each) for each in took)
    fitted = gowalla.factors(graph, DIM)
    quick, slow = timed(lambda: top_k_vectors(*fitted, K, masked), lambda: blockwise(*fitted, masked))
    emit(
        name="topk",
        value=rate,
        unit="users/s",
        baseline={"name": "torch matmul + masked fill + topk, blocks of 1024", "value": baseline},
        ratio=round(rate / baseline, 2),
        data=origin,
        threads=THREADS,
        cpu_seconds=[round(each.cpu, 2) for each in took],
        same_items=float((ours[0] == theirs[0]).mean()),
        factors={"value": users_per_second(quick), "baseline": users_per_second(slow)},
        implicit=rest[0] if rest else None,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
