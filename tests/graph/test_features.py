"""Features of impressions: against their definition, row by row; what is refused; what the report says."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.logs import raw
from tests.timelines import BEHAVIORS, Book, Row, beside, counted, cut_at, disliked, numbers, whole

from macrorec.data.log import Interactions, Split, concat
from macrorec.data.prepare import PrepareConfig, prepare
from macrorec.data.sources.source import Source
from macrorec.data.split import LeaveLastOne, SplitConfig, TimeQuantile, split
from macrorec.data.vocab import Vocab
from macrorec.errors import ConfigError, DataError
from macrorec.graph.assignment import joined
from macrorec.graph.features import FeatureConfig, FeatureSet, Samples, feature_set, stream
from macrorec.graph.groups import ByCategory, ByFile, ByKMeans, Groups
from macrorec.graph.macro import MacroGraph
from macrorec.graph.plan import plan
from macrorec.inputs import read_split

N_USERS, N_ITEMS = 5, 6
BASE: list[Row] = [(n % N_USERS, (n * n + n // 5) % N_ITEMS, "buy", n // 2, float(n % 3 > 0)) for n in range(24)]
"""Two buys at each time from 0 to 11, of every user and item, of both labels in every stretch."""
ROW = st.tuples(
    st.integers(0, N_USERS - 1),
    st.integers(0, N_ITEMS - 1),
    st.sampled_from(["view", "hide", "buy", "buy"]),
    st.integers(0, 11),
    st.sampled_from([0.0, 1.0]),
)
ROWS = st.lists(ROW, max_size=25).map(lambda rows: BASE + rows)
EDGES = st.sampled_from(["positive", "signed"])
FILES = {"user": [0, 1, 1, 0, None], "item": [2, 0, 1, 1, None, 0]}
"""Group per number; the last user and item 4 have none."""


@pytest.fixture(scope="session")
def by_file(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Groups of users and of items from outside, as fields of ``FeatureConfig``."""
    folder: Path = tmp_path_factory.mktemp("groups")
    found = {}
    for side, groups in FILES.items():
        path = folder / f"{side}.parquet"
        frame = pl.DataFrame({f"{side}_id": range(len(groups)), "group": pl.Series(groups, dtype=pl.Int64)})
        frame.drop_nulls().write_parquet(path)
        found[f"{side}s"] = ByFile(path=str(path))
    return found


def by_the_book(known: Interactions, config: FeatureConfig, user: int, item: int) -> dict[str, Any]:
    """The features of an impression that may see the rows ``known``, under the groups of ``FILES``."""
    groups = tuple([-1 if group is None else group for group in FILES[side]] for side in ("user", "item"))
    liked, not_liked = (
        Book([event[:3] for event in events], *groups, 2, 3, config.recents).of(user, item)
        for events in (counted(known), disliked(known))
    )
    return liked if config.edges == "positive" else beside(liked, not_liked)


def part_of(row: Row) -> str:
    return "train" if row[3] <= 8 else "valid" if row[3] <= 9 else "test"


def sample_rows(samples: Samples) -> list[tuple[Any, ...]]:
    pairs = samples.pairs
    assert pairs.time is not None
    return list(
        zip(pairs.user.tolist(), pairs.item.tolist(), pairs.time.tolist(), samples.label_B.tolist(), strict=True)
    )


def columns(events: Sequence[tuple[int, int, float, int]]) -> tuple[Any, ...]:
    """Events as ``MacroGraph`` takes them."""
    users, items, weights, times = zip(*events, strict=True) if events else ((), (), (), ())
    return (*(np.array(numbers, dtype=np.int64) for numbers in (users, items)), np.array(weights), np.array(times))


def built(rows: Sequence[Row], config: FeatureConfig, seed: int = 0) -> FeatureSet:
    return feature_set(cut_at(rows, 8, 9), config, None, seed=seed)


