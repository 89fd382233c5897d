"""How long does a full evaluation of all Taobao users take, counted three ways? 32-dimensional vectors, 4 threads.

Run as ``python -m benchmarks.evaluate_cohorts``. Cohorts, masks, ranking, metrics at 10, 20 and 50 and the per-user
frame are all inside the clock, Gaussian vectors, the worst case. ``again`` is a later validation of the same run, which
keeps its cohorts and masks; ``plain`` the evaluation without cohorts. Baseline: score blocks, ``torch.topk`` and a loop
over users with sets, as released code does it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from benchmarks import gowalla
from benchmarks.line import emit
from benchmarks.turns import timed
from macrorec import recipes
from macrorec.data.log import Behavior, Interactions, Split
from macrorec.data.vocab import Vocab
from macrorec.errors import DataError
from macrorec.eval.evaluate import evaluate, measure, ranking_task
from macrorec.eval.metrics import COHORTS
from macrorec.graph.bipartite import from_split
from macrorec.inputs import read_split

THREADS, DIM, BLOCK, CUTS = 4, 32, 1024, (10, 20, 50)
N_USERS, N_ITEMS, N_EVENTS = 15_449, 11_953, (858_505, 180_027, 92_180)
"""Of Taobao's train part: views, carts, purchases."""


def split_of_taobao() -> tuple[Split, str]:
    """The split of the recipes, and where it comes from: ``taobao``, or ``synthetic`` where the files are missing."""
    config = recipes.load("popular-taobao")
    try:
        return read_split(config.source, config.prepare, config.split, seed=0), "taobao"
    except DataError:
        return drawn(), "synthetic"


def drawn() -> Split:
    """As many events with a power law over items; held out is an item that the user met, for each fifth user any."""
    rng = np.random.default_rng(0)
    behaviors = (
        Behavior(name="view", role="auxiliary", mask=False),
        Behavior(name="cart", role="auxiliary", mask=False),
    )
    vocabs = Vocab(np.arange(N_USERS)), Vocab(np.arange(N_ITEMS))
    user = rng.integers(N_USERS, size=sum(N_EVENTS)).astype(np.int32)
    item = (N_ITEMS * rng.random(len(user)) ** 3).astype(np.int32)
    kind = np.repeat(np.arange(3, dtype=np.int8), N_EVENTS)
    train = Interactions(*vocabs, (*behaviors, Behavior(name="buy")), user, item, kind)
    own = train.take(np.unique(user, return_index=True)[1])
    items = np.where(own.user % 5 == 0, rng.integers(N_ITEMS, size=len(own)), own.item).astype(np.int32)
    test = replace(own, item=items, behavior=np.full_like(own.behavior, train.target))
    return Split(train, train.take(np.zeros(len(train), dtype=bool)), test, protocol={"source": "synthetic"})


def by_loops(model: gowalla.Fixed, split: Split) -> dict[str, float]:
    """HR and NDCG with sets per user: of all held-out items, of those among its auxiliary items, and of the others."""
    users_UD, items_ID = model.encode()
    earlier = (split.train, split.valid)
    bought, met = ([set[int]() for _ in range(len(split.users))] for _ in range(2))
    for part in earlier:
        for user, item, kind in zip(part.user.tolist(), part.item.tolist(), part.behavior.tolist(), strict=True):
            (bought if kind == part.target else met)[user].add(item)
    held: dict[int, set[int]] = {}
    for user, item in zip(split.test.user.tolist(), split.test.item.tolist(), strict=True):
        held.setdefault(user, set()).add(item)
    values: dict[str, list[float]] = {}
    users = sorted(held)
    for start in range(0, len(users), BLOCK):
        own = users[start : start + BLOCK]
        scores_BI = users_UD[own] @ items_ID.T
        for row, user in enumerate(own):
            scores_BI[row, list(bought[user])] = -torch.inf
        for user, top in zip(own, scores_BI.topk(max(CUTS)).indices.tolist(), strict=True):
            ways = (held[user], held[user] & met[user], held[user] - met[user])
            for way, relevant in zip(("", *(f":{name}" for name in COHORTS)), ways, strict=True):
                for k in CUTS if relevant else ():
                    gains = [1 / np.log2(rank + 2) for rank, item in enumerate(top[:k]) if item in relevant]
                    ideal = sum(1 / np.log2(rank + 2) for rank in range(min(k, len(relevant))))
                    values.setdefault(f"hr@{k}{way}", []).append(float(bool(gains)))
                    values.setdefault(f"ndcg@{k}{way}", []).append(sum(gains) / ideal)
    return {name: float(np.mean(own)) for name, own in values.items()}


def main() -> None:
    """Measure and print the line."""
    torch.set_num_threads(THREADS)
    split, origin = split_of_taobao()
    config = replace(
        recipes.load("popular-taobao").eval, metrics=tuple(f"{m}@{k}" for k in CUTS for m in ("hr", "ndcg"))
    )
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(n, DIM, generator=generator) for n in (len(split.users), len(split.items))]
    model = gowalla.Fixed(from_split(split), vectors[0], vectors[1])
    ours, theirs = evaluate(model, split, "test", config).metrics, by_loops(model, split)
    assert ours.keys() == theirs.keys()
    assert all(abs(ours[name] - theirs[name]) < 1e-4 for name in ours), (ours, theirs)
    task = ranking_task(split, "test", config)
    alone = replace(split, train=split.train.of("target"), valid=split.valid.of("target"))
    whole, again, plain, slow = timed(
        partial(evaluate, model, split, "test", config),
        partial(measure, model, task, config),
        partial(evaluate, model, alone, "test", config),
        partial(by_loops, model, split),
    )
    emit(
        name="evaluate_cohorts",
        value=round(whole.wall, 3),
        unit="s",
        baseline={"name": "score blocks, torch.topk, sets in a loop over users", "value": round(slow.wall, 3)},
        ratio=round(slow.wall / whole.wall, 2),
        again=round(again.wall, 3),
        plain=round(plain.wall, 3),
        data=origin,
        threads=THREADS,
        cpu_seconds=[round(whole.cpu, 2), round(slow.cpu, 2)],
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
