"""How long does an epoch of GHCF on Taobao take? dim 64, 4 layers, 256 users per batch as in its code, 4 threads.

Run as ``python -m benchmarks.ghcf_epoch [steps]``: so many steps (12, or 61 for an epoch) through ``train``, scaled to
the epoch, in three turns with the baseline, medians. Baseline: the same equations as anybody would write them in
PyTorch: CSR matrices, every layer for every node, vectors of all positives gathered, plain Adam, on ready-made batches.
Without dropout, the losses of the first steps are compared before anything is measured.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from functools import partial
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import dropout, leaky_relu

from benchmarks.epochs import THREADS, Clock, Plain, in_turns, peak_rss, report, stepped, trained
from benchmarks.waiting import asleep
from macrorec import recipes
from macrorec.api import RowBatch
from macrorec.graph.bipartite import Graph, from_split
from macrorec.inputs import read_split
from macrorec.models.ghcf import MODEL, GHCFConfig
from macrorec.ops.spmm import SparseMatrix
from macrorec.train.sampling import sampler
from macrorec.train.trainer import TrainConfig

BATCH, STEPS, PLAIN_STEPS = 256, 12, 4


def ours(config: GHCFConfig, graph: Graph, steps: int) -> Clock:
    """``steps`` steps through ``train``."""
    return trained(MODEL, config, graph, TrainConfig(epochs=1, batch_size=BATCH), steps=steps)


def plain(config: GHCFConfig, graph: Graph, batches: list[RowBatch]) -> Plain:
    """Steps over ready-made ``batches``, as anybody would write them."""
    model = MODEL.from_graph(config, graph, torch.Generator().manual_seed(0))
    adjacencies = [_csr(matrix) for matrix in model.adjacencies if isinstance(matrix, SparseMatrix)]

    def loss_of(batch: RowBatch) -> Tensor:
        layer: Tensor = model.vectors_ND
        relation: Tensor = model.relations_RD
        layers, relations = [layer], [relation]
        for own_DD, other_DD in zip(model.node_weights_LDD, model.relation_weights_LDD, strict=True):
            parts = [
                c * leaky_relu((torch.sparse.mm(matrix, layer) * r) @ own_DD, config.slope)
                for matrix, r, c in zip(adjacencies, relation, model.coefficients, strict=True)
            ]
            layer, relation = dropout(torch.stack(parts).sum(0), config.dropout), relation @ other_DD
            layers.append(layer)
            relations.append(relation)
        users, items = torch.stack(layers).mean(0).tensor_split([graph.n_users])
        users_BD, relation = users[batch.users_B], torch.stack(relations).mean(0)
        loss = config.l2 / 2 * (users_BD.square().sum() + items.square().sum())
        gram_DD, weight = (users_BD.T @ users_BD) * (items.T @ items), config.negative_weight
        for (start_B, items_E), r, c in zip(batch.rows, relation, model.coefficients, strict=True):
            y_E = (users_BD.repeat_interleave(start_B.diff(), 0) * r * items[items_E]).sum(1)
            whole = weight * (gram_DD * torch.outer(r, r)).sum() + ((1 - weight) * y_E.square() - 2 * y_E).sum()
            loss = loss + c * whole
        return loss / len(users_BD)

    return stepped(torch.optim.Adam(model.parameters(), lr=1e-3), loss_of, batches)


def _csr(matrix: SparseMatrix) -> Tensor:
    start, col, value = matrix.side(transpose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its CSR layout beta
        return torch.sparse_csr_tensor(start, col.long(), value, matrix.shape, check_invariants=False)


def main() -> None:
    """Measure and print the line."""
    asleep("benchmarks.ghcf_epoch")
    torch.set_num_threads(THREADS)
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    recipe = recipes.load("ghcf-taobao")
    graph = from_split(read_split(recipe.source, recipe.prepare, recipe.split, seed=0))
    still = replace(recipe.model, dropout=0.0)
    made = sampler(MODEL.batches, graph, BATCH, seed=0)
    batches = [batch for batch in islice(made.epoch(0), PLAIN_STEPS) if isinstance(batch, RowBatch)]
    first = ours(still, graph, PLAIN_STEPS)
    peak = peak_rss()
    torch.testing.assert_close(plain(still, graph, batches)[1], first.losses, rtol=1e-4, atol=0)
    epochs = in_turns(
        made.n_steps, partial(ours, recipe.model, graph, steps), partial(plain, recipe.model, graph, batches)
    )
    report("ghcf_epoch", epochs, "the equations in PyTorch, CSR, all nodes", peak_rss_bytes=peak)


if __name__ == "__main__":
    main()
