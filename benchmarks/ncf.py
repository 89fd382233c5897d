"""How long do NCF and NMTR take on Taobao, an epoch and a ranking of all items for all users? 4 threads.

Run as ``python -m benchmarks.ncf``. The value is the evaluation of NCF-MLP, whose score is no inner product: masks,
ranking, metrics and the per-user frame are inside the clock. Baseline: pairs joined and put through all layers, and
``torch.topk``, for some of the users, scaled to all. ``evaluations`` and ``epochs`` hold every recipe; weights are
random ones, which cost what trained ones cost, but larger than at the start, where scores hardly differ.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from torch import Tensor

from benchmarks.line import emit
from benchmarks.turns import timed
from benchmarks.waiting import asleep
from macrorec import recipes
from macrorec.api import Model
from macrorec.eval.evaluate import evaluate
from macrorec.eval.ranking import top_k
from macrorec.graph.bipartite import from_split
from macrorec.inputs import read_split
from macrorec.models.ncf import NCF
from macrorec.run import build
from macrorec.train.trainer import train

THREADS, SOME, EPOCHS, K, START = 4, 256, 3, 10, 0.5
NAMES = ("ncf-gmf-taobao", "ncf-mlp-taobao", "ncf-neumf-taobao", "nmtr-taobao")


def plain(model: Model, users_B: Tensor, step: int = 8) -> Tensor:
    """The K best items of ``users_B`` by MLP, each pair joined, shape (B, K); nothing is masked."""
    assert isinstance(model, NCF)
    best = []
    with torch.no_grad():
        for block_B in torch.split(users_B, step):
            pairs_u = block_B.repeat_interleave(model.n_items)
            pairs_i = torch.arange(model.n_items).repeat(len(block_B))
            scores_B = model.mlp(model.users_UD[pairs_u], model.items_ID[pairs_i])
            best.append(scores_B.view(len(block_B), model.n_items).topk(K).indices)
    return torch.cat(best)


def main() -> None:
    """Measure and print the line."""
    asleep("benchmarks.ncf")
    torch.set_num_threads(THREADS)
    config = recipes.load(NAMES[0])
    split = read_split(config.source, config.prepare, config.split, seed=0)
    graph = from_split(split)
    users_B = torch.arange(SOME)
    evaluations, cpus, epochs, baseline = {}, {}, {}, 0.0
    for name in NAMES:
        config = recipes.load(name)
        config = replace(config, model=replace(config.model, init_std=START))
        model = build(config, graph).eval()
        calls: list[Callable[[], object]] = [partial(evaluate, model, split, "test", config.eval)]
        if name == "ncf-mlp-taobao":
            same = torch.from_numpy(top_k(model, users_B.numpy(), K)[0]) == plain(model, users_B)
            assert same.float().mean() > 0.99, "equal but for ties by rounding"
            calls.append(partial(plain, model, users_B))
        took = timed(*calls, repeats=3)
        evaluations[name], cpus[name] = round(took[0].wall, 2), round(took[0].cpu, 2)
        baseline += sum(own.wall for own in took[1:]) * graph.n_users / SOME
        settings = replace(config.train, epochs=EPOCHS, monitor=None, patience=None)
        history = train(model, graph, settings, seed=0)
        epochs[name] = round(median(epoch["seconds"] for epoch in history.epochs), 2)
    emit(
        name="ncf",
        value=evaluations["ncf-mlp-taobao"],
        unit="s",
        baseline={"name": "joined pairs through all layers, torch.topk", "value": round(baseline, 1)},
        ratio=round(baseline / evaluations["ncf-mlp-taobao"], 2),
        evaluations=evaluations,
        evaluation_cpu_seconds=cpus,
        epochs=epochs,
        users=graph.n_users,
        items=graph.n_items,
        threads=THREADS,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
