"""What a macro graph must be: everything counted from the whole log each time, by dense matrices and sorted lists."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

import numpy as np
import torch

from macrorec.graph.groups import Groups
from macrorec.graph.macro import Features, MacroGraph
from macrorec.graph.slabs import Slabs


@dataclass
class Log:
    """Events in the order of their arrival; tables as long as the groups."""

    users: Groups
    items: Groups
    recents: int
    events: list[tuple[int, int, float, int]] = field(default_factory=list)
    """User, item, weight, time."""
    latest: int = 0

    def add(self, events: list[tuple[int, int, float, int]]) -> None:
        self.events += events
        self.latest = max([self.latest, *(event[3] for event in events)])

    def remove(self, user: int, item: int, weight: float | None, time: int | None) -> None:
        """The latest by (time, arrival) of those that fit."""
        fits = [
            (event[3], number)
            for number, event in enumerate(self.events)
            if event[:2] == (user, item) and weight in (None, event[2]) and time in (None, event[3])
        ]
        del self.events[max(fits)[1]]

    def counts(self) -> dict[str, np.ndarray]:
        r_UI = np.zeros((len(self.users), len(self.items)))
        for user, item, weight, _ in self.events:
            r_UI[user, item] += weight
        c_UP = np.eye(self.users.n + 1)[self.users.of_N][:, :-1]
        c_IQ = np.eye(self.items.n + 1)[self.items.of_N][:, :-1]
        return {
            "user_hop1": r_UI @ c_IQ,
            "user_hop2": r_UI @ (r_UI.T @ c_UP),
            "item_hop1": r_UI.T @ c_UP,
            "item_hop2": r_UI.T @ (r_UI @ c_IQ),
        }

    def recent(self, side: int, node: int) -> list[int]:
        in_time = sorted(self.events, key=lambda event: event[3])
        latest = [event[1 - side] for event in reversed(in_time) if event[side] == node][: self.recents]
        return latest + [-1] * (self.recents - len(latest))

    def features(self, user_B: np.ndarray, item_B: np.ndarray) -> Features:
        """The definition of every field, one impression after the other."""
        counts = self.counts()
        columns: dict[str, list] = {f.name: [] for f in fields(Features)}
        for side, name, node_B, groups, one, two in (
            (0, "user", user_B, self.users, "BQ", "BP"),
            (1, "item", item_B, self.items, "BP", "BQ"),
        ):
            recents = {node: self.recent(side, node) for node in range(len(groups))}
            volumes = Counter(event[side] for event in self.events)
            for node in node_B.tolist():
                known = 0 <= node < len(groups)
                columns[f"{name}_B"].append(node if known else -1)
                columns[f"{name}_group_B"].append(int(groups.of_N[node]) if known else -1)
                for hop, letters in ((1, one), (2, two)):
                    row = counts[f"{name}_hop{hop}"]
                    columns[f"{name}_hop{hop}_{letters}"].append(row[node] if known else np.zeros(row.shape[1]))
                columns[f"{name}_volume_BC"].append([volumes[node] if known else 0])
                columns[f"{name}_recent_BR"].append(recents[node] if known else [-1] * self.recents)

        def tensor(name: str) -> torch.Tensor:
            kind = np.float32 if "hop" in name or "volume" in name else np.int64
            widths = {"BQ": (self.items.n,), "BP": (self.users.n,), "BR": (self.recents,), "BC": (1,)}
            width = widths.get(name[-2:], ())
            return torch.from_numpy(np.array(columns[name], kind).reshape(len(user_B), *width))

        return Features(**{name: tensor(name) for name in columns})


def all_pairs(log: Log) -> tuple[np.ndarray, np.ndarray]:
    """Every impression, those of nodes outside the tables included."""
    users, items = np.arange(-1, len(log.users) + 1), np.arange(-1, len(log.items) + 1)
    return np.repeat(users, len(items)), np.tile(items, len(users))


def assert_same(got: Features, want: Features, *, but: str = "") -> None:
    for f in fields(Features):
        if f.name != but:
            a, b = getattr(got, f.name), getattr(want, f.name)
            assert a.dtype == b.dtype and a.shape == b.shape, f.name
            assert torch.equal(a, b), f"{f.name}:\n{a}\n{b}"


def assert_lawful(macro: MacroGraph, log: Log) -> None:
    """The law: all is as if counted anew; item hop 2 lacks ``missed``, and nothing is there that should not be."""
    assert_sound(macro._state)
    pairs = all_pairs(log)
    got, want, exact = macro.features(*pairs), log.features(*pairs), log.counts()
    assert_same(got, want, but="item_hop2_BQ")
    kept, read = kept_item_hop2(macro), macro.item_hop2(np.arange(len(log.items)))
    assert ((exact["item_hop2"] - kept) >= 0).all()
    assert (exact["item_hop2"] - kept).sum() == macro.missed
    assert np.array_equal(read, np.maximum(kept, 0))
    if not macro.missed:
        assert_same(got, want)
    users, items = np.arange(len(log.users)), np.arange(len(log.items))
    for name, numbers in (("user_hop1", users), ("user_hop2", users), ("item_hop1", items)):
        assert np.array_equal(getattr(macro, name)(numbers), exact[name]), name
    assert macro.n_events == len(log.events)
    for side, counted in ((0, macro.user_events(users)), (1, macro.item_events(items))):
        assert counted.tolist() == [sum(e[side] == node for e in log.events) for node in range(len(counted))]


def assert_sound(part: object) -> None:
    """Every list lies in its room, and every room in the used part of its pool."""
    if isinstance(part, Slabs):
        assert (part.size_N <= part.room_N).all()
        assert (part.start_N + part.room_N).max(initial=0) <= part.used[0] <= len(part.key) == len(part.value)
    elif isinstance(part, tuple):
        for inner in part:
            assert_sound(inner)


def kept_item_hop2(macro: MacroGraph) -> np.ndarray:
    """A_i2 as it is kept, before reading cuts off what lies below zero."""
    rows, n = macro._state.item_hop2, len(macro.items)
    if len(rows.dense_NK):
        return rows.dense_NK[:n].copy()
    out = np.zeros((n, rows.width))
    for node in range(n):
        first = rows.sparse.start_N[node]
        last = first + rows.sparse.size_N[node]
        columns = rows.sparse.key[first:last]
        assert (np.diff(columns) > 0).all()
        out[node, columns] = rows.sparse.value[first:last]
    return out
