"""What has happened since the fit? New events beside the fitted graph: who saw what, and what is popular, right now."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp
import torch
from torch import Tensor

from macrorec.api import take_rows
from macrorec.data.vocab import Vocab
from macrorec.graph.bipartite import Edges, Graph, edges_of


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """The log as it is now. User numbers below ``n_fitted`` are those of the fit; newcomers follow in sorted order."""

    users: Vocab
    graph: Graph
    """All edges over all users and the fitted items: those of the fit, and those of the events since."""
    n_fitted: int
    events: pl.DataFrame
    """The events since the fit: user_id, item_id, behavior, weight."""
    changed_U: npt.NDArray[np.bool_]
    """Users with an event since the fit: the model's own row for them is out of date."""
    seen: sp.csr_matrix
    """(U, I) pattern of what is left out of a user's ranking."""
    popularity_I: Tensor
    """Users per item by the target behaviour."""

    def sizes(self, users: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Target edges of each of ``users`` (numbers), shape (B,)."""
        start_U = self.graph.target.start_U.numpy()
        sizes: npt.NDArray[np.int64] = start_U[users + 1] - start_U[users]
        return sizes

    def history(self, users: npt.NDArray[np.int64]) -> Edges:
        """The target edges of ``users`` (numbers, shape (B,)), renumbered 0 to B - 1."""
        start_B, item_E = take_rows(self.graph.target.start_U, self.graph.target.item_E, torch.from_numpy(users))
        user_E = torch.arange(len(users)).repeat_interleave(start_B.diff())
        return edges_of(user_E.numpy(), item_E.numpy(), len(users), self.graph.n_items)

    def items_of(self, user: int) -> Tensor:
        """The items with a target edge of ``user``, shape (H,)."""
        start_U = self.graph.target.start_U
        return self.graph.target.item_E[int(start_U[user]) : int(start_U[user + 1])]


def after(fitted_users: Vocab, fitted: Graph, items: Vocab, events: pl.DataFrame) -> Live:
    """The state after ``events`` on top of the fitted graph.

    ``events`` has user_id, item_id, behavior, weight; ids are of the vocabularies' types, items and behaviours known.
    It depends on the set of all events since the fit, not on their order or on how they were cut into updates.
    """
    number = fitted_users.numbers(events["user_id"])
    newcomers = events["user_id"].filter(pl.Series(number < 0, dtype=pl.Boolean)).unique().sort()
    users = Vocab(pl.concat([fitted_users.ids, newcomers.alias("id")])) if len(newcomers) else fitted_users
    user, item = users.numbers(events["user_id"]), items.numbers(events["item_id"])
    assert len(item) == 0 or (user.min() >= 0 and item.min() >= 0)
    names = [behavior.name for behavior in fitted.behaviors]
    index = np.array([names.index(name) for name in events["behavior"]], dtype=np.int64)
    weight = events["weight"].to_numpy()
    edges = tuple(
        _joined(old, user[index == r], item[index == r], weight[index == r] * behavior.weight, len(users), len(items))
        for r, (behavior, old) in enumerate(zip(fitted.behaviors, fitted.edges, strict=True))
    )
    graph = Graph(len(users), len(items), fitted.behaviors, edges)
    changed_U = np.zeros(len(users), dtype=bool)
    changed_U[user] = True
    popularity_I = graph.target.degrees(graph.n_items)[1]
    return Live(users, graph, len(fitted_users), events, changed_U, graph.masked(), popularity_I)


def _joined(
    old: Edges,
    user: npt.NDArray[np.int64],
    item: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float64],
    n_users: int,
    n_items: int,
) -> Edges:
    """``old`` and the events, as ``edges_of`` makes of both together; counts of events add up."""
    users = np.concatenate([old.user_E.numpy(), user])
    items = np.concatenate([old.item_E.numpy(), item])
    edges = edges_of(users, items, n_users, n_items, np.concatenate([old.weight_E.numpy(), weight]))
    counts = edges_of(users, items, n_users, n_items, np.concatenate([old.count_E.numpy(), np.ones(len(user))]))
    return Edges(edges.user_E, edges.item_E, edges.weight_E, counts.weight_E.round().long(), edges.start_U)
