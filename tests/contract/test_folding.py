"""What a server asks a model again and again: the vector of somebody with these items, without work that could wait."""

import numpy as np
import pytest
import torch
from tests.contract.boards import corners, fresh

from macrorec.api import Model, TwoTower
from macrorec.graph.bipartite import build, edges_of
from macrorec.ops.spmm import SparseMatrix


def test_folding_is_done_with_the_graph_before_the_first_history_comes(kind: type[Model]) -> None:
    if not issubclass(kind, TwoTower):
        return
    graph = build(corners())
    model = fresh(kind, graph).eval()
    assert isinstance(model, TwoTower)
    histories = [
        edges_of(np.array([0, 0, 2]), np.array([1, 4, 10]), 3, graph.n_items),
        edges_of(np.array([0]), np.array([3]), 1, graph.n_items),
    ]
    with torch.no_grad():
        expected = [model.fold_in_vectors(history) for history in histories]
        fold = model.folding()
        for name, part in list(model.named_modules()):
            if isinstance(part, SparseMatrix):
                owner, _, own = name.rpartition(".")
                setattr(model.get_submodule(owner), own, torch.nn.Identity())
        if type(model).fold_in_vectors is TwoTower.fold_in_vectors:
            model.encode = lambda: pytest.fail("vectors of all users and items were made again")  # type: ignore
        for history, right in zip(histories, expected, strict=True):
            assert torch.equal(fold(history), right)
