"""What has everybody done, counted by groups? The macro graph, exact after every event."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, fields, replace
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from macrorec.errors import DataError
from macrorec.graph.groups import UNKNOWN, Groups

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What a ranker may know of B impressions: one user and one item each. All tensors on one device.

    Shape letters: P groups of users, Q groups of items, R recents.
    """

    user_B: Tensor
    """User numbers, int64; -1 for a user without a row of its own."""
    item_B: Tensor
    """Item numbers, int64; -1 likewise."""
    user_group_B: Tensor
    """Group of the user, int64; -1 unknown."""
    item_group_B: Tensor
    """Group of the item, int64; -1 unknown."""
    user_hop1_BQ: Tensor
    """A_u1, float32: how often the user's history met each group of items."""
    user_hop2_BP: Tensor
    """A_u2, float32: paths from the user over its items to users of each group, those back to itself included."""
    item_hop1_BP: Tensor
    """A_i1, float32: how often each group of users met the item."""
    item_hop2_BQ: Tensor
    """A_i2, float32: paths from the item over its users to items of each group, those back to itself included."""
    user_recent_BR: Tensor
    """The user's latest items, int64, latest first; -1 beyond the first."""
    item_recent_BR: Tensor
    """The item's latest users, int64, latest first; -1 beyond the first."""

    def __len__(self) -> int:
        return len(self.user_B)

    def take(self, rows: Tensor) -> Features:
        """The impressions of these numbers, int64. (Indexing by a tensor takes four times as long.)"""
        return Features(**{f.name: getattr(self, f.name).index_select(0, rows) for f in fields(self)})

    def to(self, device: torch.device | str) -> Features:
        """The same on ``device``."""
        return Features(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


class MacroGraph:
    """Counts of (5) for every user and item under fixed groups; ``add`` equals a rebuild from the whole log."""

    def __init__(
        self,
        users: Groups,
        items: Groups,
        user_E: Numbers,
        item_E: Numbers,
        weight_E: Numbers | None = None,
        time_E: Numbers | None = None,
        *,
        recents: int = 20,
        pull: int = 1024,
        push: int = 256,
        dense: bool | None = None,
    ) -> None:
        """The graph of events in the log's order; without times that order is time, without weights each counts 1."""
        self.users, self.items, self.recents = users, items, recents
        self.pull, self.push, self.dense = pull, push, dense
        self.missed, self.n_events, self._latest = 0.0, 0, 0
        self._user_slab: list[list[tuple[int, int, float]]] = [[] for _ in range(len(users))]
        self._item_slab: list[list[tuple[int, int, float]]] = [[] for _ in range(len(items))]
        self._u1 = np.zeros((len(users), items.n))
        self._i1 = np.zeros((len(items), users.n))
        self._i2 = np.zeros((len(items), items.n))
        self.add(user_E, item_E, weight_E, time_E)

    def add(
        self, user_E: Numbers, item_E: Numbers, weight_E: Numbers | None = None, time_E: Numbers | None = None
    ) -> None:
        """Count these events, too. An event without a time comes at the latest time so far."""
        for user, item, weight, time in self._rows(user_E, item_E, weight_E, time_E):
            self._add(user, item, weight, time)

    def _rows(
        self, user_E: Numbers, item_E: Numbers, weight_E: Numbers | None, time_E: Numbers | None
    ) -> list[tuple[int, int, float, int]]:
        weight = np.ones(len(user_E)) if weight_E is None else weight_E
        time = np.full(len(user_E), self._latest) if time_E is None else time_E
        return list(zip(user_E.tolist(), item_E.tolist(), weight.tolist(), time.tolist(), strict=True))

    def _add(self, user: int, item: int, weight: float, time: int) -> None:
        p, q = int(self.users.of_N[user]), int(self.items.of_N[item])
        if q >= 0:
            for _, other, value in self._user_slab[user]:
                self._i2[other, q] += weight * value
            self._u1[user, q] += weight
        self._i2[item] += weight * self._u1[user]
        if p >= 0:
            self._i1[item, p] += weight
        insort(self._user_slab[user], (time, item, weight), key=itemgetter(0))
        insort(self._item_slab[item], (time, user, weight), key=itemgetter(0))
        self.n_events += 1
        self._latest = max(self._latest, time)

    def remove(
        self, user_E: Numbers, item_E: Numbers, weight_E: Numbers | None = None, time_E: Numbers | None = None
    ) -> None:
        """Take events back: of each user and item the latest, with this weight and time where they are given."""
        for row in range(len(user_E)):
            user, item = int(user_E[row]), int(item_E[row])
            found = [
                event
                for event in self._user_slab[user]
                if event[1] == item
                and (weight_E is None or event[2] == weight_E[row])
                and (time_E is None or event[0] == time_E[row])
            ]
            if not found:
                raise DataError(f"there is no event of user {user} and item {item} to remove")
            time, _, weight = found[-1]
            _drop(self._user_slab[user], (time, item, weight))
            _drop(self._item_slab[item], (time, user, weight))
            self.n_events -= 1
        self.refresh()

    def refresh(self) -> None:
        """Count everything anew from the kept events; ``missed`` is 0 afterwards."""
        self.regroup(self.users, self.items)

    def regroup(self, users: Groups, items: Groups) -> None:
        """Other groups for the same events; groups of more nodes make the tables grow."""
        self.users, self.items = users, items
        self._user_slab += [[] for _ in range(len(users) - len(self._user_slab))]
        self._item_slab += [[] for _ in range(len(items) - len(self._item_slab))]
        c_u, c_i = np.eye(users.n + 1)[users.of_N][:, :-1], np.eye(items.n + 1)[items.of_N][:, :-1]
        self._u1 = np.zeros((len(users), items.n))
        for user, slab in enumerate(self._user_slab):
            for _, item, weight in slab:
                self._u1[user] += weight * c_i[item]
        self._i1, self._i2 = np.zeros((len(items), users.n)), np.zeros((len(items), items.n))
        for item, slab in enumerate(self._item_slab):
            for _, user, weight in slab:
                self._i1[item] += weight * c_u[user]
                self._i2[item] += weight * self._u1[user]
        self.missed = 0.0

    def grow(self, n_users: int, n_items: int) -> None:
        """Room for new nodes, whose group is unknown."""
        new_U = np.full(n_users - len(self.users), UNKNOWN, np.int32)
        new_I = np.full(n_items - len(self.items), UNKNOWN, np.int32)
        users = replace(self.users, of_N=np.concatenate([self.users.of_N, new_U]))
        self.regroup(users, replace(self.items, of_N=np.concatenate([self.items.of_N, new_I])))

    def user_hop1(self, users_B: Numbers) -> Floats:
        """A_u1, float64, shape (B, Q)."""
        return _take(self._u1, users_B, 0)

    def user_hop2(self, users_B: Numbers) -> Floats:
        """A_u2, float64, shape (B, P)."""
        out = np.zeros((len(users_B), self.users.n))
        for row, user in enumerate(users_B.tolist()):
            if 0 <= user < len(self.users) and self._user_slab[user]:
                _, items, weights = zip(*self._user_slab[user], strict=True)
                out[row] = np.asarray(weights) @ self._i1[list(items)]
        return out

    def item_hop1(self, items_B: Numbers) -> Floats:
        """A_i1, float64, shape (B, P)."""
        return _take(self._i1, items_B, 0)

    def item_hop2(self, items_B: Numbers) -> Floats:
        """A_i2, float64, shape (B, Q)."""
        return _take(self._i2, items_B, 0)

    def user_recent(self, users_B: Numbers) -> Ints:
        """The latest items of users, latest first, int64, shape (B, R); -1 beyond the first."""
        return _recent(self._user_slab, users_B, self.recents)

    def item_recent(self, items_B: Numbers) -> Ints:
        """The latest users of items, latest first, int64, shape (B, R); -1 beyond the first."""
        return _recent(self._item_slab, items_B, self.recents)

    def user_events(self, users_B: Numbers) -> Ints:
        """How many events of each user count, int64, shape (B,)."""
        return _take(np.array([len(slab) for slab in self._user_slab]), users_B, 0)

    def item_events(self, items_B: Numbers) -> Ints:
        """How many events of each item count, int64, shape (B,)."""
        return _take(np.array([len(slab) for slab in self._item_slab]), items_B, 0)

    def features(self, user_B: Numbers, item_B: Numbers) -> Features:
        """The state now, as seen by the impressions (user_B[b], item_B[b]); -1 or beyond the tables: a new node."""

        def tensor(values: npt.NDArray[Any]) -> Tensor:
            return torch.from_numpy(values.astype(np.int64 if values.dtype.kind == "i" else np.float32))

        return Features(
            user_B=tensor(_take(np.arange(len(self.users)), user_B, -1)),
            item_B=tensor(_take(np.arange(len(self.items)), item_B, -1)),
            user_group_B=tensor(_take(self.users.of_N, user_B, -1)),
            item_group_B=tensor(_take(self.items.of_N, item_B, -1)),
            user_hop1_BQ=tensor(self.user_hop1(user_B)),
            user_hop2_BP=tensor(self.user_hop2(user_B)),
            item_hop1_BP=tensor(self.item_hop1(item_B)),
            item_hop2_BQ=tensor(self.item_hop2(item_B)),
            user_recent_BR=tensor(self.user_recent(user_B)),
            item_recent_BR=tensor(self.item_recent(item_B)),
        )

    def candidates(self, user: int, item_B: Numbers) -> Features:
        """The features of one user with B items."""
        return self.features(np.full(len(item_B), user), item_B)

    def replay(
        self,
        user_E: Numbers,
        item_E: Numbers,
        weight_E: Numbers | None,
        time_E: Numbers | None,
        user_S: Numbers,
        item_S: Numbers,
        before_S: Numbers,
    ) -> Features:
        """Add events one by one; sample s sees the state after the first before_S[s] of them (non-decreasing).

        Events after the last sample are added, too.
        """
        rows, done = self._rows(user_E, item_E, weight_E, time_E), 0
        seen = []
        for sample, before in enumerate([*before_S.tolist(), len(rows)]):
            for row in rows[done:before]:
                self._add(*row)
            done = before
            if sample < len(user_S):
                seen.append(self.features(user_S[sample : sample + 1], item_S[sample : sample + 1]))
        if not seen:
            return self.features(user_S, item_S)
        return Features(**{f.name: torch.cat([getattr(s, f.name) for s in seen]) for f in fields(Features)})

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, for ``from_tensors``."""
        raise NotImplementedError

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> MacroGraph:
        """The graph that ``tensors`` was taken from."""
        raise NotImplementedError


def _drop(slab: list[tuple[int, int, float]], event: tuple[int, int, float]) -> None:
    """Drop the last of equal events."""
    del slab[len(slab) - 1 - slab[::-1].index(event)]


def _take(values: npt.NDArray[Any], numbers_B: Numbers, empty: float) -> npt.NDArray[Any]:
    inside = (numbers_B >= 0) & (numbers_B < len(values))
    if not len(values):
        return np.full((len(numbers_B), *values.shape[1:]), empty, values.dtype)
    shape = (-1, *[1] * (values.ndim - 1))
    return np.where(inside.reshape(shape), values[np.where(inside, numbers_B, 0)], values.dtype.type(empty))


def _recent(slabs: list[list[tuple[int, int, float]]], numbers_B: Numbers, recents: int) -> Ints:
    out = np.full((len(numbers_B), recents), -1)
    for row, number in enumerate(numbers_B.tolist()):
        if 0 <= number < len(slabs):
            latest = [other for _, other, _ in slabs[number][: -recents - 1 : -1]]
            out[row, : len(latest)] = latest
    return out
