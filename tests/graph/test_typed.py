"""A typed macro graph against one macro graph per type, each counted by itself."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from macrorec.errors import DataError
from macrorec.graph.columns import Features
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph
from macrorec.graph.typed import COUNTED, TypedMacroGraph

USERS = Groups(np.array([0, 1, 1, -1], dtype=np.int32), 2)
ITEMS = Groups(np.array([0, 1, 2, 0, -1], dtype=np.int32), 3)
PAIRS = np.stack(np.meshgrid(np.arange(4), np.arange(5)), -1).reshape(-1, 2)
"""Every user with every item."""
Event = tuple[int, int, float, int, int]
"""User, item, weight, time, type."""
EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 5), st.booleans()),
    max_size=14,
)


def columns(events: list[Event]) -> list[np.ndarray[Any, Any]]:
    """The events as arrays: user, item, weight, time, type."""
    kinds = (np.int64, np.int64, np.float64, np.int64, np.int8)
    return [np.array([event[n] for event in events], dtype=kind) for n, kind in enumerate(kinds)]


def typed(events: list[Event]) -> TypedMacroGraph:
    return TypedMacroGraph(USERS, ITEMS, *columns(events), types=("liked", "disliked"), recents=3)


def alone(events: list[Event], kind: int) -> Features:
    """What a macro graph of one type's events shows of every pair."""
    graph = MacroGraph(USERS, ITEMS, *columns([e for e in events if e[4] == kind])[:4], recents=3)
    return graph.features(*PAIRS.T)


def assert_same(found: Features, expected: Features) -> None:
    for name in Features.__slots__:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def assert_typed(graph: TypedMacroGraph, events: list[Event]) -> None:
    """Counts are those of each type, side by side; the rest is that of the first type."""
    found, parts = graph.features(*PAIRS.T), [alone(events, kind) for kind in (0, 1)]
    for name in Features.__slots__:
        own = [getattr(part, name) for part in parts]
        assert torch.equal(getattr(found, name), torch.cat(own, 1) if name in COUNTED else own[0]), name


@settings(max_examples=60)
@given(first=EVENTS, later=EVENTS)
def test_rows_of_the_types_stand_side_by_side_after_every_change(first: list[Event], later: list[Event]) -> None:
    graph = typed(first)
    assert_typed(graph, first)
    graph.add(*columns(later))
    assert_typed(graph, first + later)
    assert_same(graph.candidates(1, np.arange(5)), graph.features(np.ones(5, dtype=int), np.arange(5)))
    graph.remove(*columns(later))
    assert graph.n_events == len(first)
    volumes = graph.features(*PAIRS.T)
    assert_typed(graph, first) if not later else None
    assert torch.equal(volumes.user_volume_BC, typed(first).features(*PAIRS.T).user_volume_BC)


@settings(max_examples=60)
@given(first=EVENTS, later=EVENTS, data=st.data())
def test_replay_is_adding_one_by_one(first: list[Event], later: list[Event], data: st.DataObject) -> None:
    later = sorted(later, key=lambda event: event[3])
    places = sorted(data.draw(st.lists(st.integers(0, len(later)), max_size=6)))
    seen = data.draw(st.lists(st.sampled_from(PAIRS.tolist()), min_size=len(places), max_size=len(places)))
    users, items = (np.array([pair[n] for pair in seen], dtype=np.int64) for n in (0, 1))
    replayed = typed(first)
    found = replayed.replay(*columns(later), users, items, np.array(places, dtype=np.int64))
    live, done = typed(first), 0
    for s, place in enumerate(places):
        live.add(*columns(later[done:place]))
        done = place
        expected = live.features(users[s : s + 1], items[s : s + 1])
        assert_same(found.take(torch.tensor([s])), expected)
    live.add(*columns(later[done:]))
    assert_same(replayed.features(*PAIRS.T), live.features(*PAIRS.T))


def test_the_state_is_stored_with_its_types_and_goes_on() -> None:
    events: list[Event] = [(0, 0, 1.0, 1, 0), (1, 0, 1.0, 2, 1), (1, 2, 2.0, 9, 0), (3, 1, 1.0, 3, 1)]
    graph = typed(events)
    again = TypedMacroGraph.from_tensors(graph.tensors(), graph.types)
    assert again.types == ("liked", "disliked")
    assert_same(again.features(*PAIRS.T), graph.features(*PAIRS.T))
    for one in (graph, again):  # without a time, an event is the latest of all types
        one.add(np.array([1]), np.array([1]), type_E=np.array([1]))
        one.add(np.array([1]), np.array([3]), None, np.array([8]), np.array([1]))
    assert again.graphs[1].user_recent(np.array([1])).tolist() == [[1, 3, 0]]
    assert_same(again.features(*PAIRS.T), graph.features(*PAIRS.T))


def test_groups_change_and_tables_grow_for_all_types() -> None:
    events: list[Event] = [(0, 0, 1.0, 1, 0), (1, 0, 1.0, 2, 1), (2, 2, 2.0, 3, 0)]
    graph = typed(events)
    graph.grow(5, 6)
    graph.add(np.array([4, 4]), np.array([5, 0]), type_E=np.array([0, 1]))
    users = Groups(np.array([0, 1, 1, 0, 0], dtype=np.int32), 2)
    items = Groups(np.array([0, 1, 2, 0, 1, 2], dtype=np.int32), 3)
    graph.regroup(users, items)
    row = graph.features(np.array([4]), np.array([0]))
    assert row.user_hop1_BQ.tolist() == [[0, 0, 1, 1, 0, 0]]
    assert row.item_hop1_BP.tolist() == [[1, 0, 1, 1]]
    assert row.user_volume_BC.tolist() == [[1, 1]]
    assert graph.n_columns == (4, 6)
    assert (graph.users, graph.items) == (graph.graphs[0].users, graph.graphs[0].items)


def test_a_visitor_likes_what_it_has() -> None:
    graph = typed([(0, 0, 1.0, 1, 0), (1, 0, 1.0, 2, 1), (0, 2, 1.0, 3, 0)])
    own = graph.visitor(np.array([0, 2]), np.array([1.0, 1.0]))
    assert own["user_hop1_BQ"].tolist() == [1, 0, 1, 0, 0, 0]
    assert own["user_hop2_BP"].tolist() == [2, 0, 0, 0]
    assert own["user_recent_BR"].tolist() == [2, 0, -1]
    assert own["user_volume_BC"].tolist() == [2, 0]


def test_what_is_refused_changes_nothing() -> None:
    events: list[Event] = [(0, 0, 1.0, 1, 0), (1, 0, 1.0, 2, 1)]
    graph = typed(events)
    before = graph.features(*PAIRS.T)
    with pytest.raises(DataError, match="event types must lie in 0 to 1, and run from 0 to 2"):
        graph.add(np.array([0, 1]), np.array([0, 1]), type_E=np.array([0, 2]))
    with pytest.raises(DataError, match="nothing is removed: there is no event of user 0 and item 0"):
        graph.remove(np.array([0, 0]), np.array([0, 0]), type_E=np.array([0, 1]))
    with pytest.raises(DataError, match="user"):
        graph.add(np.array([0, 9]), np.array([0, 1]), type_E=np.array([0, 1]))
    assert_same(graph.features(*PAIRS.T), before)
