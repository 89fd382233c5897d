"""After any events the live log equals one built from all events at once."""

import numpy as np
import polars as pl
from tests.logs import prepared, raw

from macrorec.data.log import Behavior
from macrorec.data.prepare import PrepareConfig, prepare
from macrorec.graph.bipartite import build
from macrorec.live import after

FUNNEL = (Behavior(name="view", role="auxiliary", mask=False, weight=0.25), Behavior(name="buy", weight=3.0))
OLD = [("a", "x", "view"), ("a", "x", "buy"), ("b", "y", "buy"), ("b", "z", "view"), ("a", "z", "buy")]
NEW = [("b", "x", "buy", 2.0), ("c", "y", "view", 1.0), ("b", "y", "buy", 0.5), ("aa", "z", "buy", 1.0)]


def state(new):
    log = prepared("user item behavior", *OLD, behaviors=FUNNEL).train
    events = pl.DataFrame(new, schema=["user_id", "item_id", "behavior", "weight"], orient="row")
    return after(log.users, build(log), log.items, events)


def edges(graph, users, items):
    found = {}
    for behavior, e in zip(graph.behaviors, graph.edges, strict=True):
        ids = zip(users.ids_of(e.user_E.numpy()), items.ids_of(e.item_E.numpy()), strict=True)
        for pair, weight, count in zip(ids, e.weight_E.tolist(), e.count_E.tolist(), strict=True):
            found[behavior.name, *pair] = (weight, count)
    return found


def test_edges_equal_those_of_all_events_at_once():
    live = state(NEW)
    items = prepared("user item behavior", *OLD, behaviors=FUNNEL).train.items
    rows = raw("user item behavior weight", *[(*row, 1.0) for row in OLD], *NEW)
    together = prepare({"train": rows}, FUNNEL, PrepareConfig(dedupe="none")).train
    assert edges(live.graph, live.users, items) == edges(build(together), together.users, together.items)


def test_newcomers_follow_in_sorted_order_and_only_users_with_events_have_changed():
    live = state(NEW)
    assert live.users.ids.to_list() == ["a", "b", "aa", "c"]
    assert live.changed_U.tolist() == [False, True, True, True]
    assert live.n_fitted == 2
    assert live.popularity_I.tolist() == [2, 1, 2]
    assert live.sizes(np.array([1, 3])).tolist() == [2, 0]
    assert live.items_of(1).tolist() == [0, 1]
    assert live.seen.toarray().tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_histories_are_renumbered():
    history = state(NEW).history(np.array([3, 0, 1]))
    assert history.start_U.tolist() == [0, 0, 2, 4]
    assert history.item_E.tolist() == [0, 2, 0, 1]


def test_without_events_nothing_has_changed():
    live = state([])
    assert not live.changed_U.any()
    assert live.users.ids.to_list() == ["a", "b"]
