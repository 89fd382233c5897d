import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import TypeAdapter
from tests.logs import FUNNEL, pairs_of, prepared, raw, rows_of

from macrorec.data.log import Split
from macrorec.data.prepare import PrepareConfig, Prepared, prepare
from macrorec.data.split import (
    Cut,
    Given,
    LeaveLastOne,
    LeaveOneOut,
    Nothing,
    RandomFraction,
    SplitConfig,
    TimeQuantile,
    split,
)
from macrorec.errors import ConfigError, DataError

TIMED = "user item behavior time"
GRID = [(f"u{u}", i) for u in range(10) for i in range(10)]
"""Ten users with the same ten items."""


def by(test: Cut, valid: Cut | None = None, **config: object) -> SplitConfig:
    config.setdefault("vocabulary", "all")
    return SplitConfig(test=test, valid=valid or Nothing(), **config)  # type: ignore[arg-type]


def supplied(**parts: list[tuple[str, str]]) -> Prepared:
    frames = {name: raw("user item", *rows) for name, rows in parts.items()}
    return prepare(frames, (), PrepareConfig(dedupe="none"))


def lengths(parts: Split) -> tuple[int, int, int]:
    return len(parts.train), len(parts.valid), len(parts.test)


# --- leave last one


def test_leave_last_one_takes_the_last_target_event_for_test_and_the_one_before_for_valid() -> None:
    rows = [("u", "c", 3), ("u", "a", 1), ("u", "b", 2), ("v", "a", 9), ("v", "b", 8), ("v", "c", 7)]
    parts = split(prepared("user item time", *rows), by(LeaveLastOne(), LeaveLastOne()), seed=0)
    assert pairs_of(parts.test) == [("u", "c"), ("v", "a")]
    assert pairs_of(parts.valid) == [("u", "b"), ("v", "b")]
    assert pairs_of(parts.train) == [("u", "a"), ("v", "c")]


def test_leave_last_one_breaks_ties_of_time_by_original_row() -> None:
    rows = [("u", "b", 5), ("u", "c", 5), ("u", "a", 5), ("u", "z", 4)]
    parts = split(prepared("user item time", *rows), by(LeaveLastOne(), LeaveLastOne()), seed=0)
    assert pairs_of(parts.test) == [("u", "a")]
    assert pairs_of(parts.valid) == [("u", "c")]


def test_users_with_too_few_target_events_stay_in_train() -> None:
    rows = [("u", "a", "buy", 1), ("u", "b", "view", 2), ("v", "a", "buy", 1), ("v", "b", "buy", 2)]
    log = prepared(TIMED, *rows, behaviors=FUNNEL)
    assert rows_of(split(log, by(LeaveLastOne()), seed=0).test) == [("v", "b", "buy", 2)]
    assert len(split(log, by(LeaveLastOne(at_least=1)), seed=0).test) == 2
    with pytest.raises(DataError, match=r"test without 'buy' events: .* \(the last of each user with 3 or more\)"):
        split(log, by(LeaveLastOne(at_least=3)), seed=0)


DRIFT = [
    ("u", "a", "buy", 1), ("u", "b", "buy", 2), ("u", "p", "view", 2), ("u", "q", "view", 3),
    ("u", "c", "buy", 4), ("u", "r", "view", 4), ("u", "s", "view", 5),
    ("v", "a", "buy", 1), ("v", "z", "view", 9),
]  # fmt: skip


def test_later_events_of_other_behaviours_stay_unless_asked() -> None:
    log = prepared(TIMED, *DRIFT, behaviors=FUNNEL)
    assert lengths(split(log, by(LeaveLastOne()), seed=0)) == (8, 0, 1)


def test_drop_later_drops_what_comes_after_the_test_event() -> None:
    parts = split(prepared(TIMED, *DRIFT, behaviors=FUNNEL), by(LeaveLastOne(drop_later=True)), seed=0)
    assert rows_of(parts.test) == [("u", "c", "buy", 4)]
    assert [i for u, i, b, _ in rows_of(parts.train) if u == "u" and b == "view"] == ["p", "q"]
    assert ("v", "z", "view", 9) in rows_of(parts.train)
    assert parts.report[2]["dropped"] == 2


