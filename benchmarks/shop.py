"""A bundle of any size that nobody had to train: for measuring how a server answers, not what.

Items lie in clusters, users near some of them, events go to near items; a MacGNN of random weights ranks.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from macrorec.bundle import Bundle
from macrorec.data.log import Behavior
from macrorec.data.vocab import Vocab
from macrorec.graph.bipartite import Graph, edges_of
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph
from macrorec.models import bpr, macgnn

GROUPS = 20
CLUSTERS = 1_000


def write(folder: Path, n_items: int, n_users: int, n_events: int, dim: int = 64, seed: int = 0) -> Path:
    """A bundle with its ranker in ``folder``."""
    random = np.random.default_rng(seed)
    centre_CD = random.normal(size=(CLUSTERS, dim)).astype(np.float32)
    cluster_I, cluster_U = random.integers(0, CLUSTERS, n_items), random.integers(0, CLUSTERS, n_users)
    items_ID = centre_CD[cluster_I] + 0.7 * random.normal(size=(n_items, dim)).astype(np.float32)
    users_UD = centre_CD[cluster_U] + 0.7 * random.normal(size=(n_users, dim)).astype(np.float32)
    user_E, item_E = events(random, cluster_U, cluster_I, n_events)
    folder.parent.mkdir(parents=True, exist_ok=True)
    users = Vocab(pl.select(pl.format("u{}", pl.int_range(n_users).cast(pl.String).str.zfill(8))).to_series())
    items = Vocab(pl.select(pl.format("i{}", pl.int_range(n_items).cast(pl.String).str.zfill(8))).to_series())
    schema = (Behavior(name="buy"),)
    edges = (edges_of(user_E, item_E, n_users, n_items),)
    graph = Graph(n_users, n_items, schema, edges)
    retriever = bpr.MODEL.from_graph(bpr.MODEL.Config(dim=dim), graph, torch.Generator().manual_seed(seed))
    retriever.load_state_dict({"users_UD": torch.from_numpy(users_UD), "items_ID": torch.from_numpy(items_ID)})
    groups = [Groups((cluster % GROUPS).astype(np.int32), GROUPS) for cluster in (cluster_U, cluster_I)]
    macro = Graph(n_users, n_items, schema, edges, MacroGraph(groups[0], groups[1], user_E, item_E))
    ranker = macgnn.MODEL.from_graph(macgnn.MODEL.Config(), macro, torch.Generator().manual_seed(seed))
    with tempfile.TemporaryDirectory(dir=folder.parent) as other:
        inner = Bundle.save(Path(other) / "ranker", ranker.eval(), macro, users, items)
        return Bundle.save(folder, retriever.eval(), graph, users, items, ranker=inner)


def events(
    random: np.random.Generator, cluster_U: npt.NDArray[np.int64], cluster_I: npt.NDArray[np.int64], n: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Users, the first ones more active, and items of their clusters, where there are any."""
    order = np.argsort(cluster_I, kind="stable")
    start = np.searchsorted(cluster_I[order], np.arange(CLUSTERS + 1))
    user = (len(cluster_U) * random.random(n) ** 1.5).astype(np.int64)
    cluster = cluster_U[user]
    size = start[cluster + 1] - start[cluster]
    place = start[cluster] + (random.random(n) ** 2 * size).astype(np.int64)
    item = np.where(size > 0, order[np.minimum(place, len(order) - 1)], random.integers(0, len(cluster_I), n))
    return user, item