# --- the definition --------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(rows=ROWS, history=st.sampled_from([0.3, 0.5]), recents=st.integers(0, 3), edges=EDGES)
def test_a_snapshot_sees_the_boundary_and_in_test_the_end_of_valid(
    rows: list[Row], history: float, recents: int, edges: Any, by_file: dict[str, Any]
) -> None:
    config = FeatureConfig(history=history, recents=recents, edges=edges, **by_file)
    found = built(rows, config)
    boundary = found.report["boundary"]
    times = sorted(row[3] for row in rows if row[2] == "buy")
    assert sum(t <= boundary for t in times) >= history * len(times) > sum(t < boundary for t in times)
    parts = cut_at(rows, 8, 9)
    log = concat(parts.train, parts.valid, parts.test)
    assert log.time is not None
    for name, end in (("train", boundary), ("valid", boundary), ("test", 9)):
        samples, known = found.samples[name], log.take(log.time <= end)
        seen = counted(known)
        for place, (user, item) in enumerate(zip(samples.pairs.user, samples.pairs.item, strict=True)):
            assert numbers(samples.features, place) == by_the_book(known, config, user, item)
            assert samples.user_history_B[place] == sum(event[0] == user for event in seen)
            assert samples.item_history_B[place] == sum(event[1] == item for event in seen)
        wanted = [row for row in rows if row[2] == "buy" and boundary < row[3] and part_of(row) == name]
        assert sorted(sample_rows(samples)) == sorted((row[0], row[1], row[3], row[4]) for row in wanted)


@settings(max_examples=40)
@given(rows=ROWS, ties=st.sampled_from(["apart", "row"]), at_once=st.integers(1, 9), edges=EDGES)
def test_as_of_sees_what_is_earlier_than_each_sample(
    rows: list[Row], ties: Any, at_once: int, edges: Any, by_file: dict[str, Any]
) -> None:
    config = FeatureConfig(kind="as_of", history=0.3, recents=2, ties=ties, edges=edges, **by_file)
    parts = cut_at(rows, 8, 9)
    log = concat(parts.train, parts.valid, parts.test)
    assert log.time is not None and log.label is not None
    boundary = built(rows, config).report["boundary"]
    expected = []
    for row in np.flatnonzero((log.behavior == log.target) & (log.time > boundary)):
        earlier = np.arange(len(log)) < row if ties == "row" else log.time < log.time[row]
        seen = counted(log.take(earlier))
        user, item = int(log.user[row]), int(log.item[row])
        counts = sum(event[0] == user for event in seen), sum(event[1] == item for event in seen)
        expected.append((by_the_book(log.take(earlier), config, user, item), log.label[row], counts))
    together = [
        (numbers(s.features, b), s.label_B[b], (s.user_history_B[b], s.item_history_B[b]))
        for s, b in whole(built(rows, config))
    ]
    assert together == expected
    streamed = [
        (numbers(s.features, b), s.label_B[b], (s.user_history_B[b], s.item_history_B[b]))
        for _, s in stream(parts, config, None, seed=0, at_once=at_once)
        for b in range(len(s))
    ]
    assert streamed == expected


@settings(max_examples=40)
@given(rows=ROWS, regroup=st.sampled_from([0, 1, 5, 100]), items=st.sampled_from(["file", "kmeans"]))
def test_training_sees_what_a_live_graph_has(
    rows: list[Row], regroup: int, items: str, by_file: dict[str, Any]
) -> None:
    """Fed event by event, with groups joined at the same points, a live graph has the same features to the last bit."""
    groups = {"items": by_file["items"] if items == "file" else ByKMeans(n=2, dim=2)}
    config = FeatureConfig(kind="as_of", history=0.2, users=ByKMeans(n=2), recents=3, regroup=regroup, **groups)
    rows = [row for row in rows if row[0] not in (2, 3) or row[3] > 4]  # users that come late
    try:
        found = built(rows, config)
    except DataError:
        assume(False)
    parts = cut_at(rows, 8, 9)
    log = concat(parts.train, parts.valid, parts.test)
    events = counted(log)
    first = [event for event in events if event[3] <= found.report["boundary"]]
    assert len(first) == found.report["history"]
    decided = plan(parts, config, None, seed=0)
    live = MacroGraph(decided.users.groups, decided.items.groups, *columns(first), recents=3)
    step = max(1, round(len(first) * 4 / max(regroup, 1)))
    n, chosen = len(first), whole(found)
    for samples, place in chosen:
        assert samples.pairs.time is not None
        while n < len(events) and events[n][3] < samples.pairs.time[place]:
            live.add(*columns(events[n : n + 1]))
            n += 1
            if regroup and (n - len(first)) % step == 0:
                live.regroup(*joined(live))
        now = live.features(samples.pairs.user[place : place + 1], samples.pairs.item[place : place + 1])
        assert numbers(samples.features, place) == numbers(now, 0)


