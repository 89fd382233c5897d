"""No feature sees its own future: an event planted at or after an impression changes nothing, one before it does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.timelines import BEHAVIORS, Row, counted, cut_at, numbers, same, whole

from macrorec.data.log import concat
from macrorec.errors import DataError
from macrorec.graph.features import FeatureConfig, FeatureSet, feature_set
from macrorec.graph.groups import ByFile, ByKMeans

N_USERS, N_ITEMS = 5, 6
VALID, TEST, END = 9, 11, 14
"""Train ends at the first time, valid at the second, the log at the third."""
BASE: list[Row] = [(n % N_USERS, (n * n + n // 5) % N_ITEMS, "buy", n // 2, float(n % 3 > 0)) for n in range(28)]
KINDS = [behavior.name for behavior in BEHAVIORS]


def row_at(times: st.SearchStrategy[int]) -> st.SearchStrategy[Row]:
    """Any row of the log: of any user, item and behaviour, with any label."""
    users, items = st.integers(0, N_USERS - 1), st.integers(0, N_ITEMS - 1)
    return st.tuples(users, items, st.sampled_from(KINDS), times, st.sampled_from([0.0, 1.0]))


ROWS = st.lists(row_at(st.integers(0, END)), max_size=20).map(lambda rows: BASE + rows)
EDGES = st.sampled_from(["positive", "signed"])
TIES = st.sampled_from(["apart", "row"])


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Groups that stand, where the last user and item have none; and groups that are fitted and joined."""
    folder: Path = tmp_path_factory.mktemp("groups")
    fixed = {}
    for side, n in (("user", N_USERS), ("item", N_ITEMS)):
        path = folder / f"{side}.parquet"
        pl.DataFrame({f"{side}_id": range(n - 1), "group": [k % 2 for k in range(n - 1)]}).write_parquet(path)
        fixed[f"{side}s"] = ByFile(path=str(path))
    return {"file": fixed, "kmeans": {"users": ByKMeans(n=2), "items": ByKMeans(n=2, dim=3)}}


def built(rows: Sequence[Row], config: FeatureConfig) -> FeatureSet:
    """The samples of ``rows``; a log that gives none is not looked at."""
    try:
        return feature_set(cut_at(rows, VALID, TEST), config, None, seed=0)
    except DataError:
        assume(False)
        raise


def up_to(found: FeatureSet, time: int) -> list[tuple[int, dict[str, Any]]]:
    """(time, features and history lengths) of every sample that is not later than ``time``, in the log's order."""
    seen = []
    for samples, place in whole(found):
        assert samples.pairs.time is not None
        lengths = {"user": int(samples.user_history_B[place]), "item": int(samples.item_history_B[place])}
        seen.append((int(samples.pairs.time[place]), numbers(samples.features, place) | lengths))
    return [entry for entry in seen if entry[0] <= time]


@pytest.mark.parametrize("source", ["file", "kmeans"])
@pytest.mark.parametrize("kind", ["snapshot", "as_of"])
@settings(max_examples=40)
@given(rows=ROWS, planted=row_at(st.integers(3, END)), ties=TIES, edges=EDGES)
def test_an_event_planted_at_or_after_a_sample_does_not_move_its_features(
    kind: Any, source: str, rows: list[Row], planted: Row, ties: Any, edges: Any, groups: dict[str, dict[str, Any]]
) -> None:
    config = FeatureConfig(kind=kind, history=0.3, recents=3, ties=ties, edges=edges, regroup=5, **groups[source])
    before, after = built(rows, config), built([*rows, planted], config)
    assume(before.report["boundary"] == after.report["boundary"] < planted[3])
    old = up_to(before, planted[3])
    assert up_to(after, planted[3])[: len(old)] == old
    if kind == "snapshot":
        for name in ("train", "valid"):
            samples = before.samples[name]
            old = [numbers(samples.features, place) for place in range(len(samples))]
            new = after.samples[name]
            kept = [numbers(new.features, place) for place in range(len(new)) if not is_row(new, place, planted)]
            assert kept == [entry for place, entry in enumerate(old) if not is_row(samples, place, planted)]