def test_drop_later_moves_what_comes_after_the_valid_event_into_valid() -> None:
    cut = LeaveLastOne(drop_later=True)
    parts = split(prepared(TIMED, *DRIFT, behaviors=FUNNEL), by(cut, cut), seed=0)
    assert rows_of(parts.valid) == [("u", "b", "buy", 2), ("u", "p", "view", 2), ("u", "q", "view", 3)]
    assert rows_of(parts.train) == [("u", "a", "buy", 1), ("v", "a", "buy", 1), ("v", "z", "view", 9)]


def test_time_based_cuts_need_times() -> None:
    for cut in (LeaveLastOne(), TimeQuantile(quantile=0.5)):
        with pytest.raises(DataError, match=f"the cut '{cut.kind}' needs times, and the log has no column 'timestamp'"):
            split(prepared("user item", *GRID), by(cut), seed=0)


# --- random


def test_leave_one_out_takes_one_of_each_user() -> None:
    parts = split(prepared("user item", *GRID, ("w", 0)), by(LeaveOneOut(), LeaveOneOut()), seed=0)
    assert lengths(parts) == (81, 10, 10)
    assert np.bincount(parts.test.user).tolist() == [1] * 10
    assert sorted(pairs_of(parts.train) + pairs_of(parts.valid) + pairs_of(parts.test)) == [*GRID, ("w", 0)]


def test_leave_one_out_is_uniform_over_a_users_events() -> None:
    log = prepared("user item", *((u, i) for u in range(4000) for i in range(4)))
    held = np.bincount(split(log, by(LeaveOneOut()), seed=5).test.item)
    assert np.abs(held - 1000).max() < 4 * np.sqrt(4000 * 0.25 * 0.75)


def test_random_cuts_follow_the_seed_and_the_parts_differ() -> None:
    log = prepared("user item", *GRID)
    cut = RandomFraction(fraction=0.3)
    one, again, other = (split(log, by(cut, cut), seed=seed) for seed in (1, 1, 2))
    assert one.digest() == again.digest()
    assert one.digest() != other.digest()
    first = split(log, by(LeaveOneOut()), seed=1).test
    second = split(Prepared({"train": log.train}, ()), by(Nothing(), LeaveOneOut()), seed=1).valid
    assert pairs_of(first) != pairs_of(second)


@pytest.mark.parametrize(
    "cut",
    [
        LeaveOneOut(),
        RandomFraction(fraction=0.3),
        RandomFraction(fraction=0.3, per_user=False),
        RandomFraction(fraction=0.5, users=0.3),
    ],
)
def test_random_cuts_do_not_depend_on_the_order_of_rows(cut: Cut) -> None:
    shuffled = [GRID[row] for row in np.random.default_rng(0).permutation(100)]
    digests = {split(prepared("user item", *rows), by(cut, cut), seed=3).digest() for rows in (GRID, shuffled)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("n_events", "fraction", "n_held"),
    [
        (1, 0.9, 0),
        (2, 0.9, 1),
        (2, 0.2, 0),
        (3, 0.2, 1),
        (5, 0.1, 1),
        (10, 0.25, 3),
        (10, 0.2, 2),
        (5, 0.7, 4),
        (4, 0.99, 3),
    ],
)
def test_random_fraction_per_user_rounds_half_up_and_leaves_one(n_events: int, fraction: float, n_held: int) -> None:
    rows = [("u", i) for i in range(n_events)] + [("v", i) for i in range(10)]
    parts = split(prepared("user item", *rows), by(RandomFraction(fraction=fraction)), seed=0)
    assert sum(user == "u" for user, _ in pairs_of(parts.test)) == n_held