@pytest.mark.parametrize("edges", ["positive", "signed"])
@pytest.mark.parametrize("kind", ["snapshot", "as_of"])
def test_the_model_scores_from_the_state_after_train(kind: Any, edges: Any, by_file: dict[str, Any]) -> None:
    rows = [*BASE, (1, 2, "view", 8, 0.0), (1, 2, "view", 9, 0.0), (3, 2, "view", 11, 0.0)]
    parts = cut_at(rows, 8, 9)
    config = FeatureConfig(kind=kind, history=0.5, recents=4, edges=edges, **by_file)
    users, items = np.arange(N_USERS), np.arange(N_USERS)
    for split_, end in ((parts, 8), (parts.with_valid_in_train(), 9)):
        found = feature_set(split_, config, None, seed=0)
        log = concat(parts.train, parts.valid)
        assert log.time is not None
        known, state = log.take(log.time <= end), found.macro.features(users, items)
        assert [numbers(state, n) for n in range(N_USERS)] == [by_the_book(known, config, n, n) for n in range(N_USERS)]
    assert len(found.samples["valid"]) == 0


def test_valid_in_train_leaves_the_samples_as_they_are(by_file: dict[str, Any]) -> None:
    parts = cut_at(BASE, 8, 9)
    for kind in ("snapshot", "as_of"):
        config = FeatureConfig(kind=kind, history=0.5, **by_file)
        apart, together = (feature_set(p, config, None, seed=0) for p in (parts, parts.with_valid_in_train()))
        assert [numbers(s.features, b) for s, b in whole(apart)] == [numbers(s.features, b) for s, b in whole(together)]
        assert len(together.samples["train"]) == len(apart.samples["train"]) + len(apart.samples["valid"])


def stretch(rows: int) -> Split:
    """A log whose first fifth is history; from then on, an impression at every moment, a tenth of them positive."""
    number, random = np.arange(rows), np.random.default_rng(0)
    log = Interactions(
        Vocab(np.arange(50)),
        Vocab(np.arange(40)),
        (BEHAVIORS[-1],),
        random.integers(50, size=rows, dtype=np.int32),
        random.integers(40, size=rows, dtype=np.int32),
        np.zeros(rows, dtype=np.int8),
        number,
        label=(number % 10 == 0).astype(np.float32),
    )
    cuts = number < rows * 0.8, (number >= rows * 0.8) & (number < rows * 0.9), number >= rows * 0.9
    train, valid, test = (log.take(cut) for cut in cuts)
    return Split(train, valid, test, protocol={})


def peak_of_stream(rows: int, at_once: int) -> int:
    """Bytes that are held at most from the call of ``stream`` to its end."""
    config = FeatureConfig(kind="as_of", history=0.2, users=ByKMeans(n=20), items=ByKMeans(n=20), regroup=3)
    parts = stretch(rows)
    tracemalloc.start()
    try:
        n_samples = sum(len(samples) for _, samples in stream(parts, config, None, seed=0, at_once=at_once))
        assert n_samples == rows - rows // 5
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_stream_holds_one_chunk_whatever_their_number() -> None:
    """What grows with the number of chunks is the log in order, 60 bytes a row, not its features, 500 bytes a row."""
    peak_of_stream(2_000, 200)  # compiles
    few, many = peak_of_stream(10_000, 500), peak_of_stream(50_000, 500)
    assert (many - few) / 40_000 < 100
    assert peak_of_stream(50_000, 40_000) > 3 * many


# --- groups ----------------------------------------------------------------------------------------------------------


class Genres:
    """A catalog of two categories; the last item has none."""

    def groups(self, pick: str) -> tuple[Any, tuple[str, ...]]:
        assert pick == "first"
        return np.array([0, 0, 0, 1, 1, -1], dtype=np.int32), ("drama", "news")


