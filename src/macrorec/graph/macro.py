"""What has everybody done, counted by groups? The macro graph, exact after every event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from macrorec.errors import DataError
from macrorec.graph import macro_tensors
from macrorec.graph.columns import Features
from macrorec.graph.events import Numbers, checked, inside, known, repeats
from macrorec.graph.groups import UNKNOWN, Groups
from macrorec.graph.slabs import Columns, Events, Impressions, Ints, Rows, Slabs, State, bytes_of, empty_rows
from macrorec.graph.tables import NEEDS, counted, in_blocks, lists, longer_lists, with_nodes, with_room

Floats = npt.NDArray[np.float64]


class MacroGraph:
    """Counts of (5) for every user and item under fixed groups; ``add`` equals a rebuild from the whole log.

    R (U, I) sums the weights of events, C_u and C_i hold the groups, one-hot. Then

        A_u1 = R C_i    A_u2 = R A_i1 = R (R^T C_u)    A_i1 = R^T C_u    A_i2 = R^T A_u1 = R^T (R C_i)

    An event (u, i, w) adds w to R[u, i], and so to one number of A_u1 and of A_i1. A_u2[u] is summed from A_i1 over the
    events of u when it is read (``pull``); a user of more than ``pull`` events is heavy, has a row that every event of
    its items adds to, and costs no more to read. A_i2 is kept: row i gains w A_u1[u], and of the other items of u the
    latest ``push`` learn of i. What the earlier ones did not learn is counted in ``missed``: 0 <= exact - kept, which
    sums to ``missed`` (or less, after removals); everything else is exact. ``refresh`` counts A_i2 anew.

    Weights are kept in float32, counts in float64: sums of weights of like size are exact, whatever their order. Tables
    of rows are dense up to ``DENSE_BYTES``: there an entry takes 8 bytes and no search, in sparse rows 12. ``dense``
    decides for all of them. Reading may go on in several threads at once, but not while another changes the state.
    """

    _state: State

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
        push: int = 1024,
        dense: bool | None = None,
    ) -> None:
        """The graph of E events. Without weights each counts 1; without times they stand in the order of time.

        Raises DataError as ``add`` does.
        """
        assert recents >= 0 and pull >= 0 and push >= 0
        self.recents, self.pull, self.push, self.dense = recents, pull, push, dense
        self.latest = 0
        self.users, self.items = users, items
        events = self._events(user_E, item_E, weight_E, time_E)
        if len(events.time_E):
            self.latest = int(events.time_E.max())
        self._count(users, items, *lists(events, len(users), len(items)))

    # --- events ---

    def add(
        self, user_E: Numbers, item_E: Numbers, weight_E: Numbers | None = None, time_E: Numbers | None = None
    ) -> None:
        """Count these events, too: arrays of E numbers, weights (1) and times (the latest so far).

        An event of an earlier time is late, and takes its place in time, behind those of the same time. Raises
        DataError, with nothing changed, for nodes outside the tables, weights outside 0 to ``MOST``, unequal lengths.
        """
        from macrorec.graph import macro_kernels

        events = self._events(user_E, item_E, weight_E, time_E)
        self._advance(lambda done, need: macro_kernels.add(self._state, events, done, need), len(events.user_E))
        self.latest = max(self.latest, int(events.time_E.max(initial=self.latest)))

    def extend(
        self, user_E: Numbers, item_E: Numbers, weight_E: Numbers | None = None, time_E: Numbers | None = None
    ) -> None:
        """``add`` for very many events: everything is counted anew, and so nothing is missed."""
        events = self._events(user_E, item_E, weight_E, time_E)
        self._count(self.users, self.items, *longer_lists((self._state.users, self._state.items), events))
        self.latest = max(self.latest, int(events.time_E.max(initial=self.latest)))

    def remove(
        self, user_E: Numbers, item_E: Numbers, weight_E: Numbers | None = None, time_E: Numbers | None = None
    ) -> None:
        """Take events back: of each user and item the latest, of this weight and time where they are given.

        Costs as much as the histories of user and item are long. Raises DataError, with nothing changed, if one of them
        is not there, and as ``add`` does.
        """
        from macrorec.graph import macro_kernels

        events = self.require(user_E, item_E, weight_E, time_E)
        same = weight_E is not None, time_E is not None
        self._advance(
            lambda done, need: macro_kernels.remove(self._state, events, *same, done, need), len(events.user_E)
        )

    def require(
        self, user_E: Numbers, item_E: Numbers, weight_E: Numbers | None = None, time_E: Numbers | None = None
    ) -> Events:
        """The events that ``remove`` would take back. Raises DataError if one of them is not there."""
        from macrorec.graph import macro_kernels

        events = self._events(user_E, item_E, weight_E, time_E)
        same = weight_E is not None, time_E is not None
        keys = [
            events.user_E,
            events.item_E,
            *([events.weight_E] if same[0] else []),
            *([events.time_E] if same[1] else []),
        ]
        lacking = macro_kernels.first_lacking(self._state, events, *same, repeats(keys))
        if lacking >= 0:
            user, item, weight, time = (column[lacking] for column in events)
            which = f"{f' of weight {weight:g}' if same[0] else ''}{f' at time {time}' if same[1] else ''}"
            raise DataError(f"nothing is removed: there is no event of user {user} and item {item}{which}")
        return events

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
        """Add events one by one; impression s sees the state after the first before_S[s] of them (never falling).

        Events after the last impression are added, too. Raises DataError as ``add`` does.
        """
        from macrorec.graph import macro_kernels

        events = self._events(user_E, item_E, weight_E, time_E)
        before_S = np.ascontiguousarray(before_S, dtype=np.int64)
        assert (before_S[1:] >= before_S[:-1]).all()
        assert not len(before_S) or 0 <= before_S[0] <= before_S[-1] <= len(events.user_E)
        user_S, item_S = inside(user_S, len(self.users)), inside(item_S, len(self.items))
        size, q, p, r = len(before_S), self.items.n, self.users.n, self.recents
        hops = (np.empty((size, width), np.float32) for width in (q, p, p, q))
        volumes = (np.empty((size, 1), np.float32) for _ in range(2))
        out = Columns(*hops, *(np.empty((size, r), np.int64) for _ in range(2)), *volumes)
        done = np.zeros(2, np.int64)

        seen, acc = Impressions(user_S, item_S, before_S), empty_rows(1, p, dense=True)

        def proceed(_: int, need: Ints) -> int:
            return int(macro_kernels.replay(self._state, events, seen, acc, out, done, need))

        self._advance(proceed, 1)
        self.latest = max(self.latest, int(events.time_E.max(initial=self.latest)))
        names = (name[:-2] + "B" + name[-1] for name in Columns._fields)
        return Features(
            user_B=torch.from_numpy(user_S),
            item_B=torch.from_numpy(item_S),
            user_group_B=torch.from_numpy(known(self._state.user_group_U, user_S, UNKNOWN)),
            item_group_B=torch.from_numpy(known(self._state.item_group_I, item_S, UNKNOWN)),
            **{name: torch.from_numpy(column) for name, column in zip(names, out, strict=True)},
        )

    def regroup(self, users: Groups, items: Groups) -> None:
        """Other groups for the same events: everything is counted anew. Groups of more nodes make the tables grow.

        Raises DataError for groups of fewer nodes than there are.
        """
        for name, new, now in (("users", users, self.users), ("items", items, self.items)):
            if len(new) < len(now):
                raise DataError(f"there are {len(now):,} {name}, and groups for {len(new):,} only")
        self.grow(len(users), len(items))
        self._count(users, items, self._state.users, self._state.items)

    def refresh(self) -> None:
        """Count all rows anew from the events; nothing is missed afterwards."""
        self._count(self.users, self.items, self._state.users, self._state.items)

    def grow(
        self, n_users: int, n_items: int, user_group: Numbers | None = None, item_group: Numbers | None = None
    ) -> None:
        """Tables for new nodes, ``n_users`` and ``n_items`` in all; new nodes are of these groups, or unknown."""
        assert n_users >= len(self.users) and n_items >= len(self.items)
        self._state = with_nodes(self._state, n_users, n_items)
        for name, n, given in (("users", n_users, user_group), ("items", n_items, item_group)):
            groups: Groups = getattr(self, name)
            of_N = self._state.user_group_U if name == "users" else self._state.item_group_I
            if given is not None:
                assert len(given) == n - len(groups) and (np.asarray(given) < groups.n).all()
                of_N[len(groups) : n] = given
            setattr(self, name, replace(groups, of_N=of_N[:n]))

    def _count(self, users: Groups, items: Groups, user_slabs: Slabs, item_slabs: Slabs) -> None:
        """The state of these events under these groups."""
        from macrorec.graph import macro_kernels

        self._state, heavy = counted(
            user_slabs, item_slabs, users, items, pull=self.pull, push=self.push, dense=self.dense
        )
        self.users = replace(users, of_N=self._state.user_group_U[: len(users)])
        self.items = replace(items, of_N=self._state.item_group_I[: len(items)])
        self._advance(lambda done, need: macro_kernels.make_heavy(self._state, heavy, done, need), len(heavy))

    def _advance(self, kernel: Callable[[int, Ints], int], n: int) -> None:
        """Call ``kernel(done, need)`` until n are done, providing the room that it stops for."""
        need, done = np.zeros(len(NEEDS) + 1, np.int64), 0
        while done < n and (done := kernel(done, need)) < n:
            self._state = with_room(self._state, need)

    def _events(self, user_E: Numbers, item_E: Numbers, weight_E: Numbers | None, time_E: Numbers | None) -> Events:
        sizes = {"n_users": len(self.users), "n_items": len(self.items)}
        return checked(user_E, item_E, weight_E, time_E, latest=self.latest, **sizes)

    # --- reading ---

    @property
    def state(self) -> State:
        """All that it knows, for compiled loops; to be asked for anew after every change."""
        return self._state

    @property
    def n_columns(self) -> tuple[int, int]:
        """Numbers in a row over groups of users, and over groups of items: P and Q."""
        return self.users.n, self.items.n

    @property
    def n_events(self) -> int:
        """Events that count."""
        return int(self._state.users.size_N.sum())

    @property
    def n_heavy(self) -> int:
        """Users who have a row of their own in A_u2."""
        return int(self._state.n_heavy[0])

    @property
    def missed(self) -> float:
        """Weight of the paths that A_i2 lacks, over all items and groups; 0: it is exact."""
        return float(self._state.missed[0])

    @property
    def nbytes(self) -> int:
        """Bytes that the state takes."""
        return bytes_of(self._state)

    def features(self, user_B: Numbers, item_B: Numbers) -> Features:
        """The state now, as seen by the impressions (user_B[b], item_B[b]); -1 or beyond the tables: a new node."""
        return Features(**self._of_users(user_B), **self._of_items(item_B))

    def candidates(self, user: int, item_B: Numbers) -> Features:
        """The same of one user with B items; what is known of the user stands in memory once."""
        own = {
            name: value.expand(len(item_B), *value.shape[1:])
            for name, value in self._of_users(np.array([user])).items()
        }
        return Features(**own, **self._of_items(item_B))

    def visitor(self, item_H: Numbers, weight_H: Numbers) -> dict[str, Tensor]:
        """The user's part of ``Features``, each of shape (n,), of a newcomer with these items, the latest last."""
        item_H, weight_H = np.asarray(item_H, dtype=np.int64), np.asarray(weight_H, dtype=np.float64)
        group_H = self.items.of_N[item_H]
        own = group_H >= 0
        recent_R = np.full(self.recents, -1)
        latest = item_H[::-1][: self.recents]
        recent_R[: len(latest)] = latest
        columns = {
            "user_hop1_BQ": np.bincount(group_H[own], weight_H[own], minlength=self.items.n).astype(np.float32),
            "user_hop2_BP": (weight_H @ self.item_hop1(item_H)).astype(np.float32),
            "user_recent_BR": recent_R,
            "user_volume_BC": np.array([len(item_H)], dtype=np.float32),
        }
        return {name: torch.from_numpy(column) for name, column in columns.items()}

    def user_hop1(self, users_B: Numbers) -> Floats:
        """A_u1, float64, shape (B, Q)."""
        return self._read(self._state.user_hop1, inside(users_B, len(self.users)), np.float64)

    def user_hop2(self, users_B: Numbers) -> Floats:
        """A_u2, float64, shape (B, P)."""
        return self._pulled(inside(users_B, len(self.users)), np.float64)

    def item_hop1(self, items_B: Numbers) -> Floats:
        """A_i1, float64, shape (B, P)."""
        return self._read(self._state.item_hop1, inside(items_B, len(self.items)), np.float64)

    def item_hop2(self, items_B: Numbers) -> Floats:
        """A_i2 as far as it is kept, float64, shape (B, Q)."""
        return self._read(self._state.item_hop2, inside(items_B, len(self.items)), np.float64)

    def user_recent(self, users_B: Numbers) -> Ints:
        """The latest items of users, latest first, int64, shape (B, R); -1 beyond the first."""
        return self._recent(self._state.users, inside(users_B, len(self.users)))

    def item_recent(self, items_B: Numbers) -> Ints:
        """The latest users of items, latest first, int64, shape (B, R); -1 beyond the first."""
        return self._recent(self._state.items, inside(items_B, len(self.items)))

    def user_events(self, users_B: Numbers) -> Ints:
        """How many events of each user count, int64, shape (B,)."""
        return known(self._state.users.size_N, inside(users_B, len(self.users)), 0)

    def events_of(self, user: int) -> tuple[Ints, npt.NDArray[np.float32], Ints]:
        """Items, weights and times of the events of a user that count, the latest last."""
        slabs = self._state.users
        rows = slice(int(slabs.start_N[user]), int(slabs.start_N[user] + slabs.size_N[user]))
        return slabs.key[rows].astype(np.int64), slabs.value[rows].copy(), slabs.time[rows].copy()

    def item_events(self, items_B: Numbers) -> Ints:
        """How many events of each item count, int64, shape (B,)."""
        return known(self._state.items.size_N, inside(items_B, len(self.items)), 0)

    def _of_users(self, user_B: Numbers) -> dict[str, Tensor]:
        """The users' part of ``Features``."""
        user_B = inside(user_B, len(self.users))
        return {
            "user_B": torch.from_numpy(user_B),
            "user_group_B": torch.from_numpy(known(self._state.user_group_U, user_B, UNKNOWN)),
            "user_hop1_BQ": torch.from_numpy(self._read(self._state.user_hop1, user_B, np.float32)),
            "user_hop2_BP": torch.from_numpy(self._pulled(user_B, np.float32)),
            "user_recent_BR": torch.from_numpy(self._recent(self._state.users, user_B)),
            "user_volume_BC": torch.from_numpy(self.user_events(user_B)[:, None].astype(np.float32)),
        }

    def _of_items(self, item_B: Numbers) -> dict[str, Tensor]:
        """The items' part of ``Features``."""
        item_B = inside(item_B, len(self.items))
        return {
            "item_B": torch.from_numpy(item_B),
            "item_group_B": torch.from_numpy(known(self._state.item_group_I, item_B, UNKNOWN)),
            "item_hop1_BP": torch.from_numpy(self._read(self._state.item_hop1, item_B, np.float32)),
            "item_hop2_BQ": torch.from_numpy(self._read(self._state.item_hop2, item_B, np.float32)),
            "item_recent_BR": torch.from_numpy(self._recent(self._state.items, item_B)),
            "item_volume_BC": torch.from_numpy(self.item_events(item_B)[:, None].astype(np.float32)),
        }

    def _read(self, rows: Rows, number_B: Ints, dtype: Any) -> npt.NDArray[Any]:
        from macrorec.graph import macro_kernels

        out_BK = np.empty((len(number_B), rows.width), dtype)
        in_blocks(lambda lo, hi: macro_kernels.read(rows, number_B, out_BK, lo, hi), len(number_B), out_BK.size)
        return out_BK

    def _pulled(self, user_B: Ints, dtype: Any) -> npt.NDArray[Any]:
        """A_u2, each user's row summed once."""
        from macrorec.graph import macro_kernels, slab_kernels

        distinct_K, index_B = np.empty_like(user_B), np.empty_like(user_B)
        users_K = distinct_K[: slab_kernels.distinct(user_B, distinct_K, index_B)]
        out_KP = np.empty((len(users_K), self.users.n))

        def pull(lo: int, hi: int) -> None:
            macro_kernels.read_user_hop2(self._state, users_K, empty_rows(1, self.users.n, dense=True), out_KP, lo, hi)

        in_blocks(pull, len(users_K), 64 * out_KP.size)
        out_BP = np.empty((len(user_B), self.users.n), dtype)
        in_blocks(lambda lo, hi: slab_kernels.take(out_KP, index_B, out_BP, lo, hi), len(user_B), out_BP.size)
        return out_BP

    def _recent(self, slabs: Slabs, number_B: Ints) -> Ints:
        from macrorec.graph import macro_kernels

        out_BR = np.empty((len(number_B), self.recents), np.int64)
        in_blocks(lambda lo, hi: macro_kernels.read_recent(slabs, number_B, out_BR, lo, hi), len(number_B), out_BR.size)
        return out_BR

    # --- storing ---

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, for ``from_tensors``: events, groups, settings, and A_i2 as it is kept."""
        dense = -1 if self.dense is None else int(self.dense)
        settings = (self.recents, self.pull, self.push, dense, self.latest)
        return macro_tensors.write(self._state, (self.users, self.items), settings)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> MacroGraph:
        """The graph that ``tensors`` was taken from. Raises DataError where they do not fit each other."""
        macro_tensors.check(tensors)
        graph = cls.__new__(cls)
        graph.recents, graph.pull, graph.push, dense, graph.latest = tensors["settings"].tolist()
        graph.dense = None if dense < 0 else bool(dense)
        users, items = (macro_tensors.read_groups(tensors, side) for side in macro_tensors.SIDES)
        graph._count(users, items, *(macro_tensors.read_events(tensors, side) for side in macro_tensors.SIDES))
        graph._state.missed[:] = tensors["missed"].numpy()
        item_hop2 = macro_tensors.read_item_hop2(tensors, graph._state.item_hop2)
        graph._state = graph._state._replace(item_hop2=item_hop2)
        return graph
