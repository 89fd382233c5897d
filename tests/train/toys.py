"""Small graphs and models for tests of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from macrorec.api import Batch, Model, PairBatch, Pairwise, Step, TwoTower
from macrorec.data.log import Behavior, Interactions
from macrorec.data.vocab import Vocab
from macrorec.graph.bipartite import Graph, build
from macrorec.graph.features import Samples, macro_of, samples_at


def log_of(user: Any, item: Any, n_users: int, n_items: int, label: Any = None) -> Interactions:
    """A log of one behaviour with the numbers 0, 1, ... as ids."""
    user, item = np.asarray(user, dtype=np.int32), np.asarray(item, dtype=np.int32)
    return Interactions(
        Vocab(np.arange(n_users)),
        Vocab(np.arange(n_items)),
        (Behavior(name="buy"),),
        user,
        item,
        np.zeros(len(user), dtype=np.int8),
        label=None if label is None else np.asarray(label, dtype=np.float32),
    )


def graph_of(n_users: int = 40, n_items: int = 30, n_events: int = 400, seed: int = 0) -> Graph:
    """A random graph; the last user is isolated."""
    random = np.random.default_rng(seed)
    user = ((n_users - 1) * random.random(n_events) ** 2).astype(int)
    return build(log_of(user, random.integers(0, n_items, n_events), n_users, n_items))


def samples_of(graph: Graph) -> Samples:
    """An impression of every third pair, liked where the sum of both numbers is even; all see the whole graph."""
    user, item = (g.ravel()[::3] for g in np.meshgrid(np.arange(graph.n_users), np.arange(graph.n_items)))
    return samples_at(macro_of(graph), log_of(user, item, graph.n_users, graph.n_items, (user + item) % 2 == 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyConfig:
    dim: int = 4


class Toy(TwoTower):
    """BPR on two tables, with a loss of two terms and a random dropout from the batch's generator."""

    Config = ToyConfig
    batches = Pairwise(n=2)

    def __init__(self, config: ToyConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.users_UD = nn.Parameter(torch.zeros(graph.n_users, config.dim))
        self.items_ID = nn.Parameter(torch.zeros(graph.n_items, config.dim))

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.users_UD, generator=generator)
        nn.init.normal_(self.items_ID, generator=generator)

    def encode(self) -> tuple[Tensor, Tensor]:
        return self.users_UD, self.items_ID

    def losses(self, batch: PairBatch) -> dict[str, Tensor]:
        users_BD = self.users_UD[batch.users_B]
        keep_BD = torch.rand(users_BD.shape, generator=batch.generator) < 0.9
        items_BD, negatives_BND = self.items_ID[batch.items_B], self.items_ID[batch.negatives_BN]
        difference_BND = negatives_BND - items_BD[:, None]
        bpr = softplus(((users_BD * keep_BD)[:, None] * difference_BND).sum(-1)).mean()
        return {"bpr": bpr, "l2": 0.01 * users_BD.square().mean()}


class TwoSteps(Toy):
    """Two optimiser steps per batch: the ranking loss, then the norms."""

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        assert isinstance(batch, PairBatch)
        terms = self.losses(batch)
        step(terms["bpr"])
        norm = 0.1 * self.items_ID.square().mean()
        step(norm)
        return {"bpr": terms["bpr"], "norm": norm}


class Solved(Model):
    """In closed form: a random item bias."""

    Config = ToyConfig
    calls = 0

    def __init__(self, config: ToyConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.register_buffer("bias_I", torch.zeros(graph.n_items))

    def solve(self, graph: Graph, generator: torch.Generator) -> None:
        self.calls += 1
        self.bias_I = torch.rand(graph.n_items, generator=generator)


def made(kind: type[Any], graph: Graph, seed: int = 1, **config: Any) -> Any:
    """A freshly initialised model."""
    return kind.from_graph(kind.Config(**config), graph, torch.Generator().manual_seed(seed))


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether two models hold equal bits."""
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)