@pytest.mark.parametrize(("users", "n"), [(0.5, 5), (0.25, 3), (0.05, 1), (0.96, 10)])
def test_random_fraction_of_a_share_of_the_users(users: float, n: int) -> None:
    """Of ten users with ten events each."""
    drawn = set()
    for seed in range(3):
        parts = split(prepared("user item", *GRID), by(RandomFraction(fraction=0.4, users=users)), seed=seed)
        held = Counter(user for user, _ in pairs_of(parts.test))
        assert len(held) == n and set(held.values()) <= {4}
        assert lengths(parts) == (100 - 4 * n, 0, 4 * n)
        drawn.add(frozenset(held))
    assert len(drawn) == (3 if n < 10 else 1), "the seed decides who"


def test_a_share_of_the_users_is_of_those_who_have_the_target() -> None:
    rows = [(f"v{n}", i, "view") for n in range(90) for i in range(3)] + [
        (f"b{n}", i, "buy") for n in range(10) for i in "abcd"
    ]
    log = prepared("user item behavior", *rows, behaviors=FUNNEL)
    parts = split(log, by(RandomFraction(fraction=0.5, users=0.3)), seed=0)
    assert lengths(parts) == (len(rows) - 6, 0, 6)
    assert len({user for user, *_ in rows_of(parts.test)}) == 3


def test_random_fraction_of_all_events() -> None:
    parts = split(prepared("user item", *GRID), by(RandomFraction(fraction=0.25, per_user=False)), seed=0)
    assert lengths(parts) == (75, 0, 25)


def test_random_cuts_take_target_events_only() -> None:
    rows = [("u", i, name) for i in range(9) for name in ("view", "buy")]
    log = prepared("user item behavior", *rows, behaviors=FUNNEL)
    parts = split(log, by(RandomFraction(fraction=0.4, per_user=False), LeaveOneOut()), seed=0)
    assert lengths(parts) == (13, 1, 4)
    assert {name for _, _, name in rows_of(parts.test) + rows_of(parts.valid)} == {"buy"}


# --- time quantile


def test_time_quantile_takes_all_behaviours_after_the_boundary_and_keeps_ties_together() -> None:
    rows = [("u", i, "buy", time) for i, time in enumerate([1, 2, 3, 3, 3, 4, 5, 6, 7, 8])]
    views = [("u", 0, "view", 3), ("u", 1, "view", 4), ("v", 2, "view", 99)]
    log = prepared(TIMED, *rows, *views, behaviors=FUNNEL)
    parts = split(log, by(TimeQuantile(quantile=0.4)), seed=0)
    assert sorted(parts.train.time) == [1, 2, 3, 3, 3, 3]  # type: ignore[arg-type]
    assert sorted(parts.test.time) == [4, 4, 5, 6, 7, 8, 99]  # type: ignore[arg-type]
    assert parts.report[2]["note"] == "events after time 3"


@pytest.mark.parametrize(("quantile", "n_train"), [(0.1, 1), (0.3, 3), (0.7, 7), (0.8, 8), (0.85, 9)])
def test_time_quantile_keeps_at_least_its_share(quantile: float, n_train: int) -> None:
    log = prepared("user item time", *(("u", i, i) for i in range(10)))
    assert lengths(split(log, by(TimeQuantile(quantile=quantile)), seed=0)) == (n_train, 0, 10 - n_train)


def test_time_quantile_of_equal_times_leaves_nothing_in_test() -> None:
    log = prepared("user item time", ("u", "a", 5), ("v", "b", 5))
    with pytest.raises(DataError, match=r"leaves test without 'interaction' events: .* \(events after time 5\)"):
        split(log, by(TimeQuantile(quantile=0.5)), seed=0)


# --- given parts, nothing


def test_given_parts_are_taken_as_they_are() -> None:
    log = supplied(train=[("u", "a"), ("v", "b")], valid=[("u", "b")], test=[("v", "a")])
    parts = split(log, by(Given(), Given()), seed=0)
    assert (pairs_of(parts.train), pairs_of(parts.valid), pairs_of(parts.test)) == (
        [("u", "a"), ("v", "b")],
        [("u", "b")],
        [("v", "a")],
    )


