"""Counts by hand, order in time, limits to the entry, refusals, and equal results in every layout."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from tests.macro_oracle import Log, all_pairs, assert_lawful, assert_same

from macrorec.errors import DataError
from macrorec.graph import tables
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph

LAYOUTS = pytest.mark.parametrize("dense", [True, False])
USERS = Groups(np.array([0, 0, 1, -1], np.int32), 2, ("old", "new\n🦊"))
ITEMS = Groups(np.array([0, 1, -1], np.int32), 2)
HAND = [(0, 0, 2.0, 10), (0, 1, 1.0, 20), (1, 1, 3.0, 30), (2, 2, 1.0, 40), (3, 0, 5.0, 50), (0, 0, 1.0, 60)]
"""Users 0 and 1 are of group 0, 2 of group 1; items 0, 1 of groups 0, 1. User 3 and item 2 have no group."""


def arrays(events: list[tuple[Any, ...]]) -> list[np.ndarray]:
    kinds = (np.int64, np.int64, np.float64, np.int64)
    return [np.array([event[n] for event in events], kind) for n, kind in enumerate(kinds)]


def market(n_users: int, n_items: int, n_events: int, seed: int = 0) -> tuple[Groups, Groups, list[np.ndarray]]:
    """Events of few users and items more than of others, in no order of time, with whole weights."""
    random = np.random.default_rng(seed)
    users = Groups(random.integers(-1, 5, n_users).astype(np.int32), 5)
    items = Groups(random.integers(-1, 4, n_items).astype(np.int32), 4)
    user_E = (n_users * random.random(n_events) ** 3).astype(np.int64)
    item_E = (n_items * random.random(n_events) ** 2).astype(np.int64)
    return users, items, [user_E, item_E, random.integers(0, 3, n_events), random.integers(0, 50, n_events)]


def log_of(users: Groups, items: Groups, events: list[np.ndarray], recents: int = 20) -> Log:
    log = Log(users, items, recents)
    log.add(list(zip(*(column.tolist() for column in events), strict=True)))
    return log


@LAYOUTS
def test_counts_by_hand(dense: bool) -> None:
    macro = MacroGraph(USERS, ITEMS, *arrays(HAND), recents=2, dense=dense)
    users, items = np.arange(4), np.arange(3)
    assert macro.user_hop1(users).tolist() == [[3, 1], [0, 3], [0, 0], [5, 0]]
    assert macro.item_hop1(items).tolist() == [[3, 0], [4, 0], [0, 1]]  # user 3 has no group
    assert macro.user_hop2(users).tolist() == [[3 * 3 + 1 * 4, 0], [3 * 4, 0], [0, 1], [5 * 3, 0]]
    assert macro.item_hop2(items).tolist() == [[3 * 3 + 5 * 5, 3 * 1], [1 * 3, 1 * 1 + 3 * 3], [0, 0]]
    assert macro.user_recent(users).tolist() == [[0, 1], [1, -1], [2, -1], [0, -1]]
    assert macro.item_recent(items).tolist() == [[0, 3], [1, 0], [2, -1]]
    assert macro.user_events(users).tolist() == [3, 1, 1, 1]
    assert (macro.n_events, macro.missed, macro.n_heavy) == (6, 0, 0)


@LAYOUTS
def test_a_large_batch_is_counted_as_a_build(dense: bool) -> None:
    users, items, events = market(40, 30, 5000)
    built = MacroGraph(users, items, *events, pull=100, push=10_000, dense=dense)
    added = MacroGraph(users, items, *(c[:7] for c in events), pull=100, push=10_000, dense=dense)
    added.add(*(c[7:] for c in events))
    pairs = all_pairs(Log(users, items, 20))
    assert built.n_heavy == added.n_heavy > 5
    assert added.missed == 0
    assert_same(added.features(*pairs), built.features(*pairs))
    assert_lawful(built, log_of(users, items, events))


@pytest.mark.parametrize(
    ("n_users", "n_items", "limit", "dense"),
    [
        (60, 40, 0, [False, False, False]),
        (60, 40, 40 * 4 * 8, [False, False, True]),
        (60, 40, 40 * 5 * 8, [False, True, True]),
        (40, 60, 40 * 4 * 8, [True, False, False]),
        (40, 60, 60 * 5 * 8, [True, True, True]),
    ],
)
def test_tables_of_either_layout_work_together(
    n_users: int, n_items: int, limit: int, dense: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "DENSE_BYTES", limit)
    users, items, events = market(n_users, n_items, 800)
    macro = MacroGraph(users, items, *(c[:400] for c in events), pull=30, push=20)
    macro.add(*(c[400:] for c in events))
    macro.remove(*(c[300:500] for c in events))
    state = macro._state
    assert [len(rows.dense_NK) > 0 for rows in (state.user_hop1, state.item_hop1, state.item_hop2)] == dense
    log = log_of(users, items, events)
    for event in log.events[300:500]:
        log.remove(*event)
    assert_lawful(macro, log)
    assert_lawful(MacroGraph.from_tensors(macro.tensors()), log)


@LAYOUTS
@pytest.mark.parametrize("cut", [0, 1, 2500, 4999])
def test_extended_it_is_as_added_to_and_misses_nothing(cut: int, dense: bool) -> None:
    users, items, events = market(40, 30, 5000)
    first, rest = [column[:cut] for column in events], [column[cut:] for column in events]
    added, extended = (MacroGraph(users, items, *first, pull=50, push=10_000, dense=dense) for _ in range(2))
    pairs = all_pairs(Log(users, items, 20))
    added.add(*rest)
    extended.extend(*rest)
    assert_same(extended.features(*pairs), added.features(*pairs))
    assert extended.missed == 0
    extended.add(*rest)
    added.add(*rest)
    assert_same(extended.features(*pairs), added.features(*pairs))


@LAYOUTS
def test_results_do_not_depend_on_threads(dense: bool) -> None:
    users, items, events = market(3000, 2000, 400_000)
    before = torch.get_num_threads()
    seen = []
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            macro = MacroGraph(users, items, *events, pull=300, dense=dense)
            seen.append(macro.features(np.arange(-1, 40_000) % 3001, np.arange(40_001) % 2002))
    finally:
        torch.set_num_threads(before)
    assert_same(*seen)


def test_equal_times_are_in_the_order_of_arrival() -> None:
    items = Groups(np.zeros(9, np.int32), 1)
    bare = MacroGraph(USERS, items, np.zeros(5, int), np.array([3, 1, 4, 1, 5]), recents=4)
    timed = MacroGraph(USERS, items, np.zeros(5, int), np.array([3, 1, 4, 1, 5]), None, np.full(5, 77), recents=4)
    for macro in (bare, timed):
        assert macro.user_recent(np.array([0])).tolist() == [[5, 1, 4, 1]]
        macro.add(np.array([0, 0]), np.array([2, 6]))
        assert macro.user_recent(np.array([0])).tolist() == [[6, 2, 5, 1]]


def test_late_events_take_their_place_behind_those_of_their_time() -> None:
    items = Groups(np.zeros(9, np.int32), 1)
    macro = MacroGraph(USERS, items, np.zeros(3, int), np.array([0, 1, 2]), None, np.array([10, 20, 30]), recents=9)
    macro.add(np.zeros(3, int), np.array([3, 4, 5]), None, np.array([20, 5, 20]))
    assert macro.user_recent(np.array([0]))[0, :7].tolist() == [2, 5, 3, 1, 0, 4, -1]
    macro.add(np.array([0]), np.array([6]))  # without a time: at the latest
    assert macro.user_recent(np.array([0]))[0, :2].tolist() == [6, 2]
    macro.remove(np.array([0]), np.array([3]), None, np.array([20]))
    assert macro.user_recent(np.array([0]))[0, :7].tolist() == [6, 2, 5, 1, 0, 4, -1]


def test_the_latest_pushed_and_no_more() -> None:
    """User 0 has met items 0, 1, 2 with weights 1, 2, 4, then meets item 3 with weight 10."""
    items = Groups(np.array([0, 0, 0, 1], np.int32), 2)
    first = (np.zeros(3, int), np.arange(3), np.array([1, 2, 4]), np.array([1, 2, 3]))
    for push, kept, missed in ((0, [0, 0, 0], 70), (1, [0, 0, 40], 30), (2, [0, 20, 40], 10), (3, [10, 20, 40], 0)):
        macro = MacroGraph(USERS, items, *first, push=push)
        macro.add(np.array([0]), np.array([3]), np.array([10]))
        assert macro.item_hop2(np.arange(3))[:, 1].tolist() == kept
        assert macro.item_hop2(np.array([3])).tolist() == [[70, 100]]
        assert macro.missed == missed
        macro.refresh()
        assert macro.item_hop2(np.arange(3))[:, 1].tolist() == [10, 20, 40]
        assert macro.missed == 0


def test_what_was_missed_and_taken_back_is_never_below_zero() -> None:
    events = arrays([(0, 0, 1.0, 1), (0, 1, 1.0, 2)])
    macro = MacroGraph(USERS, ITEMS, *(c[:0] for c in events), push=0)
    macro.add(*events)
    assert macro.missed == 1
    macro.remove(*events)
    assert macro.item_hop2(np.arange(3)).tolist() == [[0, 0]] * 3
    assert macro.features(np.array([0]), np.array([0])).item_hop2_BQ.tolist() == [[0, 0]]
    assert (macro.n_events, macro.missed) == (0, 1)


@LAYOUTS
def test_a_user_of_more_than_pull_events_is_heavy(dense: bool) -> None:
    macro = MacroGraph(USERS, ITEMS, np.zeros(2, int), np.array([0, 1]), pull=3, dense=dense)
    for n_events, n_heavy in ((3, 0), (4, 1), (5, 1)):
        macro.add(np.array([0]), np.array([1]))
        assert (macro.n_events, macro.n_heavy) == (n_events, n_heavy)
        assert MacroGraph.from_tensors(macro.tensors()).n_heavy == n_heavy
    macro.add(np.array([1, 2]), np.array([1, 1]))  # what others do reaches the kept row
    assert macro.user_hop2(np.array([0])).tolist() == [[1 * 1 + 4 * 5, 4 * 1]]
    macro.remove(np.zeros(4, int), np.ones(4, int))
    assert macro.user_hop2(np.array([0])).tolist() == [[1, 0]]
    macro.refresh()
    assert macro.n_heavy == 0


@LAYOUTS
@pytest.mark.parametrize("pull", [3, 1000])
def test_rows_that_all_grow_at_once_have_room(pull: int, dense: bool) -> None:
    """Every item is a group of its own, and so is every user: an event adds a column to all rows that it reaches."""
    users, items = (Groups(np.arange(n, dtype=np.int32), n) for n in (30, 60))
    user_E, item_E = np.repeat(np.arange(30), 60), np.tile(np.arange(60), 30)
    macro = MacroGraph(users, items, user_E[:0], item_E[:0], pull=pull, dense=dense)
    macro.add(user_E[:200], item_E[:200])
    macro.remove(user_E[50:150], item_E[50:150])
    macro.add(user_E[200:], item_E[200:])
    log = Log(users, items, 20, [(u, i, 1.0, 0) for u, i in zip(user_E.tolist(), item_E.tolist(), strict=True)])
    del log.events[50:150]
    assert_lawful(macro, log)


def test_candidates_hold_the_user_once() -> None:
    macro = MacroGraph(USERS, ITEMS, *arrays(HAND))
    items = np.array([0, 1, 2, 1, -1, 99])
    got = macro.candidates(0, items)
    assert_same(got, macro.features(np.zeros(6, int), items))
    for name in ("user_B", "user_hop1_BQ", "user_hop2_BP", "user_recent_BR", "user_volume_BC"):
        assert getattr(got, name).stride(0) == 0
    assert_same(macro.candidates(-1, items), macro.features(np.full(6, -1), items))


def test_no_impression_no_event_no_node() -> None:
    macro = MacroGraph(USERS, ITEMS, *arrays([]), recents=0)
    assert len(macro.features(np.empty(0, int), np.empty(0, int))) == 0
    assert len(macro.candidates(0, np.empty(0, int))) == 0
    assert macro.features(np.array([0]), np.array([0])).user_recent_BR.shape == (1, 0)
    macro.add(np.array([]), np.array([]))
    macro.remove(np.array([]), np.array([]))
    nobody = Groups(np.empty(0, np.int32), 1)
    macro = MacroGraph(nobody, nobody, np.array([]), np.array([]))
    assert macro.features(np.array([0]), np.array([0])).user_B.tolist() == [-1]
    macro = MacroGraph.from_tensors(macro.tensors())
    macro.grow(2, 1, np.array([0, 0]), np.array([0]))
    macro.add(np.array([0, 1]), np.array([0, 0]))
    assert macro.user_hop2(np.array([0, 1])).tolist() == [[2], [2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": [4]}, "event 1: there is no user 4; the table has 4, from 0"),
        ({"user": [-1]}, "event 1: there is no user -1; the table has 4, from 0"),
        ({"item": [3]}, "event 1: there is no item 3; the table has 3, from 0"),
        ({"item": [2**40]}, "event 1: there is no item 1099511627776; the table has 3, from 0"),
        ({"item": [0.5]}, "an event has one whole number as item: got float64 of shape (2,)"),
        ({"user": [0, 0]}, "users, items, weights and times differ in number: [3, 2, 2, 2]"),
        ({"weight": [-1]}, "event 1: its weight is -1; it must lie between 0 and 1e+12"),
        ({"weight": [np.nan]}, "event 1: its weight is nan; it must lie between 0 and 1e+12"),
        ({"weight": [np.inf]}, "event 1: its weight is inf; it must lie between 0 and 1e+12"),
        ({"weight": [1e300]}, "event 1: its weight is inf; it must lie between 0 and 1e+12"),
        ({"weight": ["much"]}, "an event has one number as weight: got <U32 of shape (2,)"),
        ({"time": [1.5]}, "an event has one whole number as time: got float64 of shape (2,)"),
    ],
)
def test_what_cannot_be_an_event_is_one_line_and_changes_nothing(change: dict[str, list[Any]], message: str) -> None:
    macro = MacroGraph(USERS, ITEMS, *arrays(HAND))
    good = {"user": [0], "item": [1], "weight": [1.0], "time": [99]}
    columns = [np.array([*first, *change.get(name, first)]) for name, first in good.items()]
    for refuse in (
        macro.add,
        macro.remove,
        lambda *c: macro.replay(*c, np.array([0]), np.array([0]), np.array([1])),
        lambda *c: MacroGraph(USERS, ITEMS, *c),
    ):
        with pytest.raises(DataError) as error:
            refuse(*columns)
        assert str(error.value) == message
    assert_lawful(macro, log_of(USERS, ITEMS, arrays(HAND)))


@pytest.mark.parametrize(
    ("events", "given", "message"),
    [
        ([(0, 2, 1.0, 1)], "", "user 0 and item 2"),
        ([(0, 0, 3.0, 10)], "w", "user 0 and item 0 of weight 3"),
        ([(0, 0, 2.0, 11)], "t", "user 0 and item 0 at time 11"),
        ([(0, 0, 1.0, 10)], "wt", "user 0 and item 0 of weight 1 at time 10"),
        ([(0, 1, 1.0, 20), (0, 0, 2.0, 10), (0, 1, 1.0, 20)], "wt", "user 0 and item 1 of weight 1 at time 20"),
        ([(0, 0, 1.0, 1)] * 3, "", "user 0 and item 0"),
    ],
)
def test_an_event_that_is_not_there_is_not_removed(events: list[Any], given: str, message: str) -> None:
    macro = MacroGraph(USERS, ITEMS, *arrays(HAND))
    user, item, weight, time = arrays(events)
    with pytest.raises(DataError) as error:
        macro.remove(user, item, weight if "w" in given else None, time if "t" in given else None)
    assert str(error.value) == f"nothing is removed: there is no event of {message}"
    assert_lawful(macro, log_of(USERS, ITEMS, arrays(HAND)))


def test_groups_of_fewer_nodes_are_refused() -> None:
    macro = MacroGraph(USERS, ITEMS, *arrays(HAND))
    with pytest.raises(DataError, match="there are 4 users, and groups for 3 only"):
        macro.regroup(Groups(np.zeros(3, np.int32), 1), ITEMS)


@LAYOUTS
def test_stored_and_loaded_it_is_the_same(dense: bool) -> None:
    users, items, events = market(20, 10, 300)
    users = Groups(users.of_N, users.n, (*"abcd", "new\n🦊"), np.arange(10.0).reshape(5, 2))
    macro = MacroGraph(users, items, *(c[:100] for c in events), recents=7, pull=9, push=3, dense=dense)
    macro.add(*(c[100:] for c in events))
    macro.grow(25, 12)
    loaded = MacroGraph.from_tensors(load(save(macro.tensors())))
    assert macro.missed > 0
    for name in ("recents", "pull", "push", "dense", "missed", "n_events", "latest"):
        assert getattr(loaded, name) == getattr(macro, name)
    assert loaded.users.names == users.names and np.array_equal(loaded.users.centres_KF, users.centres_KF)
    pairs = all_pairs(Log(macro.users, macro.items, 7))
    assert_same(loaded.features(*pairs), macro.features(*pairs))
    more = [c[:50] for c in events]
    for graph in (macro, loaded):
        graph.add(*more)
        graph.remove(*(c[10:30] for c in events))
    assert_same(loaded.features(*pairs), macro.features(*pairs))
    assert loaded.missed == macro.missed


def test_sums_of_float32_weights_are_exact_in_any_order() -> None:
    random = np.random.default_rng(0)
    columns = [random.integers(0, 4, 3000), random.integers(0, 3, 3000), random.random(3000).astype(np.float32)]
    there = MacroGraph(USERS, ITEMS, *columns, pull=10, push=10_000)
    back = MacroGraph(USERS, ITEMS, *(c[:0] for c in columns), pull=10_000, push=10_000)
    back.add(*(c[::-1] for c in columns))
    back.add(*columns)
    back.remove(*columns)
    users, items = np.arange(4), np.arange(3)
    assert np.array_equal(there.user_hop1(users), back.user_hop1(users))
    assert np.array_equal(there.item_hop1(items), back.item_hop1(items))
    np.testing.assert_allclose(there.user_hop2(users), back.user_hop2(users), rtol=1e-12)
    np.testing.assert_allclose(there.item_hop2(items), back.item_hop2(items), rtol=1e-12)


def test_tables_grow_by_halves_not_by_one() -> None:
    macro = MacroGraph(USERS, ITEMS, *arrays(HAND))
    macro.grow(5, 4)
    before = macro._state.user_hop1.dense_NK
    assert len(before) >= 7
    macro.grow(6, 4)
    assert macro._state.user_hop1.dense_NK is before
    assert macro.users.of_N.tolist() == [0, 0, 1, -1, -1, -1]
    assert USERS.of_N.tolist() == [0, 0, 1, -1]
