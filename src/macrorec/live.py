"""What has happened since the fit? New events beside the fitted graph: who saw what, and what is popular, right now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp
import torch
from torch import Tensor

from macrorec.api import take_rows
from macrorec.data.log import Behavior
from macrorec.data.sources.table import read_table
from macrorec.data.vocab import Vocab
from macrorec.errors import DataError
from macrorec.graph.bipartite import Edges, Graph, edges_of
from macrorec.graph.typed import AnyMacroGraph, TypedMacroGraph, restored, types_of

EVENT = {"behavior": pl.String, "weight": pl.Float64, "timestamp": pl.Int64, "type": pl.Int64}
"""What is kept of an event beside its user_id and item_id: its time, null if it came without; its type for a macro
graph: 0 positive, 1 a target event rated below the least positive rating, null of a negative behaviour."""


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """The log as it is now. User numbers below ``n_fitted`` are those of the fit; newcomers follow in sorted order."""

    users: Vocab
    graph: Graph
    """All edges over all users and the fitted items: those of the fit, and those of the events since; the macro graph
    likewise."""
    n_fitted: int
    events: pl.DataFrame
    """The events since the fit: user_id, item_id, and ``EVENT``."""
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


def new_events(
    table: Any,
    columns: Mapping[str, str] | None,
    users: Vocab,
    items: Vocab,
    behaviors: Sequence[Behavior],
    positive: float | None,
) -> tuple[pl.DataFrame, int]:
    """``table``, made like a log, as events for ``after``; and how many are left out, of items that are not known.

    ``positive``: the least label of a positive; None: above .5. Raises DataError for what cannot be used.
    """
    frame = read_table(table, columns, "update")
    names = [behavior.name for behavior in behaviors]
    if "behavior" not in frame.columns:
        frame = frame.with_columns(behavior=pl.lit(names[-1]))
    for name in frame["behavior"].cast(pl.String).unique().to_list():
        if name not in names:
            raise DataError(f"update: unknown behaviour {name!r}; allowed are {', '.join(map(repr, names))}")
    if "weight" not in frame.columns:
        frame = frame.with_columns(weight=pl.lit(1.0))
    for name in {"timestamp", "label"} - set(frame.columns):
        frame = frame.with_columns(pl.lit(None).alias(name))
    frame = frame.with_columns(
        pl.col("weight", "label").cast(pl.Float64, strict=False),
        pl.col("timestamp").cast(pl.Int64, strict=False),
        pl.col("behavior").cast(pl.String),
    )
    if not frame["weight"].is_between(0, np.inf, closed="left").fill_null(False).all():
        raise DataError("update: a weight is not a finite number of at least 0")
    user_id = frame["user_id"].cast(users.ids.dtype, strict=False)
    if user_id.null_count():
        strange = frame["user_id"].filter(user_id.is_null())[0]
        raise DataError(f"update: user id {strange!r} is not {'text' if users.is_text else 'an integer'}")
    negative = [behavior.name for behavior in behaviors if behavior.role == "negative"]
    liked = pl.col("label") > 0.5 if positive is None else pl.col("label") >= positive
    positive_one = (pl.col("behavior") != names[-1]) | liked.fill_null(True)
    kind = pl.when(~pl.col("behavior").is_in(negative)).then((~positive_one).cast(pl.Int64))
    item = items.numbers(frame["item_id"])
    known = pl.Series(item >= 0, dtype=pl.Boolean)
    new = frame.with_columns(type=kind).select(user_id, *EVENT).filter(known)
    item_id = items.ids_of(item[item >= 0]).alias("item_id")
    return new.select("user_id", item_id, *EVENT), len(frame) - len(new)


def after(fitted_users: Vocab, fitted: Graph, items: Vocab, events: pl.DataFrame) -> Live:
    """The state after ``events`` on top of the fitted graph.

    ``events`` has user_id, item_id, behavior, weight, and where there is a macro graph the others of ``EVENT``; ids are
    of the vocabularies' types, items and behaviours known. It depends on the set of all events since the fit, not on
    their order or on how they were cut into updates; but a macro graph takes those without a timestamp as later than
    all that have one, in their order.
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
    scale = np.array([behavior.weight for behavior in fitted.behaviors])[index]
    macro = None if fitted.macro is None else _counted(fitted.macro, len(users), user, item, weight * scale, events)
    graph = Graph(len(users), len(items), fitted.behaviors, edges, macro)
    changed_U = np.zeros(len(users), dtype=bool)
    changed_U[user] = True
    popularity_I = graph.target.degrees(graph.n_items)[1]
    return Live(users, graph, len(fitted_users), events, changed_U, graph.masked(), popularity_I)


def _counted(
    old: AnyMacroGraph,
    n_users: int,
    user: npt.NDArray[np.int64],
    item: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float64],
    events: pl.DataFrame,
) -> AnyMacroGraph:
    """``old``, which stays as it is, and the events that count; first those with a time."""
    if not len(events):
        return old
    new = restored(old.tensors(), types_of(old))
    new.grow(n_users, len(old.items))
    timed, time = events["timestamp"].is_not_null().to_numpy(), events["timestamp"].fill_null(0).to_numpy()
    kind = events["type"].fill_null(-1).to_numpy()
    for rows, times in ((timed, time), (~timed, None)):
        rows = rows & ((kind == 0) | (isinstance(new, TypedMacroGraph) & (kind == 1)))
        columns = (user[rows], item[rows], weight[rows], None if times is None else times[rows])
        new.add(*columns, *([kind[rows]] if isinstance(new, TypedMacroGraph) else []))
    return new


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