def test_valid_can_be_cut_beside_a_given_test() -> None:
    log = supplied(train=GRID, test=[("u0", "0")])  # type: ignore[arg-type]
    assert lengths(split(log, by(Given(), LeaveOneOut()), seed=0)) == (90, 10, 1)


def test_a_given_cut_needs_the_part_and_a_given_part_the_cut() -> None:
    with pytest.raises(DataError, match="the test cut is 'given', but there is no test part"):
        split(prepared("user item", *GRID), by(Given()), seed=0)
    log = supplied(train=[("u", "a"), ("u", "b")], test=[("u", "c")])
    with pytest.raises(ConfigError, match="test part is given, but the test cut is 'leave-one-out'; it must be"):
        split(log, by(LeaveOneOut()), seed=0)


def test_nothing_leaves_everything_in_train() -> None:
    assert lengths(split(prepared("user item", *GRID), by(Nothing()), seed=0)) == (100, 0, 0)


# --- vocabulary and core


UNSEEN = {
    "train": [("u", "a"), ("v", "b")],
    "valid": [("u", "b"), ("x", "a")],
    "test": [("v", "a"), ("x", "c"), ("u", "d")],
}


@pytest.mark.parametrize(
    ("vocabulary", "users", "items", "valid", "test"),
    [
        ("train", ["u", "v"], ["a", "b"], [("u", "b")], [("v", "a")]),
        ("train+valid", ["u", "v", "x"], ["a", "b"], [("u", "b"), ("x", "a")], [("v", "a")]),
        ("all", ["u", "v", "x"], ["a", "b", "c", "d"], UNSEEN["valid"], sorted(UNSEEN["test"])),
    ],
)
def test_vocabulary_policies(
    vocabulary: str, users: list[str], items: list[str], valid: list[object], test: list[object]
) -> None:
    parts = split(supplied(**UNSEEN), by(Given(), Given(), vocabulary=vocabulary), seed=0)
    assert (parts.users.ids.to_list(), parts.items.ids.to_list()) == (users, items)
    assert (pairs_of(parts.valid), pairs_of(parts.test)) == (valid, test)
    assert pairs_of(parts.train) == UNSEEN["train"]


def test_rows_lost_to_the_vocabulary_are_reported() -> None:
    report = split(supplied(**UNSEEN), by(Given(), Given(), vocabulary="train"), seed=0).report
    step = {"step": "vocabulary: train", "rows": 4, "users": 2, "items": 2, "dropped": 3}
    assert report[-4] == {**step, "note": "1 rows of valid, 2 rows of test"}
    assert [(r["step"], r["rows"]) for r in report[-3:]] == [("train", 2), ("valid", 1), ("test", 1)]


def test_a_vocabulary_that_leaves_nothing_in_test() -> None:
    log = supplied(train=[("u", "a")], test=[("u", "b")])
    with pytest.raises(DataError, match="test without 'interaction' events: all of them have a user or item outside"):
        split(log, by(Given(), vocabulary="train"), seed=0)


def test_train_sees_auxiliary_ids() -> None:
    parts = {"train": raw("user item behavior", ("u", "a", "buy"), ("v", "b", "view"))}
    parts["test"] = raw("user item behavior", ("v", "b", "buy"))
    result = split(prepare(parts, FUNNEL), by(Given(), vocabulary="train"), seed=0)
    assert pairs_of(result.test) == [("v", "b")]


def test_train_core_is_cut_after_the_test() -> None:
    """Over all events everybody is in the 2-core; without the held-out ones i3 has one user, and then u3 one item."""
    rows = [
        ("u1", "i1", 1), ("u1", "i2", 1), ("u1", "i3", 2),
        ("u2", "i1", 1), ("u2", "i2", 1), ("u2", "i1", 2),
        ("u3", "i1", 1), ("u3", "i3", 1), ("u3", "i2", 2),
    ]  # fmt: skip
    result = split(prepared("user item time", *rows), by(LeaveLastOne(), train_core=2, vocabulary="train"), seed=0)
    assert pairs_of(result.train) == [("u1", "i1"), ("u1", "i2"), ("u2", "i1"), ("u2", "i2")]
    assert pairs_of(result.test) == [("u2", "i1")]
    assert result.users.ids.to_list() == ["u1", "u2"]
    assert [(r["step"], r["dropped"]) for r in result.report[2:5]] == [
        ("test: leave-last-one", 0),
        ("train: 2-core", 2),
        ("vocabulary: train", 2),
    ]


