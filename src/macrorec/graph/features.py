"""What did a ranker know before each impression? Samples whose features see nothing of their own future."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from macrorec.data.log import Interactions
from macrorec.graph.bipartite import Graph
from macrorec.graph.groups import Groups
from macrorec.graph.macro import Features, MacroGraph


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Labelled impressions with their features, in the order of the rows that they come from."""

    features: Features
    label_B: Tensor
    """0 or 1, float32."""
    pairs: Interactions
    """The rows themselves: ids, labels, times."""
    user_history_B: npt.NDArray[np.int64]
    """Events of the user's history that the features were made from; 0: the user is cold."""
    item_history_B: npt.NDArray[np.int64]
    """The same of the item."""

    def __len__(self) -> int:
        return len(self.label_B)


def macro_of(graph: Graph, n_groups: int = 20) -> MacroGraph:
    """The macro graph of a graph that came without one: node numbers modulo ``n_groups`` as groups."""
    users = Groups(np.arange(graph.n_users, dtype=np.int32) % n_groups, n_groups)
    items = Groups(np.arange(graph.n_items, dtype=np.int32) % n_groups, n_groups)
    target = graph.target
    return MacroGraph(users, items, target.user_E.numpy(), target.item_E.numpy(), target.weight_E.numpy())


def samples_at(macro: MacroGraph, pairs: Interactions) -> Samples:
    """Samples of labelled ``pairs`` that all see the macro graph as it is now."""
    import torch

    assert pairs.label is not None
    features = macro.features(pairs.user, pairs.item)
    seen = (features.user_hop1_BQ.sum(1).long().numpy(), features.item_hop1_BP.sum(1).long().numpy())
    return Samples(features, torch.from_numpy(pairs.label), pairs, *seen)
