"""However events are cut, ordered in batches, or interrupted by restarts, the state is that of all events at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.macro_oracle import assert_same
from tests.serve.market import BEHAVIORS, CATEGORIES, N_ITEMS, N_USERS, T0, bought, graph_of, interactions, write

from macrorec.live import EVENT, Live, after
from macrorec.serve import ledger as ledgers
from macrorec.serve.deployment import Deployment
from macrorec.serve.events import Entry, Event, ItemAnnounced
from macrorec.serve.ledger import Ledger
from macrorec.serve.log import Batch
from macrorec.serve.state import State

NAMES = [behavior.name for behavior in BEHAVIORS]


def frame_of(events: list[Event], least: float = 0.5) -> pl.DataFrame:
    """The events as ``macrorec.live.new_events`` would make them."""
    rows = []
    for e in events:
        if int(e.item_id[1:]) >= N_ITEMS:
            continue
        liked = e.behavior != "buy" or e.label is None or e.label > least
        kind = None if e.behavior == "hide" else int(not liked)
        rows.append((e.user_id, e.item_id, e.behavior, e.weight, e.timestamp, kind))
    schema = {"user_id": pl.String, "item_id": pl.String, **EVENT}
    return pl.DataFrame(rows, schema=schema, orient="row")


def oracle(events: list[Event], *, typed: bool = False) -> Live:
    log = interactions()
    return after(log.users, graph_of(log, typed=typed), log.items, frame_of(events))


def assert_equal(state: State, live: Live) -> None:
    """Everything that answers are made from, user by user and item by item."""
    known = set(live.users.ids.to_list())
    n_items = live.graph.n_items
    assert state.counts is not None and live.graph.macro is not None
    for user_id in known:
        view = state.user(user_id)
        assert view is not None, user_id
        number = int(live.users.numbers([user_id])[0])
        assert sorted(view.items.tolist()) == live.items_of(number).tolist()
        assert view.masked.tolist() == live.seen[[number]].indices.tolist()
        assert view.changed == live.changed_U[number]
        items = np.arange(n_items)
        ours, theirs = state.features(view.ranker, items), live.graph.macro.candidates(number, items)
        for name in ("user_hop1_BQ", "user_hop2_BP", "user_recent_BR", "user_volume_BC", "item_hop1_BP"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), (user_id, name)
        for name in ("item_hop2_BQ", "item_volume_BC"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    count_I = live.popularity_I.numpy()
    best, counts = state.popular(n_items)
    order = np.lexsort((np.arange(n_items), -count_I))
    assert best[best < n_items].tolist() == order.tolist()
    assert counts[best < n_items].tolist() == count_I[order].tolist()
    for group in range(len(CATEGORIES)):
        own = order[order % len(CATEGORIES) == group]
        assert [i for i in state.popular(1, group)[0].tolist() if i < n_items] == own.tolist()


def positions(entries: list[Entry], first: int) -> list[int]:
    return list(range(first + 1, first + 1 + len(entries)))


USERS = st.sampled_from([f"u{n}" for n in range(N_USERS)] + ["new", "другой", "7"])
ITEMS = st.sampled_from([f"i{n}" for n in range(N_ITEMS)] + ["i99"])
EVENTS = st.builds(
    Event,
    user_id=USERS,
    item_id=ITEMS,
    behavior=st.sampled_from(NAMES),
    timestamp=st.integers(T0 - 1000, T0 + 20_000),
    weight=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    label=st.sampled_from([None, 0.0, 0.5, 1.0]),
)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "typed"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    return write(tmp_path_factory.mktemp("shop"), typed=request.param), request.param


@settings(max_examples=15)
@given(events=st.lists(EVENTS, max_size=60), data=st.data())
def test_the_law(shop: tuple[Path, bool], events: list[Event], data: st.DataObject) -> None:
    """Any cut into batches and steps, few or many at once, a restart from a snapshot anywhere: one state."""
    folder, typed = shop
    ledger, state, first = Ledger(), State(Deployment.load(folder)), 0
    while first < len(events):
        size = data.draw(st.integers(1, len(events) - first), label="batch")
        part = events[first : first + size]
        batch = Batch(positions(part, first), part)
        if data.draw(st.booleans(), label="columns"):
            batch = Batch(batch.positions, events=batch.events)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(ledgers, "FEW", 0)
                ledger.append(batch)
        else:
            ledger.append(batch)
        first += size
        match data.draw(st.sampled_from(["wait", "follow", "restart", "reload"]), label="then"):
            case "follow":
                state.extend(ledger, serving=data.draw(st.booleans(), label="serving"))
            case "restart":
                ledger = Ledger.restore(*ledger.snapshot())
                state = State(Deployment.load(folder))
            case "reload":
                state = State(Deployment.load(folder))
                state.extend(ledger, serving=False)
    state.extend(ledger)
    assert (state.row, state.position) == (len(events), len(events))
    assert state.passed_over == sum(event.item_id == "i99" for event in events)
    assert_equal(state, oracle(events, typed=typed))


def test_many_events_at_once_are_counted_as_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, random = write(tmp_path), np.random.default_rng(5)
    events = [
        Event(f"u{u}", f"i{i}", NAMES[b], int(T0 + t), float(w))
        for u, i, b, t, w in zip(
            random.integers(0, 40, 5_000), random.integers(0, N_ITEMS, 5_000), random.integers(0, 3, 5_000),
            random.integers(0, 100_000, 5_000), random.integers(0, 3, 5_000), strict=True,
        )
    ]  # fmt: skip
    ledger = Ledger()
    ledger.append(Batch(range(1, 5_001), events))
    slow, fast = State(Deployment.load(folder)), State(Deployment.load(folder))
    slow.extend(ledger)
    monkeypatch.setattr("macrorec.serve.counts.MANY", 10)
    monkeypatch.setattr("macrorec.serve.histories._MANY", 10)
    fast.extend(ledger, serving=False)
    live = oracle(events)
    assert_equal(slow, live)
    assert_equal(fast, live)


def test_histories_stand_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    state, ledger = State(Deployment.load(write(tmp_path))), Ledger()
    events = [bought("new", item) for item in ("i9", "i3", "i9", "i20", "i1")]
    ledger.append(Batch(range(1, 6), events))
    state.extend(ledger)
    view = state.user("new")
    assert view is not None and view.items.tolist() == [9, 3, 20, 1] and view.masked.tolist() == [1, 3, 9, 20]
    assert (view.fitted, view.events) == (-1, 5)


def test_what_only_marks_or_only_counts_does_just_that(tmp_path: Path) -> None:
    state, ledger = State(Deployment.load(write(tmp_path))), Ledger()
    ledger.append(Batch([1, 2], [bought("new", "i4", "view"), bought("new", "i5", "hide")]))
    state.extend(ledger)
    view = state.user("new")
    assert view is not None and view.items.tolist() == [] and view.masked.tolist() == [5]
    assert view.groups_Q is not None and view.groups_Q.tolist() == [0, 0.25, 0]
    assert state.count(np.array([4, 5])).tolist() == oracle([]).popularity_I[[4, 5]].tolist()


def test_an_announced_item_joins_the_macro_node_and_takes_the_mean_vector_of_its_category(tmp_path: Path) -> None:
    deployment, ledger = Deployment.load(write(tmp_path)), Ledger()
    state = State(deployment)
    entries: list[Entry] = [
        bought("u0", "x1"),  # before anybody has announced it
        ItemAnnounced("x1", "music", "X One"),
        bought("u1", "x1"),
        ItemAnnounced("x2", "perfume"),
        ItemAnnounced("x3"),
        ItemAnnounced("i2", "books", "Renamed"),
    ]
    ledger.append(Batch(range(1, 7), entries))
    state.extend(ledger)
    one, two, three, known = state.numbers(["x1", "x2", "x3", "i2"]).tolist()
    assert [one, two, three, known] == [N_ITEMS, N_ITEMS + 1, N_ITEMS + 2, 2]
    own = state.catalogue
    assert [own.category(n) for n in (one, two, three, 2)] == ["music", "perfume", None, "games"]
    assert [own.title(n) for n in (one, two, 2, 3)] == ["X One", None, "Renamed", "Item 3"]
    assert state.features(-1, np.array([one, two, three])).item_group_B.tolist() == [1, -1, -1]
    assert state.features(-1, np.array([one])).item_hop1_BP.tolist() == [[2.0, 2.0]]
    items_ID = deployment.items_ID
    assert items_ID is not None and deployment.retriever is not None
    mean_D = items_ID[1::3].mean(0)
    assert np.allclose(deployment.retriever.score(mean_D[None], np.array([[one]])), mean_D @ mean_D)
    assert own.placed_I[[one, two, three]].tolist() == [True, False, False]
    assert state.count(np.array([one])).tolist() == [2] and state.passed_over == 0
    view = state.user("u0")
    assert view is not None and view.items[-1] == one
    again = State(Deployment.load(deployment.folder))
    for row in range(len(ledger) + 1):  # however the rows are cut
        again.extend(ledger, row)
    assert_same(again.features(-1, np.arange(N_ITEMS + 3)), state.features(-1, np.arange(N_ITEMS + 3)))
    assert again.popular(40)[0].tolist() == state.popular(40)[0].tolist()


@pytest.mark.parametrize("typed", [False, True])
def test_who_is_forgotten_has_never_been_there(typed: bool, tmp_path: Path) -> None:
    """Not in counts, not by the fit; who comes back with the id is somebody new."""
    events = [bought("u3", "i1"), bought("u4", "i1"), bought("new", "i7"), Event("u3", "i2", "buy", T0, 1.0, 0.0)]
    ledger, state = Ledger(), State(Deployment.load(write(tmp_path, typed=typed)))
    ledger.append(Batch(range(1, 5), events))
    state.extend(ledger)
    for user_id in ("u3", "new", "nobody"):
        assert ledger.forget(user_id) == sum(event.user_id == user_id for event in events)
        state.forget(user_id)
        assert state.user(user_id) is None
    log = interactions()
    others = log.take(log.user != 3)
    live = after(others.users, graph_of(others, typed=typed), others.items, frame_of([events[1]]))
    keep = [n for n in range(N_USERS) if n != 3]
    assert state.count(np.arange(N_ITEMS)).tolist() == live.popularity_I.tolist()
    for number in keep:
        view = state.user(f"u{number}")
        assert view is not None and live.graph.macro is not None
        ours = state.features(view.ranker, np.arange(N_ITEMS))
        assert_same(ours, live.graph.macro.candidates(number, np.arange(N_ITEMS)))
    ledger.append(Batch([5], [bought("u3", "i8")]))
    state.extend(ledger)
    view = state.user("u3")
    assert view is not None and view.fitted == -1 and view.items.tolist() == [8] and view.masked.tolist() == [8]
    assert view.number >= N_USERS and b"u3" not in ledger.users._text[: 2 * len("u3")].tobytes()


def test_numbers_of_the_ledger_are_of_no_model(tmp_path: Path) -> None:
    """A snapshot that one model's service wrote serves another model."""
    ledger = Ledger()
    ledger.append(Batch([3, 9], [bought("u1", "i2"), bought("n", "i3")]))
    tensors, frames, meta = ledger.snapshot()
    assert tensors["user_E"].tolist() == [0, 1] and frames["users"]["id"].to_list() == ["u1", "n"]
    assert tensors["position_E"].tolist() == [3, 9] and meta["position"] == 9
