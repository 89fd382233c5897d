"""How long does an epoch of SWGCN on Taobao take, and how much memory? dim 32, 3 layers, 512 purchases x 4, 4 threads.

Run as ``python -m benchmarks.swgcn_epoch [steps]``: so many steps (30, or 150 for a whole epoch) through ``train``, at
the paper's settings, message dropout included, scaled to the epoch, in three turns with the baseline, medians.
Baseline: the same equations with the same gradients as one writes them in PyTorch, with arrays of edges x d, on
ready-made batches. Losses of the first steps are compared before anything is measured, without dropout. Peak memory is
that of reading, training and evaluating, before the baseline runs; evaluation ranks all items for all users.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import dropout, elu, softplus

from benchmarks.epochs import THREADS, TURNS, Clock, Plain, in_turns, peak_rss, report, stepped, trained
from benchmarks.waiting import asleep
from macrorec import recipes
from macrorec.api import PairBatch
from macrorec.data.log import Behavior, Interactions, Split
from macrorec.data.vocab import Vocab
from macrorec.errors import UserError
from macrorec.eval.evaluate import evaluate
from macrorec.eval.ranking import EvalConfig
from macrorec.graph.bipartite import Graph, from_split
from macrorec.inputs import read_split
from macrorec.models.swgcn import MODEL, SWGCN, SWGCNConfig
from macrorec.train.sampling import sampler
from macrorec.train.trainer import TrainConfig

BATCH, STEPS, PLAIN_STEPS, COMPARED = 512, 30, 4, 3
N_USERS, N_ITEMS, N_EDGES = 15_449, 11_953, (858_505, 180_027, 76_731)
METRICS = tuple(f"{name}@{k}" for k in (10, 20, 50, 100, 200) for name in ("hr", "ndcg"))
CONFIG = MODEL.Config()


def taobao() -> tuple[Split, str]:
    """The recipe's split, and where its rows come from: ``taobao``, or ``synthetic`` where the files are missing."""
    config = recipes.load("swgcn-taobao")
    try:
        return read_split(config.source, config.prepare, config.split, seed=0), "taobao"
    except UserError:
        return drawn(), "synthetic"


def drawn() -> Split:
    """As many views, carts and purchases; those carted or bought are viewed; a power law over items."""
    random = np.random.default_rng(0)
    user = np.concatenate([np.arange(N_USERS), random.integers(N_USERS, size=2 * N_EDGES[0])])
    key = user * N_ITEMS + (N_ITEMS * random.random(len(user)) ** 2).astype(np.int64)
    _, first = np.unique(key, return_index=True)
    key = key[np.sort(first)[: N_EDGES[0]]]
    pairs = [key[random.permutation(len(key))[:n]] for n in N_EDGES]
    test = np.arange(N_USERS) * N_ITEMS + random.integers(N_ITEMS, size=N_USERS)
    behaviors = (
        *(Behavior(name=name, role="auxiliary", mask=False) for name in ("view", "cart")),
        Behavior(name="buy"),
    )
    users, items = Vocab(np.arange(N_USERS)), Vocab(np.arange(N_ITEMS))

    def part(keys: list[np.ndarray]) -> Interactions:
        behavior = np.repeat(np.arange(3), [len(k) for k in keys]).astype(np.int8)
        user, item = np.divmod(np.concatenate(keys), N_ITEMS)
        return Interactions(users, items, behaviors, user.astype(np.int32), item.astype(np.int32), behavior)

    nothing = np.zeros(0, dtype=np.int64)
    parts = part(pairs), part([nothing] * 3), part([nothing, nothing, test])
    return Split(*parts, protocol={"source": "synthetic"})


def ours(graph: Graph, steps: int, config: SWGCNConfig = CONFIG) -> Clock:
    """``steps`` steps through ``train``."""
    return trained(MODEL, config, graph, TrainConfig(epochs=1, batch_size=BATCH), steps=steps)


def plain(graph: Graph, batches: list[PairBatch], config: SWGCNConfig = CONFIG) -> Plain:
    """Steps over ready-made ``batches``, as one writes the equations in PyTorch."""
    model = MODEL.from_graph(config, graph, torch.Generator().manual_seed(0))
    assert isinstance(model, SWGCN)
    return stepped(torch.optim.Adam(model.parameters(), lr=1e-3), partial(plain_loss, model, graph), batches)


