"""How long does an epoch of CCBIE on MovieLens 100K take? 80,000 edges, batch 256, N = 4, d = 64, K 32, 4 threads.

Run as ``python -m benchmarks.ccbie_epoch [steps]``: so many steps (all 313) through ``train``, sampling of true
non-edges included, scaled to the epoch, in three turns with the baseline, medians. Baseline: the same arithmetic as one
writes it in PyTorch, on ready-made batches, which cost it nothing; ``fused`` the same with fused Adam, ``sampled`` the
baseline with negatives redrawn until they are non-edges. Losses of the first steps are compared before anything is
measured. Rows that are not in a batch take their step of Adam, too, in both.
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
from torch.nn.functional import normalize

from benchmarks.epochs import THREADS, Clock, Plain, in_turns, report, stepped, trained
from benchmarks.waiting import asleep
from macrorec import recipes
from macrorec.api import PairBatch
from macrorec.data.log import Behavior
from macrorec.data.split import Nothing
from macrorec.errors import UserError
from macrorec.graph.bipartite import Graph, edges_of, from_split
from macrorec.inputs import read_split
from macrorec.models.ccbie import CCBIE, MODEL
from macrorec.train.sampling import sampler
from macrorec.train.trainer import TrainConfig

BATCH, STEPS, PLAIN_STEPS, COMPARED, LR = 256, 313, 60, 6, 2e-3
N_USERS, N_ITEMS, N_EDGES = 943, 1_650, 80_000
CONFIG = MODEL.Config(n_negatives=4)


def movielens() -> tuple[Graph, str]:
    """Split u1, nothing held out for valid; or as many edges, drawn, where the files are missing."""
    config = recipes.load("ccbie-ml-100k-u1")
    try:
        split = read_split(config.source, config.prepare, replace(config.split, valid=Nothing()), seed=0)
        return from_split(split), "ml-100k-u1"
    except UserError:
        return drawn(), "synthetic"


def drawn() -> Graph:
    """Distinct pairs, by power laws over users and over items."""
    random = np.random.default_rng(0)
    user, item = (n * random.random(8 * N_EDGES) ** 2 for n in (N_USERS, N_ITEMS))
    key = np.unique(user.astype(np.int64) * N_ITEMS + item.astype(np.int64))
    user, item = np.divmod(np.sort(random.permutation(key)[:N_EDGES]), N_ITEMS)
    return Graph(N_USERS, N_ITEMS, (Behavior(name="rated"),), (edges_of(user, item, N_USERS, N_ITEMS),))


def ours(graph: Graph, steps: int) -> Clock:
    """``steps`` steps through ``train``."""
    return trained(MODEL, CONFIG, graph, TrainConfig(epochs=1, batch_size=BATCH, lr=LR), steps=steps)


def plain(graph: Graph, batches: list[PairBatch], *, fused: bool = False) -> Plain:
    """Steps over ready-made ``batches``, as one writes the equations in PyTorch."""
    model = MODEL.from_graph(CONFIG, graph, torch.Generator().manual_seed(0))
    assert isinstance(model, CCBIE)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=fused)
    return stepped(optimizer, partial(plain_loss, model), batches)


def plain_loss(model: CCBIE, batch: PairBatch) -> Tensor:
    """(1) to (12), line by line."""
    users_B = batch.users_B.repeat_interleave(1 + CONFIG.n_negatives)
    items_B = torch.cat([batch.items_B[:, None], batch.negatives_BN], 1).flatten()
    edge_B = torch.tensor([1.0] + [0.0] * CONFIG.n_negatives).repeat(len(batch.users_B))
    u_BD, v_BD = (normalize(table[rows]) for table, rows in ((model.users_UD, users_B), (model.items_ID, items_B)))
    centre_KD = normalize(model.centres_KD)
    p_BQ, t_BQ = (
        ((x_BD @ centre_KD.T @ w1.T + b1).relu() @ w2.T + b2).sigmoid()
        for x_BD, (w1, b1, w2, b2) in ((u_BD, model.of_users), (v_BD, model.of_items))
    )
    t_BQ = t_BQ / t_BQ.sum(1, keepdim=True)
    explicit_B, implicit_B = ((u_BD * v_BD).sum(1) + 1) / 2, (p_BQ * t_BQ).sum(1)
    y_B = CONFIG.alpha * explicit_B + (1 - CONFIG.alpha) * implicit_B
    error_B = (edge_B - y_B).square()
    structure = error_B.sum() if CONFIG.over == "sum" else error_B.mean()
    apart_KKD = centre_KD[:, None] - centre_KD
    loss: Tensor = structure - CONFIG.beta * apart_KKD.square().sum() / 2
    return loss


def redrawn(graph: Graph) -> float:
    """Seconds that a batch of negatives takes if uniform draws are repeated until none is an edge."""
    random, edges = np.random.default_rng(0), graph.target
    known = set((edges.user_E * graph.n_items + edges.item_E).tolist())
    users_BN = edges.user_E.numpy()[random.integers(len(edges), size=BATCH)][:, None]
    times = []
    for _ in range(20):
        start = time.perf_counter()
        drawn_BN = random.integers(graph.n_items, size=(BATCH, CONFIG.n_negatives))
        while True:
            again = [key in known for key in (users_BN * graph.n_items + drawn_BN).ravel().tolist()]
            if not any(again):
                break
            drawn_BN.ravel()[np.flatnonzero(again)] = random.integers(graph.n_items, size=sum(again))
        times.append(time.perf_counter() - start)
    return median(times)


def main() -> None:
    """Measure and print the line."""
    asleep("benchmarks.ccbie_epoch")
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    torch.set_num_threads(THREADS)
    graph, origin = movielens()
    kind = MODEL(CONFIG, graph).batches
    assert kind is not None
    made = sampler(kind, graph, BATCH, seed=0)
    batches = [batch for batch in islice(made.epoch(0), PLAIN_STEPS) if isinstance(batch, PairBatch)]
    first, expected = ours(graph, COMPARED).losses, plain(graph, batches[:COMPARED])[1]
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=0)
    epochs = in_turns(
        made.n_steps,
        lambda: ours(graph, steps),
        lambda: plain(graph, batches),
        lambda: plain(graph, batches, fused=True),
    )
    redraw = made.n_steps * redrawn(graph)
    report(
        "ccbie_epoch",
        epochs,
        "PyTorch, as one writes it, on ready-made batches",
        digits=3,
        fused=round(median(epochs.plains[1]), 2),
        sampled=round(median(epochs.plains[0]) + redraw, 2),
        edges_per_second=round(len(graph.target) / median(epochs.walls)),
        data=origin,
    )


if __name__ == "__main__":
    main()