def test_groups_are_fitted_on_the_history_alone_and_late_nodes_join_the_nearest() -> None:
    drama, news = [0, 1, 2], [3, 4]
    rows = [(u, i, "buy", u + i, 1.0) for u in (0, 1) for i in drama] + [(2, i, "buy", i, 1.0) for i in news]
    rows += [(3, 3, "buy", 20, 1.0), (3, 4, "buy", 20, 1.0), (3, 0, "buy", 20, 1.0), (4, 5, "buy", 20, 1.0)]
    rows += [(0, 0, "buy", 30 + t, float(t % 2)) for t in range(4)] + [(3, 1, "buy", 50, 1.0), (4, 1, "buy", 50, 0.0)]
    parts = cut_at(rows, 25, 40)
    config = FeatureConfig(history=0.4, users=ByKMeans(n=2))
    with pytest.raises(DataError, match="all 4 train samples have label 1"):
        feature_set(parts, config, Genres(), seed=0)  # type: ignore[arg-type]
    parts = cut_at([*rows, (1, 1, "buy", 19, 0.0)], 25, 40)
    found = feature_set(parts, config, Genres(), seed=0)  # type: ignore[arg-type]
    assert found.macro.items.names == ("drama", "news") and found.macro.items.of_N.tolist() == [0, 0, 0, 1, 1, -1]
    of_drama, of_news = found.macro.users.of_N[[0, 2]].tolist()
    assert {of_drama, of_news} == {0, 1}
    assert found.macro.users.of_N.tolist() == [of_drama, of_drama, of_news, of_news, -1]
    assert found.report["groups"]["users"] == {"n": 2, "unknown": 2, "objective": pytest.approx(0, abs=1e-6)}
    assert found.samples["train"].features.user_group_B.tolist() == [of_drama, -1, -1, -1, -1]
    assert found.samples["test"].features.user_group_B.tolist() == [of_news, -1]


def test_late_items_join_the_group_that_their_users_prefer() -> None:
    """Items 0 to 2 and 3 to 4 are two groups; one user took item 5 and three of the first, another 6 and one each."""
    of_I = np.array([0, 0, 0, 1, 1, -1, -1, -1, -1], dtype=np.int32)
    items = Groups(of_I, 2, centres_KF=np.eye(2))
    events = [(0, i) for i in (0, 1, 2, 5)] + [(1, 3), (1, 6), (1, 0), (2, 7)] + [(3, i) for i in (0, 1, 2, 1)]
    user, item = np.array(events).T
    macro = MacroGraph(Groups(np.zeros(4, dtype=np.int32), 1), items, user, item)
    users, found = joined(macro)
    assert users is macro.users
    assert found.of_N.tolist() == [0, 0, 0, 1, 1, 0, 1, -1, -1]  # item 6: 1 of 1 event beats 1 of 8
    macro.regroup(users, found)
    assert joined(macro)[1] is macro.items


def test_who_joins_after_train_is_not_in_a_group_of_the_fitted_model(by_file: dict[str, Any]) -> None:
    rows = [row for row in BASE if row[0] != 4 or row[3] > 9] + [(4, i, "buy", 10 + i, 1.0) for i in (0, 2)]
    config = FeatureConfig(kind="as_of", history=0.5, users=ByKMeans(n=2), items=by_file["items"], regroup=100)
    found = built(rows, config)
    assert found.macro.users.of_N[4] == -1 and (found.macro.users.of_N[:4] >= 0).all()
    assert found.samples["test"].features.user_group_B[-1] >= 0 and found.samples["test"].pairs.user[-1] == 4


# --- negatives -------------------------------------------------------------------------------------------------------

PLAIN = "user item behavior time"


@settings(max_examples=30)
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.just("buy"), st.integers(0, 11)), max_size=30),
    n=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_drawn_items_are_new_to_their_user(rows: list[Any], n: int, seed: int, by_file: dict[str, Any]) -> None:
    rows = [row[:4] for row in BASE] + rows
    config = FeatureConfig(kind="as_of", history=0.5, negatives=n, **by_file)
    found = feature_set(cut_at(rows, 8, 9, PLAIN), config, None, seed=seed)
    met = {(u, i): min(row[3] for row in rows if row[:2] == (u, i)) for u, i, _, _ in rows}
    positives = 0
    for samples in found.samples.values():
        taken = sample_rows(samples)
        for first in range(0, len(taken), 1 + n):
            user, _, time, label = taken[first]
            positives += 1
            assert label == 1
            for other, item, at, none in taken[first + 1 : first + 1 + n]:
                assert (other, at, none) == (user, time, 0)
                has_all = all(met.get((user, i), 99) <= time for i in range(N_ITEMS))
                assert has_all or met.get((user, item), 99) > time
        assert samples.pairs.label is not None and samples.pairs.label.tolist() == samples.label_B.tolist()
    assert positives == sum(row[3] > found.report["boundary"] for row in rows)


