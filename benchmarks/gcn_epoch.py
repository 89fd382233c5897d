"""How long does an epoch of NGCF or MBGCN on Taobao take? dim 32, four negatives, batch 2,048, 4 threads.

Run as ``python -m benchmarks.gcn_epoch [ngcf-ob | ngcf-mb | mbgcn] [steps]``, by default ngcf-mb and a whole epoch of
38 steps through ``train``, three turns with the baseline, medians. Baseline: the same equations as anybody would write
them in PyTorch: COO matrices, every layer for every node, plain Adam, on ready-made batches. Without dropout, the
losses of the first steps are compared before anything is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout, leaky_relu, normalize, softplus

from benchmarks.epochs import THREADS, Clock, Plain, in_turns, peak_rss, report, stepped, trained
from benchmarks.waiting import asleep
from macrorec import recipes
from macrorec.api import PairBatch, TwoTower
from macrorec.graph.bipartite import Graph, from_split
from macrorec.inputs import read_split
from macrorec.models.mbgcn import MBGCN
from macrorec.models.ngcf import NGCF
from macrorec.train.sampling import sampler
from macrorec.train.trainer import TrainConfig

BATCH, COMPARED, PLAIN_STEPS = 2048, 4, 8
Vectors = Callable[[], tuple[Tensor, Tensor]]


def ours(kind: type[TwoTower], config: Any, graph: Graph, steps: int) -> Clock:
    """``steps`` steps through ``train``."""
    return trained(kind, config, graph, TrainConfig(epochs=1, batch_size=BATCH), steps=steps)


def plain(kind: type[TwoTower], config: Any, graph: Graph, batches: list[PairBatch]) -> Plain:
    """Steps over ready-made ``batches``, as anybody would write them."""
    model = kind.from_graph(config, graph, torch.Generator().manual_seed(0))
    assert isinstance(model, NGCF | MBGCN)
    vectors = _ngcf(model, graph) if isinstance(model, NGCF) else _mbgcn(model, graph)

    def loss_of(batch: PairBatch) -> Tensor:
        users_B, items_BJ = batch.users_B, torch.cat([batch.items_B[:, None], batch.negatives_BN], 1)
        users, items = vectors()
        score_BJ = (users[users_B][:, None] * items[items_BJ]).sum(-1)
        if isinstance(model, NGCF):
            own, other = torch.tensor_split(model.vectors_ND, [graph.n_users])
        else:
            own, other = model.users_UD, model.items_ID
        squares = own[users_B].square().sum() + other[items_BJ].square().sum()
        loss: Tensor = softplus(score_BJ[:, 1:] - score_BJ[:, :1]).mean() + config.l2 * squares / 2 / len(users_B)
        return loss

    return stepped(torch.optim.Adam(model.parameters(), lr=1e-3), loss_of, batches)


def _ngcf(model: NGCF, graph: Graph) -> Vectors:
    """Equations (7) to (9), all layers for all nodes."""
    config = model.config
    start, col, value = model.adjacency.side(transpose=False)
    row = torch.arange(len(start) - 1).repeat_interleave(start.diff())
    adjacency = _coo(row, col.long(), value, model.adjacency.shape)

    def vectors() -> tuple[Tensor, Tensor]:
        layer: Tensor = model.vectors_ND
        layers = [layer]
        for n in range(config.n_layers):
            near = torch.sparse.mm(adjacency, layer)
            linear = leaky_relu(near @ model.sum_LDD[n] + model.sum_bias_LD[n], config.slope)
            product = leaky_relu((near * layer) @ model.product_LDD[n] + model.product_bias_LD[n], config.slope)
            layer = dropout(linear + product, config.dropout)
            layers.append(normalize(layer))
        final = torch.cat(layers, 1)
        return final[: graph.n_users], final[graph.n_users :]

    return vectors


def _mbgcn(model: MBGCN, graph: Graph) -> Vectors:
    """The equations of MBGCN for all users and items; relevance by two products, for its matrix would not fit."""
    config, rate = model.config, len(graph.edges)
    shape = (graph.n_users, graph.n_items)
    *behaviors, union = (
        _coo(edges.user_E, edges.item_E, torch.ones(len(edges)), shape) for edges in (*graph.edges, graph.union())
    )
    back = [matrix.t().coalesce() for matrix in behaviors]
    union_back = union.t().coalesce()

    def vectors() -> tuple[Tensor, Tensor]:
        p: Tensor = model.users_UD
        q = model.items_ID
        keep_u = dropout(torch.ones(len(p), 1), config.node_dropout)
        keep_i = dropout(torch.ones(len(q), 1), config.node_dropout)
        share, near, own, users, items = model.shares(), torch.zeros_like(p), p, [], []
        for t, (there, again) in enumerate(zip(behaviors, back, strict=True)):
            size = model.sizes_RU[t].clamp(min=1)[:, None]
            total = torch.sparse.mm(there, keep_i * q)
            others = torch.sparse.mm(again, total) - model.degrees_RI[t][:, None] * keep_i * q
            others = others / model.pairs_RI[t].clamp(min=1)[:, None]
            known = torch.cat([total, torch.sparse.mm(there, keep_i * others) @ model.relevance_RDD[t]], 1) / size
            y, z = (config.relevance / rate * known @ model.match_RYY[t]).chunk(2, 1)
            near, own = near + share[t][:, None] * total / size, own + y
            users.append(z)
            items.append(others @ model.relevance_RDD[t])
        from_users = torch.sparse.mm(union_back, keep_u * p) / model.union_degrees_I.clamp(min=1)[:, None]
        sent = [dropout(x @ model.weight_DD, config.message_dropout) for x in (near, from_users)]
        return torch.cat([own, sent[0], *users], 1), torch.cat([q, sent[1], *items], 1)

    return vectors


def _coo(row_E: Tensor, col_E: Tensor, value_E: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_coo_tensor(torch.stack([row_E, col_E]), value_E, shape, check_invariants=False).coalesce()


def main() -> None:
    """Measure and print the line."""
    asleep("benchmarks.gcn_epoch")
    name = sys.argv[1] if len(sys.argv) > 1 else "ngcf-mb"
    torch.set_num_threads(THREADS)
    recipe = recipes.load(f"{name}-taobao")
    graph = from_split(read_split(recipe.source, recipe.prepare, recipe.split, seed=0))
    config = recipe.model
    kind: type[TwoTower] = NGCF if name.startswith("ngcf") else MBGCN
    dropouts = {field: 0.0 for field in ("dropout", "node_dropout", "message_dropout") if hasattr(config, field)}
    still = replace(config, **dropouts)
    made = sampler(kind(config, graph).batches, graph, BATCH, seed=0)  # type: ignore[arg-type]
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else made.n_steps
    batches = [batch for batch in islice(made.epoch(0), PLAIN_STEPS) if isinstance(batch, PairBatch)]
    first = ours(kind, still, graph, COMPARED)
    peak = peak_rss()
    torch.testing.assert_close(plain(kind, still, graph, batches[:COMPARED])[1], first.losses, rtol=1e-4, atol=0)
    epochs = in_turns(
        made.n_steps, partial(ours, kind, config, graph, steps), partial(plain, kind, config, graph, batches)
    )
    report(f"{name}_epoch", epochs, "the equations in PyTorch, COO, all nodes", peak_rss_bytes=peak)


if __name__ == "__main__":
    main()
