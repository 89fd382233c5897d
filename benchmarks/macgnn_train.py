"""How many impressions per second does MacGNN learn from? Batch 1,024, d = 10, 20 + 18 groups, 4 threads.

Run as ``python -m benchmarks.macgnn_train [threads]``: epochs of 200,000 made-up impressions of 6,000 users and 4,000
items through ``train``, sampler and Adam with weight decay included, in three turns with the baseline, medians.
Baseline: the equations as the authors write them in PyTorch (per hop an embedding (B, K, d), then Q, K and V of it all,
plain Adam), on ready-made batches, 60 steps a turn. Losses of the first steps are compared before anything is measured.
"""

from __future__ import annotations

import os
import sys
from itertools import islice
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from benchmarks.epochs import TURNS, Clock, Plain, stepped, trained
from benchmarks.line import emit
from benchmarks.waiting import asleep
from macrorec.api import ImpressionBatch, Impressions
from macrorec.data.log import Behavior, Interactions
from macrorec.data.vocab import Vocab
from macrorec.graph.bipartite import Graph, edges_of
from macrorec.graph.columns import Features
from macrorec.graph.features import Samples
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph
from macrorec.models.macgnn import MNA, MODEL, MacGNN
from macrorec.ops.dice import Dice
from macrorec.ops.losses import bce
from macrorec.train.sampling import sampler
from macrorec.train.trainer import TrainConfig

N_USERS, N_ITEMS, P, Q, RECENTS = 6_000, 4_000, 20, 18, 20
N_SAMPLES, BATCH, PLAIN_STEPS, COMPARED = 200_000, 1024, 60, 5
CONFIG = MODEL.Config()
SETTINGS = TrainConfig(epochs=2, batch_size=BATCH, lr=0.01, weight_decay=5e-5)


def made_up(seed: int = 0) -> tuple[Graph, Samples]:
    """Impressions of skewed popularity, with counts and recents of a like shape, and labels that can be learned.

    Of labels without a pattern weight decay makes a model whose embeddings are too small for normal numbers.
    """
    random = np.random.default_rng(seed)
    none = np.empty(0, dtype=np.int64)
    groups = (Groups(np.arange(N_USERS, dtype=np.int32) % P, P), Groups(np.arange(N_ITEMS, dtype=np.int32) % Q, Q))
    macro = MacroGraph(*groups, none, none, recents=RECENTS)
    edges = edges_of(none, none, N_USERS, N_ITEMS)
    graph = Graph(N_USERS, N_ITEMS, (Behavior(name="rating"),), (edges,), macro)

    def nodes(n: int, *shape: int) -> Tensor:
        return torch.from_numpy((n * random.random(shape) ** 2).astype(np.int64))

    def counts(scale: float, n: int) -> Tensor:
        return torch.from_numpy(random.poisson(scale * random.random((N_SAMPLES, n)) ** 3).astype(np.float32))

    def recents(n: int) -> Tensor:
        length = random.integers(0, 3 * RECENTS, N_SAMPLES)
        return nodes(n, N_SAMPLES, RECENTS).where(torch.from_numpy(np.arange(RECENTS) < length[:, None]), -1)

    user, item = nodes(N_USERS, N_SAMPLES), nodes(N_ITEMS, N_SAMPLES)
    features = Features(
        user_B=user,
        item_B=item,
        user_group_B=user % P,
        item_group_B=item % Q,
        user_hop1_BQ=counts(60, Q),
        user_hop2_BP=counts(20_000, P),
        item_hop1_BP=counts(60, P),
        item_hop2_BQ=counts(20_000, Q),
        user_recent_BR=recents(N_ITEMS),
        item_recent_BR=recents(N_USERS),
        user_volume_BC=torch.ones(N_SAMPLES, 1),
        item_volume_BC=torch.ones(N_SAMPLES, 1),
    )
    mood_B, quality_B = (random.normal(size=n)[own.numpy()] for n, own in ((N_USERS, user), (N_ITEMS, item)))
    label = (random.logistic(size=N_SAMPLES) < mood_B + quality_B).astype(np.float32)
    vocabularies = (Vocab(np.arange(N_USERS)), Vocab(np.arange(N_ITEMS)))
    user_B, item_B = (number.numpy().astype(np.int32) for number in (user, item))
    pairs = Interactions(*vocabularies, graph.behaviors, user_B, item_B, np.zeros(N_SAMPLES, np.int8), label=label)
    history = np.ones(N_SAMPLES, dtype=np.int64)
    return graph, Samples(features, torch.from_numpy(label), pairs, history, history)


def ours(graph: Graph, samples: Samples) -> Clock:
    """Two epochs through ``train``."""
    return trained(MODEL, CONFIG, graph, SETTINGS, labelled=samples)


