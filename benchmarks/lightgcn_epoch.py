"""How long does an epoch of LightGCN on Gowalla take, and how much memory? dim 64, 3 layers, batch 2,048, 4 threads.

Run as ``python -m benchmarks.lightgcn_epoch [steps]``: so many steps (100, or 396 for a whole epoch) through ``train``,
scaled to the epoch, in three turns with the baseline, medians. Baseline: the same arithmetic as LightGCN's authors
write it in PyTorch (COO adjacency, all layers stacked, all rows, plain Adam), on ready-made batches; ``csr`` the same
with a CSR adjacency and fused Adam. The losses of the first steps are compared before anything is measured.
"""

from __future__ import annotations

import os
import resource
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from benchmarks import gowalla
from benchmarks.line import emit
from benchmarks.waiting import asleep
from macrorec.api import PairBatch
from macrorec.graph.bipartite import Graph, from_split
from macrorec.models.lightgcn import MODEL, LightGCN
from macrorec.train.sampling import sampler
from macrorec.train.trainer import TrainConfig, train

THREADS, BATCH, STEPS, TURNS = 4, 2048, 100, 3
CONFIG = MODEL.Config()


class Enough(Exception):
    """As many steps as were wanted are done."""


@dataclass
class Clock:
    """Stands in for the progress display: notes when each step ends, and stops the training after ``steps``."""

    steps: int
    losses: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def start(self, n_epochs: int, n_steps: int, done: int = 0) -> None:
        """Training begins."""
        self._note()

    def step(self, epoch: int, step: int, loss: float) -> None:
        """A batch is done."""
        self.losses.append(loss)
        self._note()
        if step == self.steps:
            raise Enough

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is done: nothing to note."""

    def close(self) -> None:
        """Training is over: nothing to close."""

    def _note(self) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def per_step(self) -> tuple[float, float]:
        """Mean wall and processor seconds of a step, the first left out."""
        n = len(self.wall) - 2
        return (self.wall[-1] - self.wall[1]) / n, (self.cpu[-1] - self.cpu[1]) / n


def ours(graph: Graph, steps: int) -> Clock:
    """``steps`` steps through ``train``."""
    clock = Clock(steps)
    model = MODEL.from_graph(CONFIG, graph, torch.Generator().manual_seed(0))
    with suppress(Enough):
        train(model, graph, TrainConfig(epochs=1, batch_size=BATCH), seed=0, progress=clock)
    return clock


def plain(graph: Graph, batches: list[PairBatch], *, csr: bool) -> tuple[float, list[float]]:
    """Mean seconds of a step over ready-made ``batches``, as anybody would write it, and the losses."""
    model = MODEL.from_graph(CONFIG, graph, torch.Generator().manual_seed(0))
    assert isinstance(model, LightGCN)
    adjacency = _adjacency(model, csr=csr)
    table_ND = model.vectors_ND
    optimizer = torch.optim.Adam([table_ND], lr=1e-3, fused=csr)
    losses, ends = [], []
    for batch in batches:
        layers: list[Tensor] = [table_ND]
        for _ in range(CONFIG.n_layers):
            layers.append(torch.sparse.mm(adjacency, layers[-1]))
        final_ND = torch.stack(layers, dim=1).mean(dim=1)
        users, items = batch.users_B, graph.n_users + batch.items_B
        negatives = graph.n_users + batch.negatives_BN[:, 0]
        pos_B, neg_B = ((final_ND[users] * final_ND[other]).sum(1) for other in (items, negatives))
        squares = sum((table_ND[rows].norm(2).pow(2) for rows in (users, items, negatives)), torch.zeros(()))
        loss: Tensor = softplus(neg_B - pos_B).mean() + CONFIG.l2 * squares / 2 / len(users)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
        ends.append(time.perf_counter())
    return (ends[-1] - ends[0]) / (len(ends) - 1), losses


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
    first = ours(graph, 6)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    kind = MODEL(CONFIG, graph).batches
    assert kind is not None
    made = sampler(kind, graph, BATCH, seed=0)
    batches = [batch for batch in islice(made.epoch(0), 6) if isinstance(batch, PairBatch)]
    for csr in (False, True):
        torch.testing.assert_close(plain(graph, batches, csr=csr)[1], first.losses, rtol=1e-4, atol=0)
    walls, cpus, coos, csrs = [], [], [], []
    for _ in range(TURNS):
        wall, cpu = ours(graph, steps).per_step()
        walls.append(made.n_steps * wall)
        cpus.append(made.n_steps * cpu)
        coos.append(made.n_steps * plain(graph, batches, csr=False)[0])
        csrs.append(made.n_steps * plain(graph, batches, csr=True)[0])
    emit(
        name="lightgcn_epoch",
        value=round(median(walls), 1),
        unit="s",
        baseline={"name": "PyTorch as the authors write it, COO", "value": round(median(coos), 1)},
        ratio=round(median(coos) / median(walls), 2),
        csr=round(median(csrs), 1),
        best=round(min(walls), 1),
        cpu_seconds=round(median(cpus), 1),
        peak_rss_bytes=peak,
        steps={"measured": steps, "epoch": made.n_steps},
        data=origin,
        threads=THREADS,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
