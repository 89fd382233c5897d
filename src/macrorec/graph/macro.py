"""What has everybody done, counted by groups? The macro graph, exact after every event."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from macrorec.graph.groups import Groups

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


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
        """The impressions ``rows``."""
        return Features(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def to(self, device: torch.device | str) -> Features:
        """The same on ``device``."""
        return Features(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


class MacroGraph:
    """Counts of (5) for every user and item under fixed groups; ``add`` equals a rebuild from the whole log."""

    def __init__(
        self,
        users: Groups,
        items: Groups,
        user_E: npt.NDArray[Any],
        item_E: npt.NDArray[Any],
        weight_E: npt.NDArray[Any] | None = None,
        time_E: npt.NDArray[Any] | None = None,
        *,
        recents: int = 20,
    ) -> None:
        """The graph of events in the log's order; without times that order is time, without weights each counts 1."""
        self.users, self.items, self.recents = users, items, recents
        self._events: list[tuple[int, int, float, int]] = []
        self.add(user_E, item_E, weight_E, time_E)

    def add(
        self,
        user_E: npt.NDArray[Any],
        item_E: npt.NDArray[Any],
        weight_E: npt.NDArray[Any] | None = None,
        time_E: npt.NDArray[Any] | None = None,
    ) -> None:
        """Count these events, too."""
        weight = np.ones(len(user_E)) if weight_E is None else weight_E
        time = np.zeros(len(user_E), dtype=np.int64) if time_E is None else time_E
        self._events += zip(user_E.tolist(), item_E.tolist(), weight.tolist(), time.tolist(), strict=True)
        self._events.sort(key=lambda event: event[3])
        n_users, n_items = len(self.users), len(self.items)
        self._r = np.zeros((n_users, n_items))
        for user, item, value, _ in self._events:
            self._r[user, item] += value

    def features(self, user_B: npt.NDArray[Any], item_B: npt.NDArray[Any]) -> Features:
        """The state now, as seen by the impressions (user_B[b], item_B[b]); numbers beyond the groups are new."""
        c_u = np.eye(self.users.n + 1)[self.users.of_N][:, :-1]
        c_i = np.eye(self.items.n + 1)[self.items.of_N][:, :-1]
        u1, i1 = self._r @ c_i, self._r.T @ c_u
        u2, i2 = self._r @ i1, self._r.T @ u1
        recent_u = np.full((len(self.users), self.recents), -1)
        recent_i = np.full((len(self.items), self.recents), -1)
        for user, item, _, _ in self._events:
            recent_u[user] = [item, *recent_u[user][:-1]]
            recent_i[item] = [user, *recent_i[item][:-1]]

        def rows(values: npt.NDArray[Any], numbers: npt.NDArray[Any], empty: float) -> Tensor:
            inside = (numbers >= 0) & (numbers < len(values))
            taken = np.where(inside.reshape(-1, *[1] * (values.ndim - 1)), values[np.where(inside, numbers, 0)], empty)
            return torch.from_numpy(taken.astype(np.int64 if empty else np.float32))

        return Features(
            user_B=rows(np.arange(len(self.users)), user_B, -1),
            item_B=rows(np.arange(len(self.items)), item_B, -1),
            user_group_B=rows(self.users.of_N, user_B, -1),
            item_group_B=rows(self.items.of_N, item_B, -1),
            user_hop1_BQ=rows(u1, user_B, 0),
            user_hop2_BP=rows(u2, user_B, 0),
            item_hop1_BP=rows(i1, item_B, 0),
            item_hop2_BQ=rows(i2, item_B, 0),
            user_recent_BR=rows(recent_u, user_B, -1),
            item_recent_BR=rows(recent_i, item_B, -1),
        )
