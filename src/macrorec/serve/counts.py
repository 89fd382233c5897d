"""What does the ranker know of users and items right now? Its macro graph, fed with every event.

The ranker may know users and items that the retriever does not, and others in another order: here its numbers are found
from those of the state. Shape letters: U users and I items of the state, E events, B items, Q groups of items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.api import Ranker
from macrorec.bundle import Bundle
from macrorec.graph import candidates
from macrorec.graph.candidates import Candidates
from macrorec.graph.columns import Features
from macrorec.graph.groups import UNKNOWN
from macrorec.graph.macro import MacroGraph
from macrorec.graph.slabs import longer
from macrorec.graph.typed import TypedMacroGraph
from macrorec.serve.idtable import IdTable

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

MILLISECONDS = 10**11
"""A log whose last time is larger counts in milliseconds; in seconds it would be of the year 5138."""
MANY = 20_000
"""From so many events on, counting anew is faster than adding them, unless somebody reads meanwhile."""


class Counts:
    """The macro graph of a ranker, taken over from its bundle: nobody else may change it."""

    def __init__(self, bundle: Bundle, users_U: Ints, items_I: Ints, users: IdTable) -> None:
        """``users_U``, ``items_I``: the ranker's number of each of the state's, -1 where it knows none."""
        assert isinstance(bundle.model, Ranker)
        self.macro = bundle.model.macro
        self.behaviors = bundle.graph.behaviors
        self._names = [behavior.name for behavior in self.behaviors]
        kept = bundle.config.get("recommender") or {}
        least = kept.get("positive") if kept else (bundle.config.get("prepare") or {}).get("binary")
        self._least = 0.5 if least is None else float(least)
        self._above = least is None
        self.unit = 1000 if self.macro.latest > MILLISECONDS else 1
        """The graph's units of time per second."""
        ids = bundle.users.ids.cast(pl.String)
        alone = users.numbers(ids) < 0
        self._others = IdTable(ids.filter(pl.Series(alone)))
        self._other_numbers = np.flatnonzero(alone)
        self._of_user = users_U.astype(np.int64)
        self._of_item = items_I.astype(np.int64)
        self.add_items(np.flatnonzero(items_I < 0), np.full(int((items_I < 0).sum()), UNKNOWN))
        self.macro.grow(len(self.macro.users) + 1, len(self.macro.items) + 1)  # tables move now, not under a newcomer

    # --- nodes ---

    def number(self, user: int) -> int:
        """The ranker's number of a user of the state; -1 for one of whom it knows nothing."""
        return int(self._of_user[user]) if user < len(self._of_user) else -1

    def other(self, user_id: str) -> int:
        """The ranker's number of somebody whom the retriever does not know; -1 where it knows nobody either."""
        place = self._others.number(user_id)
        return int(self._other_numbers[place]) if place >= 0 else -1

    def add_users(self, users: Ints, ids: Sequence[str]) -> None:
        """New users of the state: each has a number from now on."""
        if len(users) and int(users.max()) >= len(self._of_user):
            now = len(self._of_user)
            self._of_user = longer(self._of_user, max(int(users.max()) + 1, now + now // 2 + 8), -1)
        places = self._others.numbers(ids) if len(self._others) else np.full(len(users), -1)
        known = places >= 0
        self._of_user[users[known]] = self._other_numbers[places[known]]
        self._give_rows(self._of_user, users[~known], "users")

    def need_users(self, users: Ints) -> None:
        """Users of the state who have events now: each has a number from now on."""
        self._give_rows(self._of_user, users[self._of_user[users] < 0], "users")

    def add_items(self, items: Ints, groups: Array) -> None:
        """New items of the state, with their groups or ``UNKNOWN``."""
        if not len(items):
            return
        if int(items.max()) >= len(self._of_item):
            now = len(self._of_item)
            self._of_item = longer(self._of_item, max(int(items.max()) + 1, now + now // 2 + 8), -1)
        self._give_rows(self._of_item, items, "items", groups)

    def _give_rows(self, numbers: Ints, nodes: Ints, side: str, groups: Array | None = None) -> None:
        """Rows of the macro graph for these nodes."""
        if not len(nodes):
            return
        n_users, n_items = len(self.macro.users), len(self.macro.items)
        if side == "users":
            numbers[nodes] = np.arange(n_users, n_users + len(nodes))
            self.macro.grow(n_users + len(nodes), n_items)
        else:
            numbers[nodes] = np.arange(n_items, n_items + len(nodes))
            self.macro.grow(n_users, n_items + len(nodes), item_group=groups)

    def groups(self, items: Ints) -> Array:
        """The group of each item of the state, -1 for none."""
        return self.macro.items.of_N[self._of_item[items]]

    def items_of(self, numbers: Sequence[int]) -> dict[int, int]:
        """The state's numbers of items of the ranker, by these; those that the state lacks are left out."""
        places = np.flatnonzero(np.isin(self._of_item, np.array(numbers, dtype=np.int64)))
        return dict(zip(self._of_item[places].tolist(), places.tolist(), strict=True))

    # --- events ---

    def add(
        self,
        user_E: Ints,
        item_E: Ints,
        names: Sequence[str],
        behavior_E: Array,
        time_E: Array,
        weight_E: Array,
        label_E: Array,
        *,
        anew: bool = False,
    ) -> None:
        """Count events of users and items of the state; ``behavior_E`` numbers ``names``.

        ``anew``: nobody reads meanwhile, so that many may be counted by counting everything anew.
        """
        index = np.array([self._names.index(name) if name in self._names else -1 for name in names], dtype=np.int64)
        scale_R = np.array([behavior.weight for behavior in self.behaviors])
        negative_R = np.array([behavior.role == "negative" for behavior in self.behaviors])
        own_E = index[behavior_E]
        with np.errstate(invalid="ignore"):
            disliked_E = ~(label_E > self._least) if self._above else label_E < self._least
        disliked_E = disliked_E & ~np.isnan(label_E) & (own_E == len(self._names) - 1)
        typed = isinstance(self.macro, TypedMacroGraph)
        rows = np.flatnonzero((own_E >= 0) & ~negative_R[own_E] & (typed | ~disliked_E))
        if not len(rows):
            return
        self.need_users(distinct(user_E[rows]))
        columns = (
            self._of_user[user_E[rows]],
            self._of_item[item_E[rows]],
            (weight_E[rows] * scale_R[own_E[rows]]).astype(np.float32),
            time_E[rows] * self.unit,
        )
        count = self.macro.extend if anew and len(rows) >= MANY else self.macro.add
        count(*columns, *([disliked_E[rows].astype(np.int8)] if typed else []))

    def forget(self, user: int, user_id: str) -> None:
        """A user of the state, or -1, has done nothing."""
        number = self.number(user) if user >= 0 else -1
        if (place := self._others.number(user_id)) >= 0:
            number = int(self._other_numbers[place])
            self._others.withdraw(place)
        if number < 0:
            return
        typed = isinstance(self.macro, TypedMacroGraph)
        graphs: Sequence[MacroGraph] = self.macro.graphs if isinstance(self.macro, TypedMacroGraph) else (self.macro,)
        for kind, graph in enumerate(graphs):
            items, weights, times = graph.events_of(number)
            own = np.full(len(items), number), items, weights, times
            if len(items):
                self.macro.remove(*own, *([np.full(len(items), kind)] if typed else []))

    # --- reading ---

    def features(self, number: int, items: Ints) -> Features:
        """What the ranker sees of one of its users (-1: a new one) with B items of the state."""
        return self.macro.candidates(number, self._of_item[items])

    def candidates(self, number: int, items: Ints) -> Candidates:
        """The same, as a compiled loop takes it."""
        return candidates.read(self.macro, number, self._of_item[items])

    def hop1(self, number: int) -> npt.NDArray[np.float64]:
        """Weights (Q,) of a user's groups of items, by events of the first type."""
        graph = self._first
        rows_UQ = graph.state.user_hop1.dense_NK
        if len(rows_UQ) and 0 <= number < len(graph.users):  # as ``user_hop1`` does, in a tenth of the time
            weights_Q: npt.NDArray[np.float64] = np.maximum(rows_UQ[number], 0)
        else:
            weights_Q = graph.user_hop1(np.array([number]))[0]
        return weights_Q

    def met_by(self, items: Ints) -> npt.NDArray[np.float64]:
        """Weights (B, P) of the groups of users that have met each of B items, likewise."""
        return self._first.item_hop1(self._of_item[items])

    @property
    def _first(self) -> MacroGraph:
        return self.macro.graphs[0] if isinstance(self.macro, TypedMacroGraph) else self.macro

    @property
    def nbytes(self) -> int:
        """Bytes of the macro graph."""
        return self.macro.nbytes


def distinct(numbers: Array) -> Ints:
    """The numbers, none below 0, each once, sorted: as ``np.unique``, and for very many of them much faster."""
    if len(numbers) < MANY:
        return np.unique(numbers).astype(np.int64)
    there = np.zeros(int(numbers.max()) + 1, np.bool_)
    there[numbers] = True
    return np.flatnonzero(there)
