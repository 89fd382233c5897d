"""What has each user done, by the fit and since? Items in the order in which they came, and what answers leave out.

The edges of the fit stay as they are; what came later stands beside them. Shape letters: U users, I items, E events, F
edges of the fit, H items of one user.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from macrorec.graph.bipartite import Graph
from macrorec.graph.slabs import Slabs, empty_slabs, lengthened, longer, packed

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

_MANY = 1 << 14
"""From so many events on it pays to sort them by user first."""


class Histories:
    """Histories of all users. Reading may go on in several threads, but not while another changes them."""

    def __init__(self, graph: Graph, n_users: int, n_items: int) -> None:
        """Those of the fit; with empty ones for users and items beyond it, up to these numbers."""
        target = graph.target
        self._start_U, self._item_F = target.start_U.numpy(), target.item_E.numpy()
        masks = [behavior.mask for behavior in graph.behaviors]
        if masks[-1] and not any(masks[:-1]):
            self._masked = self._start_U, self._item_F
        else:
            masked = graph.masked()
            self._masked = masked.indptr.astype(np.int64), masked.indices.astype(np.int64)
        self._bits_R = np.array([2 * mask for mask in masks], dtype=np.int64)
        self._bits_R[-1] |= 1
        self._live: Slabs = empty_slabs(n_users, np.int64, pool=1 << 10)
        self._events_U = np.zeros(n_users, np.int32)
        self._gone_U = np.zeros(n_users, np.bool_)
        self.count_I: Ints = longer(target.degrees(graph.n_items)[1].numpy(), n_items)
        """Users per item by the target behaviour."""

    def grow(self, n_users: int, n_items: int) -> None:
        """Room for so many users and items in all; for half as many more than now, if arrays must move."""
        now = len(self._events_U)
        if n_users > now:
            n = max(n_users, now + now // 2 + 8)
            self._live = lengthened(self._live, n)
            self._events_U, self._gone_U = longer(self._events_U, n), longer(self._gone_U, n)
        if n_items > len(self.count_I):
            self.count_I = longer(self.count_I, max(n_items, len(self.count_I) * 3 // 2 + 8))

    def apply(self, user_E: Ints, item_E: Ints, behavior_E: Array, arrival_E: Ints) -> Ints:
        """Count events, in the order of their ``arrival_E``; the items that gained a user by the target behaviour.

        An item appears as often as it gained one.
        """
        from macrorec.serve import history_kernels

        bits_E = self._bits_R[behavior_E]
        if len(user_E) >= _MANY:
            order = np.argsort(user_E, kind="stable")
            user_E, item_E, bits_E, arrival_E = user_E[order], item_E[order], bits_E[order], arrival_E[order]
            self._live = packed(self._live, 4 * len(user_E))
        grown_E = np.zeros(len(user_E), np.bool_)
        fit, done = (self._start_U, self._item_F, self._gone_U), 0
        while True:
            events = (user_E, item_E, bits_E, arrival_E, self._events_U, self.count_I, grown_E)
            done = history_kernels.apply(self._live, *fit, *events, done)
            if done == len(user_E):
                return item_E[grown_E]
            size = int(self._live.size_N[user_E[done]])
            self._live = packed(self._live, max(4 * size + 8, int(self._live.used[0]) // 2))

    def events(self, user: int) -> int:
        """Events of a user since the fit."""
        return int(self._events_U[user])

    def items(self, user: int) -> Ints:
        """What a user has by the target behaviour, shape (H,): of the fit by number, then the newest last."""
        own, arrival = self._newer(user, 1)
        old = self._row(self._start_U, self._item_F, user)
        if not len(own):
            return old
        if len(old):
            place = np.minimum(old.searchsorted(own), len(old) - 1)
            known = old[place] == own
            own, arrival = own[~known], arrival[~known]
        return np.concatenate([old, own[np.argsort(arrival)]])

    def masked(self, user: int) -> Ints:
        """What is left out of a user's answers: sorted numbers, each once."""
        own, _ = self._newer(user, 2)
        old = self._row(*self._masked, user)
        return np.union1d(old, own) if len(own) else old

    def forget(self, user: int) -> Ints:
        """A user has done nothing, by the fit or since; the items that lost this user."""
        lost = self.items(user)
        self.count_I[lost] -= 1
        start, size = int(self._live.start_N[user]), int(self._live.size_N[user])
        self._live.key[start : start + size] = 0
        self._live.value[start : start + size] = 0
        self._live.size_N[user], self._events_U[user], self._gone_U[user] = 0, 0, True
        return lost

    @property
    def nbytes(self) -> int:
        """Bytes taken by what came since the fit."""
        return sum(array.nbytes for array in (*self._live, self._events_U, self._gone_U, self.count_I))

    def _newer(self, user: int, bit: int) -> tuple[Ints, Ints]:
        """Items with this bit since the fit, by number, and the arrival of each."""
        first = int(self._live.start_N[user])
        rows = slice(first, first + int(self._live.size_N[user]))
        value = self._live.value[rows]
        chosen = (value & bit) > 0
        return self._live.key[rows][chosen].astype(np.int64), value[chosen] >> 2

    def _row(self, start_U: Ints, item_F: Ints, user: int) -> Ints:
        """A user's row of the fit."""
        if user + 1 >= len(start_U) or self._gone_U[user]:
            return np.empty(0, np.int64)
        return item_F[start_U[user] : start_U[user + 1]]
