"""The online law: whatever comes, late, twice, or is taken back, the state is that rebuilt from the log."""

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.macro_oracle import Log, all_pairs, assert_lawful, assert_same

from macrorec.errors import DataError
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph

N_USER_GROUPS, N_ITEM_GROUPS = 3, 2
NUMBER = st.integers(0, 10_000)
EVENT = st.tuples(NUMBER, NUMBER, st.sampled_from([1.0, 1.0, 2.0, 0.0, 0.5]), st.integers(0, 4))
EVENTS = st.lists(EVENT, max_size=12)
LIMIT = st.sampled_from([0, 1, 2, 4, 1000])


def groups(draw: st.DataObject, n: int, n_groups: int) -> Groups:
    of_N = draw.draw(st.lists(st.integers(-1, n_groups - 1), min_size=n, max_size=n))
    return Groups(np.array(of_N, np.int32), n_groups)


def columns(events: list[Any]) -> list[np.ndarray]:
    kinds = (np.int64, np.int64, np.float32, np.int64)
    return [np.array([e[n] for e in events], kind) for n, kind in enumerate(kinds)]


class Law(RuleBasedStateMachine):
    """A macro graph beside its log."""

    dense: bool
    macro: MacroGraph
    log: Log

    @initialize(
        data=st.data(), n_users=st.integers(1, 4), n_items=st.integers(1, 4), events=EVENTS, pull=LIMIT, push=LIMIT
    )
    def build(self, data: st.DataObject, n_users: int, n_items: int, events: list[Any], pull: int, push: int) -> None:
        users, items = groups(data, n_users, N_USER_GROUPS), groups(data, n_items, N_ITEM_GROUPS)
        self.log = Log(users, items, recents=3)
        events = self.inside(events)
        self.log.add(events)
        self.macro = MacroGraph(users, items, *columns(events), recents=3, pull=pull, push=push, dense=type(self).dense)
        assert self.macro.missed == 0

    def inside(self, events: list[Any]) -> list[Any]:
        n_users, n_items = len(self.log.users), len(self.log.items)
        return [(user % n_users, item % n_items, weight, time) for user, item, weight, time in events]

    @rule(events=EVENTS)
    def add(self, events: list[Any]) -> None:
        events = self.inside(events)
        self.macro.add(*columns(events))
        self.log.add(events)

    @rule(events=EVENTS)
    def add_bare(self, events: list[Any]) -> None:
        events = [(user, item, 1.0, self.log.latest) for user, item, *_ in self.inside(events)]
        self.macro.add(*columns(events)[:2])
        self.log.add(events)

    @precondition(lambda self: self.log.events)
    @rule(chosen=st.lists(NUMBER, max_size=6, unique=True), by_weight=st.booleans(), by_time=st.booleans())
    def remove(self, chosen: list[int], by_weight: bool, by_time: bool) -> None:
        rows = list({number % len(self.log.events) for number in chosen})
        events = [self.log.events[row] for row in rows]
        user_E, item_E, weight_E, time_E = columns(events)
        self.macro.remove(user_E, item_E, weight_E if by_weight else None, time_E if by_time else None)
        for user, item, weight, time in events:
            self.log.remove(user, item, weight if by_weight else None, time if by_time else None)

    @rule(events=EVENTS, which=st.sampled_from(["absent", "once too often", "user", "item", "weight"]))
    def refuse(self, events: list[Any], which: str) -> None:
        """What cannot be is an error, and changes nothing: the invariant sees to that."""
        events = self.inside(events)
        user, item = (0, 0) if not events else events[0][:2]
        there = [e for e in self.log.events if e[:2] == (user, item)]
        match which:
            case "absent":
                with pytest.raises(DataError, match="there is no event"):
                    self.macro.remove(*columns([*there, (user, item, 7.0, 0)]))
            case "once too often":
                with pytest.raises(DataError, match="there is no event"):
                    self.macro.remove(*columns([*there, (user, item, 1.0, 0)])[:2])
            case "user":
                with pytest.raises(DataError, match="there is no user"):
                    self.macro.add(*columns([*events, (len(self.log.users), item, 1.0, 0)]))
            case "item":
                with pytest.raises(DataError, match="there is no item -1"):
                    self.macro.add(*columns([*events, (user, -1, 1.0, 0)]))
            case "weight":
                with pytest.raises(DataError, match="weight"):
                    self.macro.add(*columns([*events, (user, item, -1.0, 0)]))

    @rule(events=EVENTS, cuts=st.lists(st.tuples(NUMBER, NUMBER, NUMBER), max_size=6))
    def replay(self, events: list[Any], cuts: list[Any]) -> None:
        events = self.inside(events)
        cuts = sorted(cuts)
        before = np.array([cut % (len(events) + 1) for cut, _, _ in cuts], np.int64)
        before.sort()
        user_S = np.array([user % (len(self.log.users) + 2) - 1 for _, user, _ in cuts], np.int64)
        item_S = np.array([item % (len(self.log.items) + 2) - 1 for _, _, item in cuts], np.int64)
        exact = self.macro.missed == 0 and self.macro.push >= 1000
        got = self.macro.replay(*columns(events), user_S, item_S, before)
        done = 0
        for s, stop in enumerate(before.tolist()):
            self.log.add(events[done:stop])
            done = stop
            want = self.log.features(user_S[s : s + 1], item_S[s : s + 1])
            assert_same(got.take(np_rows(s)), want, but="" if exact else "item_hop2_BQ")
        self.log.add(events[done:])

    @rule()
    def refresh(self) -> None:
        self.macro.refresh()
        assert self.macro.missed == 0

    @rule(data=st.data(), more_users=st.integers(0, 2), more_items=st.integers(0, 2))
    def regroup(self, data: st.DataObject, more_users: int, more_items: int) -> None:
        n_users, n_items = len(self.log.users) + more_users, len(self.log.items) + more_items
        self.log.users = groups(data, min(n_users, 7), data.draw(st.integers(1, 4)))
        self.log.items = groups(data, min(n_items, 7), data.draw(st.integers(1, 4)))
        self.macro.regroup(self.log.users, self.log.items)
        assert self.macro.missed == 0

    @rule(data=st.data(), more_users=st.integers(0, 2), more_items=st.integers(0, 2), known=st.booleans())
    def grow(self, data: st.DataObject, more_users: int, more_items: int, known: bool) -> None:
        new = []
        for old, more in ((self.log.users, more_users), (self.log.items, more_items)):
            more = min(more, max(7 - len(old), 0))
            added = groups(data, more, old.n).of_N if known else np.full(more, -1, np.int32)
            new.append(Groups(np.concatenate([old.of_N, added]), old.n))
        given = [
            g.of_N[len(old) :] if known else None for g, old in zip(new, (self.log.users, self.log.items), strict=True)
        ]
        self.macro.grow(len(new[0]), len(new[1]), *given)
        self.log.users, self.log.items = new

    @rule()
    def store(self) -> None:
        missed = self.macro.missed
        self.macro = MacroGraph.from_tensors(self.macro.tensors())
        assert self.macro.missed == missed

    @invariant()
    def lawful(self) -> None:
        if hasattr(self, "macro"):
            assert_lawful(self.macro, self.log)

    @rule(user=NUMBER)
    def candidates(self, user: int) -> None:
        users, items = all_pairs(self.log)
        user = user % (len(self.log.users) + 2) - 1
        mine = items[users == user]
        assert_same(self.macro.candidates(user, mine), self.macro.features(np.full(len(mine), user), mine))

    @rule()
    def heavy(self) -> None:
        """A user of more than ``pull`` events has a row; one who once had so many may."""
        sizes = self.macro.user_events(np.arange(len(self.log.users)))
        has_row = self.macro._state.heavy_U[: len(sizes)] >= 0
        assert has_row[sizes > self.macro.pull].all()
        assert self.macro.n_heavy == has_row.sum()


def np_rows(row: int) -> Any:
    import torch

    return torch.tensor([row])


class DenseLaw(Law):
    """Tables as matrices."""

    dense = True


class SparseLaw(Law):
    """Tables of columns that were counted."""

    dense = False


TestDense = DenseLaw.TestCase
TestSparse = SparseLaw.TestCase
TestDense.settings = TestSparse.settings = settings(max_examples=60, stateful_step_count=25)