def test_a_core_or_a_cut_that_leaves_nothing_in_train() -> None:
    with pytest.raises(DataError, match="leaves train without 'interaction' events: nothing has a 9-core"):
        split(prepared("user item", ("u", 1), ("u", 2)), by(LeaveOneOut(), train_core=9), seed=0)
    with pytest.raises(DataError, match="train without 'interaction' events: the test cut 'leave-one-out' leaves none"):
        split(prepared("user item", ("u", 1)), by(LeaveOneOut(at_least=1)), seed=0)


@pytest.mark.parametrize("cut", [LeaveLastOne(), LeaveOneOut(), TimeQuantile(quantile=0.5), Nothing()])
def test_a_log_without_target_events_is_refused(cut: Cut) -> None:
    log = prepared(TIMED, ("u", "a", "view", 1), behaviors=FUNNEL)
    with pytest.raises(DataError, match="train without 'buy' events: the prepared log has none"):
        split(log, by(cut), seed=0)


# --- configuration


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomFraction(fraction=1.0), "fraction is 1.0"),
        (lambda: RandomFraction(fraction=0.0), "fraction is 0.0"),
        (lambda: RandomFraction(fraction=float("nan")), "fraction is nan"),
        (lambda: RandomFraction(fraction=0.5, users=0.0), "users is 0.0"),
        (lambda: RandomFraction(fraction=0.5, users=1.5), "users is 1.5"),
        (lambda: RandomFraction(fraction=0.5, users=0.5, per_user=False), "it needs per_user"),
        (lambda: TimeQuantile(quantile=1.5), "quantile is 1.5"),
        (lambda: LeaveLastOne(at_least=0), "at_least is 0"),
        (lambda: LeaveOneOut(at_least=0), "at_least is 0"),
        (
            lambda: SplitConfig(test=Given(), vocabulary="some"),
            "vocabulary is 'some'; allowed are train, ",
        ),
        (lambda: SplitConfig(test=Given(), train_core=-1), "train_core is -1"),
    ],
)
def test_values_out_of_range_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    "cut",
    [
        LeaveLastOne(drop_later=True),
        LeaveOneOut(at_least=3),
        RandomFraction(fraction=0.1),
        RandomFraction(fraction=0.1, users=0.5),
        TimeQuantile(quantile=0.9),
        Given(),
        Nothing(),
    ],
)
def test_configs_survive_json_by_their_kind(cut: Cut) -> None:
    adapter = TypeAdapter(SplitConfig)
    config = SplitConfig(test=cut, valid=cut)
    assert adapter.validate_json(adapter.dump_json(config), strict=True) == config


def test_the_protocol_is_plain_and_has_the_seed() -> None:
    protocol = split(prepared("user item", *GRID), by(LeaveOneOut(), vocabulary="train"), seed=7).protocol
    assert json.loads(json.dumps(protocol)) == {
        "test": {"kind": "leave-one-out", "at_least": 2},
        "valid": {"kind": "nothing"},
        "vocabulary": "train",
        "train_core": 0,
        "seed": 7,
    }


# --- real data


def test_ml_100k_u1_after_vocabulary_train(shared_data: Path) -> None:
    parts = {
        name: pl.scan_csv(
            shared_data / "ml-100k-u1" / f"{name}.txt", separator="\t", has_header=False,
            new_columns=["user_id", "item_id", "label"],
        )
        for name in ("train", "test")
    }  # fmt: skip
    result = split(prepare(parts), by(Given(), vocabulary="train"), seed=0)
    assert (len(result.users), len(result.items)) == (943, 1650)
    assert (len(result.train), len(result.test)) == (80_000, 19_968)
    assert len(np.unique(result.test.user)) == 459