def test_negatives_are_uniform_and_seeded(by_file: dict[str, Any]) -> None:
    rows = [(0, 0, "buy", 0), (1, 1, "buy", 0), *((0, 0, "buy", t) for t in range(1, 5))]
    rows += [(1, item, "buy", 9) for item in range(2, 6)]
    config = FeatureConfig(history=0.1, negatives=500, users=ByKMeans(n=1), items=ByKMeans(n=1))
    found, again, other = (feature_set(cut_at(rows, 5, 7, PLAIN), config, None, seed=seed) for seed in (0, 0, 1))
    item = found.samples["train"].pairs.item
    assert np.array_equal(item, again.samples["train"].pairs.item)
    assert not np.array_equal(item, other.samples["train"].pairs.item)
    share = np.bincount(item[found.samples["train"].label_B.numpy() == 0], minlength=6) / 2000
    assert share[0] == 0 and np.abs(share[1:] - 0.2).max() < 0.04


# --- cold ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["snapshot", "as_of"])
@settings(max_examples=30)
@given(rows=ROWS)
def test_cold_samples_are_dropped_and_counted(kind: Any, rows: list[Row], by_file: dict[str, Any]) -> None:
    rows = [row for row in rows if row[0] != 4 or row[3] > 6]
    keep = FeatureConfig(kind=kind, history=0.4, **by_file)
    kept, dropped = built(rows, keep), built(rows, replace(keep, cold="drop"))
    for name, all_samples in kept.samples.items():
        warm = np.flatnonzero((all_samples.user_history_B > 0) & (all_samples.item_history_B > 0))
        left, counts = dropped.samples[name], dropped.report["parts"][name]
        assert [numbers(left.features, b) for b in range(len(left))] == [numbers(all_samples.features, b) for b in warm]
        assert sample_rows(left) == [sample_rows(all_samples)[b] for b in warm]
        assert counts["kept"] == len(warm) and counts["dropped"] == counts["cold"] == len(all_samples) - len(warm)
        assert counts["samples"] == len(all_samples) == kept.report["parts"][name]["kept"]
        assert counts["cold_user"] == (all_samples.user_history_B == 0).sum()
        assert counts["cold_item"] == (all_samples.item_history_B == 0).sum()
        assert counts["positives"] == (left.label_B == 1).sum()
        assert counts["rows"] == sum(row[2] == "buy" and part_of(row) == name for row in rows)
        assert kept.report["parts"][name]["dropped"] == 0


@pytest.mark.parametrize(
    ("data", "n_train", "n_test"),
    [
        ("ml-100k/ml-100k.inter", 1489, 2743),
        ("amazon/ratings.parquet", 11_300, 12_345),
        ("yelp-ratings/ratings.parquet", 18_463, 18_728),
    ],
)
def test_the_papers_protocol(shared_data: Path, tmp_path: Path, data: str, n_train: int, n_test: int) -> None:
    """Counts of rows whose user and item have a positive history, taken apart by a query over the file.

    On yelp-ratings a quantile that picks the row of rank .8 (n - 1), not .8 n, gives 18,464.
    """
    source = Source(path=str(shared_data / data))
    cuts = SplitConfig(test=TimeQuantile(quantile=0.9), valid=TimeQuantile(quantile=0.89 / 0.9), vocabulary="all")
    parts = read_split(source, PrepareConfig(binary=4), cuts, seed=0)
    for side, vocab in (("user", parts.users), ("item", parts.items)):
        frame = pl.DataFrame({f"{side}_id": vocab.ids, "group": np.arange(len(vocab)) % 3})
        frame.write_parquet(tmp_path / f"{side}.parquet")
    config = FeatureConfig(
        cold="drop",
        users=ByFile(path=str(tmp_path / "user.parquet")),
        items=ByFile(path=str(tmp_path / "item.parquet")),
    )
    found = feature_set(parts, config, None, seed=0)
    assert [len(found.samples["train"]) + len(found.samples["valid"]), len(found.samples["test"])] == [n_train, n_test]


# --- what is refused -------------------------------------------------------------------------------------------------

KMEANS = FeatureConfig(history=0.5, users=ByKMeans(n=2), items=ByKMeans(n=2))


def test_a_log_without_times(by_file: dict[str, Any]) -> None:
    log = prepare({"train": raw("user item label", (0, 0, 1.0), (1, 1, 0.0))}, (), PrepareConfig()).train
    none = log.take(np.arange(0))
    with pytest.raises(DataError, match="need times, and the log has no column 'timestamp'"):
        feature_set(Split(log, none, none, {}), KMEANS, None, seed=0)


