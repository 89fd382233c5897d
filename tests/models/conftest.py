"""What the hand-worked tests share: a graph from a drawing of zeros and ones, and a fitted model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from macrorec import models
from macrorec.api import Model
from macrorec.data.log import Behavior
from macrorec.graph.bipartite import Edges, Graph, edges_of


def edges_from(rows: list[list[int]]) -> Edges:
    matrix = np.array(rows)
    return edges_of(*matrix.nonzero(), *matrix.shape)


def graph_from(*drawings: list[list[int]]) -> Graph:
    """A behaviour per drawing, the last of which is the target."""
    auxiliary = (Behavior(name=f"view{n}", role="auxiliary", mask=False) for n in range(len(drawings) - 1))
    n_users, n_items = len(drawings[0]), len(drawings[0][0])
    return Graph(n_users, n_items, (*auxiliary, Behavior(name="buy")), tuple(map(edges_from, drawings)))


@pytest.fixture
def drawn() -> Callable[..., Graph]:
    """The graph of drawings: one row of zeros and ones per user."""
    return graph_from


@pytest.fixture
def history() -> Callable[[list[list[int]]], Edges]:
    """Edges of new users, drawn in the same way."""
    return edges_from


@pytest.fixture
def solved() -> Callable[..., Any]:
    """A closed-form model by name and settings, fitted to a graph, without gradients."""

    def fit(name: str, graph: Graph, /, **settings: Any) -> Model:
        kind = models.load(name)
        model = kind.from_graph(kind.Config(**settings), graph, torch.Generator().manual_seed(0))
        model.solve(graph, torch.Generator().manual_seed(0))
        return model.eval()

    return fit