def is_row(samples: Any, place: int, row: Row) -> bool:
    pairs = samples.pairs
    found = int(pairs.user[place]), int(pairs.item[place]), int(pairs.time[place]), float(pairs.label[place])
    return found == (row[0], row[1], row[3], row[4])


@pytest.mark.parametrize("source", ["file", "kmeans"])
@pytest.mark.parametrize("kind", ["snapshot", "as_of"])
@settings(max_examples=40)
@given(rows=ROWS, since=st.integers(3, END), ties=TIES, edges=EDGES)
def test_labels_of_later_rows_do_not_matter(
    kind: Any, source: str, rows: list[Row], since: int, ties: Any, edges: Any, groups: dict[str, dict[str, Any]]
) -> None:
    config = FeatureConfig(kind=kind, history=0.3, recents=3, ties=ties, edges=edges, regroup=5, **groups[source])
    before = built(rows, config)
    assume(before.report["boundary"] < since)
    turned = [(*row[:4], 1 - row[4]) if row[3] >= since else row for row in rows]
    after = built(turned, config)
    first = since if ties == "apart" or kind == "snapshot" else since - 1
    assert up_to(after, first) == up_to(before, first)
    assert len(up_to(after, END)) == len(up_to(before, END))


@pytest.mark.parametrize("kind", ["snapshot", "as_of"])
@settings(max_examples=40)
@given(rows=ROWS, data=st.data())
def test_an_event_planted_before_a_sample_moves_its_features(
    kind: Any, rows: list[Row], data: st.DataObject, groups: dict[str, dict[str, Any]]
) -> None:
    config = FeatureConfig(kind=kind, history=0.3, recents=3, **groups["file"])
    before = built(rows, config)
    boundary = before.report["boundary"]
    name = data.draw(st.sampled_from([name for name, samples in before.samples.items() if len(samples)]))
    samples = before.samples[name]
    place = data.draw(st.integers(0, len(samples) - 1))
    assert samples.pairs.time is not None
    moment = int(samples.pairs.time[place]) - 1
    if kind == "snapshot":
        moment = TEST if name == "test" else boundary
    user, item = int(samples.pairs.user[place]), int(samples.pairs.item[place])
    by_user = data.draw(st.booleans())
    planted = (user, 0, "view", moment, 0.0) if by_user else (0, item, "view", moment, 0.0)
    after = built([planted, *rows], config)
    assert after.report["boundary"] == boundary
    old, new = (numbers(found.samples[name].features, place) for found in (before, after))
    assert not same(old, new)
    side = "user_hop1_BQ" if by_user else "item_hop1_BP"
    assert new[side][0] == old[side][0] + 0.5
    assert after.samples[name].user_history_B[place] == samples.user_history_B[place] + (planted[0] == user)
    assert after.samples[name].item_history_B[place] == samples.item_history_B[place] + (planted[1] == item)


@settings(max_examples=40)
@given(rows=ROWS, planted=row_at(st.integers(3, END)))
def test_drawn_negatives_do_not_move_either(rows: list[Row], planted: Row, groups: dict[str, dict[str, Any]]) -> None:
    config = FeatureConfig(kind="as_of", history=0.3, negatives=2, **groups["file"])
    unlabelled = [[row[:4] for row in some] for some in (rows, [*rows, planted])]
    columns = "user item behavior time"
    before, after = (feature_set(cut_at(some, VALID, TEST, columns), config, None, seed=0) for some in unlabelled)
    assume(before.report["boundary"] == after.report["boundary"] < planted[3])
    old = up_to(before, planted[3] - 1)
    assert up_to(after, planted[3] - 1) == old


def test_the_log_counts_what_the_tests_think() -> None:
    parts = cut_at(BASE, VALID, TEST)
    assert len(counted(concat(parts.train, parts.valid, parts.test))) == sum(row[4] for row in BASE)