@pytest.mark.parametrize("kind", ["snapshot", "as_of"])
@pytest.mark.parametrize(
    ("rows", "changed", "message"),
    [
        ([(u, i, "buy", 7, 1.0) for u in range(3) for i in range(3)], {}, "all 9 events have the same time, 7"),
        ([*BASE, *(BASE[-1] for _ in range(40))], {}, "none of 64 impressions is later than 11"),
        ([r for r in BASE if r[3] <= 2 or r[3] > 8], {"history": 0.6}, "no train sample is later than 9"),
        ([(*r[:4], 1.0) for r in BASE], {}, "all 6 train samples have label 1"),
        ([(*r[:4], float(r[3] < 6)) for r in BASE], {}, "all 6 train samples have label 0"),
        ([(*r[:4], 5.0) for r in BASE], {}, r"labels must lie in \[0, 1\], and run from 5 to 5"),
        ([(*r[:4], float(r[3] > 6)) for r in BASE], {}, "no positive event up to time 5"),
        (
            [(min(r[0], 2) + 2 * (r[3] > 5), *r[1:]) for r in BASE],
            {"users": ByKMeans(n=4)},
            "features.users: k-means into 4 groups, but only 3 of 5",
        ),
        (BASE, {"items": ByKMeans(n=7)}, "features.items: k-means into 7 groups, but only 6 of 6"),
        (BASE, {"items": ByCategory()}, "features.items is 'category', but the log came without"),
        (BASE, {"items": ByFile(path="nowhere.parquet")}, "there is no file 'nowhere.parquet'"),
    ],
)
def test_one_line_says_what_is_wrong(kind: Any, rows: list[Row], changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        feature_set(cut_at(rows, 8, 9), replace(KMEANS, kind=kind, **changed), None, seed=0)
    assert "\n" not in str(caught.value)


def test_negatives_are_for_logs_without_labels() -> None:
    with pytest.raises(ConfigError, match="the log has labels"):
        built(BASE, replace(KMEANS, negatives=2))
    with pytest.raises(DataError, match="no column 'label': set features"):
        feature_set(cut_at([row[:4] for row in BASE], 8, 9, PLAIN), KMEANS, None, seed=0)
    with pytest.raises(ConfigError, match="'signed', but the log has no labels"):
        signed = replace(KMEANS, negatives=1, edges="signed")
        feature_set(cut_at([row[:4] for row in BASE], 8, 9, PLAIN), signed, None, seed=0)


def test_a_snapshot_needs_a_split_by_time() -> None:
    rows = [row for row in BASE if row[0] != 4 or row[3] < 9]
    log = prepare({"train": raw("user item behavior time label", *rows)}, BEHAVIORS, PrepareConfig(dedupe="none"))
    parts = split(log, SplitConfig(test=LeaveLastOne()), seed=0)
    with pytest.raises(DataError, match="test part later than train and valid, and test begins at 7, while these end"):
        feature_set(parts, KMEANS, None, seed=0)
    found = feature_set(parts, replace(KMEANS, kind="as_of"), None, seed=0)
    assert len(found.samples["test"]) == 5 and found.macro.n_events == len(counted(parts.train))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"history": 0.0}, "features.history is 0; it must lie between 0 and 1"),
        ({"history": 1.0}, "features.history is 1;"),
        ({"kind": "daily"}, "features.kind is 'daily'; allowed are snapshot, as_of"),
        ({"cold": "warm"}, "features.cold is 'warm'"),
        ({"ties": "none"}, "features.ties is 'none'; allowed are apart, row"),
        ({"recents": -1}, "features.recents is -1; it must be 0 or more"),
        ({"users": ByCategory()}, "only items have categories"),
    ],
)
def test_settings_out_of_range(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FeatureConfig(**changed)


def test_files_of_groups(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    for frame, message in (
        (pl.DataFrame({"item_id": [0], "cluster": [1]}), "must have the columns item_id and group"),
        (
            pl.DataFrame({"item_id": [0], "group": [0.5]}),
            "a whole number; it has item_id \\(Int64\\), group \\(Float64\\)",
        ),
        (pl.DataFrame({"item_id": [99], "group": [0]}), "has no group for any of the log's 6 items"),
    ):
        frame.write_parquet(path)
        with pytest.raises(DataError, match=message):
            built(BASE, replace(KMEANS, items=ByFile(path=str(path))))
    path.write_text("no Parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        built(BASE, replace(KMEANS, items=ByFile(path=str(path))))