def plain_logits(model: MacGNN, f: Features) -> Tensor:
    """Equations (6) and (7) as they stand: every neighbour's embedding, and Q, K and V of each."""
    padded = [torch.cat([table, table.new_zeros(1, table.shape[1])]) for table in (model.users_UD, model.items_ID)]
    user_BD, item_BD = embedding(f.user_B, model.users_UD), embedding(f.item_B, model.items_ID)

    def aggregate(mna: MNA, rows_BKD: Tensor, target_BD: Tensor, weight_BK: Tensor | None, mask_BK: Tensor) -> Tensor:
        assert mna.query_DA is not None and mna.key_DA is not None
        query_BKA, key_B1A = rows_BKD @ mna.query_DA, target_BD[:, None] @ mna.key_DA
        logit_BK = (query_BKA @ key_B1A.transpose(1, 2)).squeeze(2) / mna.value_DA.shape[1] ** 0.5
        attention_BK = logit_BK.masked_fill(~mask_BK, torch.finfo(torch.float32).min).softmax(1) * mask_BK
        weighted_BK = attention_BK if weight_BK is None else attention_BK * weight_BK
        z_BA: Tensor = (weighted_BK[:, None] @ (rows_BKD @ mna.value_DA)).squeeze(1)
        return z_BA

    def macro(mna: MNA, table_KD: Tensor, target_BD: Tensor, count_BK: Tensor) -> Tensor:
        number_BK = torch.arange(len(table_KD)).expand(len(count_BK), -1)
        weight_BK = torch.softmax(torch.log(count_BK + 1) / CONFIG.tau, 1)
        return aggregate(mna, embedding(number_BK, table_KD), target_BD, weight_BK, torch.ones_like(number_BK).bool())

    def recent(mna: MNA, table_ND: Tensor, target_BD: Tensor, number_BR: Tensor) -> Tensor:
        known_BR = number_BR >= 0
        row_BRD = embedding(number_BR.where(known_BR, len(table_ND) - 1), table_ND)
        return aggregate(mna, row_BRD, target_BD, None, known_BR)

    of_items, of_users = model.of_items, model.of_users
    z = [
        macro(of_items, model.item_groups_QD, item_BD, f.user_hop1_BQ),
        macro(of_items, model.item_groups_QD, item_BD, f.item_hop2_BQ),
        recent(of_items, padded[1], item_BD, f.user_recent_BR),
        macro(of_users, model.user_groups_PD, user_BD, f.user_hop2_BP),
        macro(of_users, model.user_groups_PD, user_BD, f.item_hop1_BP),
        recent(of_users, padded[0], user_BD, f.item_recent_BR),
    ]
    x = torch.cat([user_BD, item_BD, *z], 1)
    *hidden, last = model.readout.layers
    for layer, dice in zip(hidden, model.readout.gates, strict=True):
        x = layer(x)
        p = torch.sigmoid((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-8).sqrt())
        assert isinstance(dice, Dice)
        x = p * x + (1 - p) * dice.alpha * x
    logit_B: Tensor = last(x).squeeze(1)
    return logit_B


def plain(graph: Graph, batches: list[ImpressionBatch]) -> Plain:
    """Steps over ready-made batches."""
    model = MODEL.from_graph(CONFIG, graph, torch.Generator().manual_seed(0))
    assert isinstance(model, MacGNN)
    optimizer = torch.optim.Adam(model.parameters(), lr=SETTINGS.lr, weight_decay=SETTINGS.weight_decay)
    return stepped(optimizer, lambda batch: bce(plain_logits(model, batch.features), batch.labels_B), batches)


def main() -> None:
    """Measure and print the line."""
    asleep("benchmarks.macgnn_train")
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    torch.set_num_threads(threads)
    graph, samples = made_up()
    batches = [
        batch
        for batch in islice(sampler(Impressions(), graph, BATCH, seed=0, labelled=samples).epoch(0), PLAIN_STEPS)
        if isinstance(batch, ImpressionBatch)
    ]
    first = ours(graph, samples).losses[:COMPARED]
    torch.testing.assert_close(plain(graph, batches[:COMPARED])[1], first, rtol=1e-3, atol=0)
    rates, cpus, plains = [], [], []
    for _ in range(TURNS):
        clock = ours(graph, samples)
        wall, cpu = clock.per_step()
        rates.append(N_SAMPLES * SETTINGS.epochs / len(clock.losses) / wall)
        cpus.append(cpu)
        plains.append(BATCH / plain(graph, batches)[0])
    emit(
        name="macgnn_train",
        value=round(median(rates)),
        unit="samples/s",
        baseline={"name": "the equations as the authors write them, PyTorch", "value": round(median(plains))},
        ratio=round(median(rates) / median(plains), 2),
        milliseconds_per_step=round(1e3 * BATCH / median(rates), 2),
        cpu_milliseconds_per_step=round(1e3 * median(cpus), 2),
        best=round(max(rates)),
        threads=threads,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
