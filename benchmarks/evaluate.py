"""How long does a full evaluation of all Gowalla users take? Recall and NDCG at 20, 64-dimensional vectors, 4 threads.

Run as ``python -m benchmarks.evaluate``. Masks, relevant items, ranking, metrics and the per-user frame are all inside
the clock. The value is that of Gaussian vectors, the worst case; ``factors`` that of truncated-SVD vectors. Baseline:
score blocks, ``torch.topk``, and a loop over users for the metrics, as released code does it.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks import gowalla
from benchmarks.line import emit
from benchmarks.topk import BLOCK, DIM, THREADS, K
from benchmarks.turns import timed
from macrorec.data.log import Split
from macrorec.eval.evaluate import evaluate
from macrorec.eval.ranking import EvalConfig
from macrorec.graph.bipartite import from_split

Array = npt.NDArray[Any]


def by_loops(users_UD: Tensor, items_ID: Tensor, split: Split) -> dict[str, float]:
    """Recall and NDCG at K with per-user lists, blocks of scores and a loop over users."""
    seen, relevant = (lists_of(part.user, part.item) for part in (split.train, split.test))
    discount_K = 1 / np.log2(np.arange(2, K + 2))
    recalls, ndcgs = [], []
    users = [user for user in range(len(users_UD)) if len(relevant[user])]
    for start in range(0, len(users), BLOCK):
        own = users[start : start + BLOCK]
        scores_BI = users_UD[own] @ items_ID.T
        rows = np.repeat(np.arange(len(own)), [len(seen[user]) for user in own])
        scores_BI[rows, np.concatenate([seen[user] for user in own])] = -(1 << 10)
        for user, top_K in zip(own, scores_BI.topk(K).indices.numpy(), strict=True):
            hits_K = np.isin(top_K, relevant[user])
            recalls.append(hits_K.sum() / len(relevant[user]))
            ndcgs.append((hits_K * discount_K).sum() / discount_K[: len(relevant[user])].sum())
    return {"recall@20": float(np.mean(recalls)), "ndcg@20": float(np.mean(ndcgs))}


def lists_of(user_E: Array, item_E: Array) -> list[Array]:
    """The items of each user."""
    order = np.argsort(user_E, kind="stable")
    ends = np.cumsum(np.bincount(user_E, minlength=gowalla.N_USERS))[:-1]
    return np.split(item_E[order], ends)


def main() -> None:
    """Measure and print the line."""
    torch.set_num_threads(THREADS)
    split, origin = gowalla.split()
    graph = from_split(split)
    config = EvalConfig(metrics=("recall@20", "ndcg@20"))
    figures: dict[str, dict[str, Any]] = {}
    for kind, vectors in (("gaussian", gowalla.gaussian(DIM)), ("factors", gowalla.factors(graph, DIM))):
        model = gowalla.Fixed(graph, *vectors)
        ours, theirs = evaluate(model, split, "test", config).metrics, by_loops(*vectors, split)
        assert all(abs(ours[name] - theirs[name]) < 1e-6 for name in ours), (ours, theirs)
        quick, slow = timed(partial(evaluate, model, split, "test", config), partial(by_loops, *vectors, split))
        figures[kind] = {"value": round(quick.wall, 3), "baseline": round(slow.wall, 3), **ours}
        figures[kind]["cpu_seconds"] = [round(quick.cpu, 2), round(slow.cpu, 2)]
    value, baseline = (figures["gaussian"][key] for key in ("value", "baseline"))
    emit(
        name="evaluate",
        value=value,
        unit="s",
        baseline={"name": "score blocks, torch.topk, metrics in a loop over users", "value": baseline},
        ratio=round(baseline / value, 2),
        data=origin,
        threads=THREADS,
        cpu_seconds=figures["gaussian"]["cpu_seconds"],
        factors=figures["factors"],
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
