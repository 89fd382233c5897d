"""How long does an epoch of LightGCN on Gowalla take, and how much memory? dim 64, 3 layers, batch 2,048, 4 threads.

Run as ``python -m benchmarks.lightgcn_epoch [steps]``: so many steps (100, or 396 for a whole epoch) through ``train``,
scaled to the epoch, in three turns with the baseline, medians. Baseline: the same arithmetic as LightGCN's authors
write it in PyTorch (COO adjacency, all layers stacked, all rows, plain Adam), on ready-made batches; ``csr`` the same
with a CSR adjacency and fused Adam. The losses of the first steps are compared before anything is measured.
"""

from __future__ import annotations

import sys
import warnings
from functools import partial
from itertools import islice
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import softplus

from benchmarks import gowalla
from benchmarks.epochs import THREADS, Clock, Plain, in_turns, peak_rss, report, stepped, trained
from benchmarks.waiting import asleep
from macrorec.api import PairBatch
from macrorec.graph.bipartite import Graph, from_split
from macrorec.models.lightgcn import MODEL, LightGCN
from macrorec.train.sampling import sampler
from macrorec.train.trainer import TrainConfig

BATCH, STEPS, PLAIN_STEPS = 2048, 100, 6
CONFIG = MODEL.Config()


def ours(graph: Graph, steps: int) -> Clock:
    """``steps`` steps through ``train``."""
    return trained(MODEL, CONFIG, graph, TrainConfig(epochs=1, batch_size=BATCH), steps=steps)


def plain(graph: Graph, batches: list[PairBatch], *, csr: bool) -> Plain:
    """Steps over ready-made ``batches``, as anybody would write them."""
    model = MODEL.from_graph(CONFIG, graph, torch.Generator().manual_seed(0))
    assert isinstance(model, LightGCN)
    adjacency, table_ND = _adjacency(model, csr=csr), model.vectors_ND

    def loss_of(batch: PairBatch) -> Tensor:
        layers: list[Tensor] = [table_ND]
        for _ in range(CONFIG.n_layers):
            layers.append(torch.sparse.mm(adjacency, layers[-1]))
        final_ND = torch.stack(layers, dim=1).mean(dim=1)
        users, items = batch.users_B, graph.n_users + batch.items_B
        negatives = graph.n_users + batch.negatives_BN[:, 0]
        pos_B, neg_B = ((final_ND[users] * final_ND[other]).sum(1) for other in (items, negatives))
        squares = sum((table_ND[rows].norm(2).pow(2) for rows in (users, items, negatives)), torch.zeros(()))
        loss: Tensor = softplus(neg_B - pos_B).mean() + CONFIG.l2 * squares / 2 / len(users)
        return loss

    return stepped(torch.optim.Adam([table_ND], lr=1e-3, fused=csr), loss_of, batches)


def _adjacency(model: LightGCN, *, csr: bool) -> Tensor:
    start, index, value = model.adjacency.side(transpose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        matrix = torch.sparse_csr_tensor(start.int(), index, value, size=model.adjacency.shape)
    return matrix if csr else matrix.to_sparse_coo().coalesce()  # type: ignore[no-untyped-call]


def main() -> None:
    """Measure and print the line."""
    asleep("benchmarks.lightgcn_epoch")
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    torch.set_num_threads(THREADS)
    split, origin = gowalla.split()
    graph = from_split(split)
    first = ours(graph, PLAIN_STEPS)
    peak = peak_rss()
    kind = MODEL(CONFIG, graph).batches
    assert kind is not None
    made = sampler(kind, graph, BATCH, seed=0)
    batches = [batch for batch in islice(made.epoch(0), PLAIN_STEPS) if isinstance(batch, PairBatch)]
    plains = [partial(plain, graph, batches, csr=csr) for csr in (False, True)]
    for baseline in plains:
        torch.testing.assert_close(baseline()[1], first.losses, rtol=1e-4, atol=0)
    epochs = in_turns(made.n_steps, partial(ours, graph, steps), *plains)
    report(
        "lightgcn_epoch",
        epochs,
        "PyTorch as the authors write it, COO",
        digits=1,
        csr=round(median(epochs.plains[1]), 1),
        peak_rss_bytes=peak,
        data=origin,
    )


if __name__ == "__main__":
    main()