def plain_loss(model: SWGCN, graph: Graph, batch: PairBatch) -> Tensor:
    """(2) to (17), line by line."""
    config, betas = model.config, model.betas
    assert betas is not None
    n_nodes, node_N = graph.n_nodes, torch.arange(graph.n_nodes)
    final, alignment = [], torch.zeros(())
    for r, edges in enumerate(graph.edges):
        table_ND, user_E, item_E = model.start(r), edges.user_E, graph.n_users + edges.item_E
        apart_ED = table_ND[user_E] - table_ND[item_E]
        power_E = elu(apart_ED.abs() @ betas[r]).exp()
        weight_E = power_E / torch.zeros(n_nodes).index_add(0, user_E, power_E)[user_E]
        if r < len(graph.edges) - 1:
            distance_E = apart_ED.square().sum(1)
            alignment = alignment + (weight_E - distance_E).square().mean()
            alignment = alignment + config.valuator_l2 * distance_E.square().sum()
        row, column = torch.cat([user_E, item_E, node_N]), torch.cat([item_E, user_E, node_N])
        value = torch.cat([weight_E, weight_E, torch.full((n_nodes,), config.self_loop)])
        degree_N = torch.zeros(n_nodes).index_add(0, row, value)
        value = value * (degree_N[row] * degree_N[column]).rsqrt()
        layer_ND = table_ND
        for _ in range(config.n_layers):
            layer_ND = torch.zeros_like(layer_ND).index_add(0, row, value[:, None] * layer_ND[column])
            layer_ND = dropout(layer_ND, config.dropout)
        final.append(layer_ND)
    x_NRD = torch.stack(final, 1)
    q, k, v = (x_NRD @ matrix_DD for matrix_DD in (model.query_DD, model.key_DD, model.value_DD))
    final_ND = (x_NRD + (q @ k.transpose(1, 2) / config.dim**0.5).softmax(2) @ v).sum(1)
    users_BD = final_ND[batch.users_B]
    pos_B = (users_BD * final_ND[graph.n_users + batch.items_B]).sum(1)
    neg_BN = (users_BD[:, None] * final_ND[graph.n_users + batch.negatives_BN]).sum(2)
    squares = torch.stack([parameter.square().sum() for parameter in model.parameters()]).sum()
    bpr = softplus(neg_BN - pos_B[:, None]).mean() + config.l2 * squares
    share = config.alignment_weight
    loss: Tensor = share * alignment / len(graph.edges) + (1 - share) * bpr
    return loss


def main() -> None:
    """Measure and print the line."""
    asleep("benchmarks.swgcn_epoch")
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    torch.set_num_threads(THREADS)
    split, origin = taobao()
    graph = from_split(split)
    evaluations = []
    ours(graph, 3)
    model = MODEL.from_graph(CONFIG, graph, torch.Generator().manual_seed(0)).eval()
    for _ in range(TURNS):
        start = time.perf_counter()
        evaluate(model, split, "test", EvalConfig(metrics=METRICS))
        evaluations.append(time.perf_counter() - start)
    peak = peak_rss()
    assert model.batches is not None
    made = sampler(model.batches, graph, BATCH, seed=0)
    batches = [batch for batch in islice(made.epoch(0), PLAIN_STEPS) if isinstance(batch, PairBatch)]
    still = replace(CONFIG, dropout=0.0)
    literal = plain(graph, batches[:COMPARED], still)[1]
    torch.testing.assert_close(literal, ours(graph, COMPARED, still).losses, rtol=1e-4, atol=0)
    epochs = in_turns(made.n_steps, partial(ours, graph, steps), partial(plain, graph, batches))
    report(
        "swgcn_epoch",
        epochs,
        "the same equations and gradients, plain PyTorch",
        digits=1,
        evaluation_seconds=round(median(evaluations), 2),
        peak_mib=round(peak / 2**20),
        data=origin,
    )


if __name__ == "__main__":
    main()
