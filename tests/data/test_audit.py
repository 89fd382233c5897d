from pathlib import Path

import polars as pl
import pytest
from tests.logs import FUNNEL, split_of

from macrorec.data.audit import Finding, audit
from macrorec.data.log import Behavior, Split
from macrorec.data.prepare import prepare
from macrorec.data.split import Given, SplitConfig, split

TIMED = "user item behavior time"


def found(parts: Split) -> dict[str, Finding]:
    findings = audit(parts)
    assert len({finding.name for finding in findings}) == len(findings)
    for finding in findings:
        assert "\n" not in finding.text
        assert (finding.severity == "ok") == (finding.count == 0)
    return {finding.name: finding for finding in findings}


def test_a_clean_split_is_ok() -> None:
    findings = found(split_of([("u", "a"), ("v", "b")], [("u", "b"), ("v", "a")]))
    assert {finding.severity for finding in findings.values()} == {"ok"}
    assert set(findings) == {
        "overlap-train-test", "unreachable-test", "cold-users-test", "cold-items-test",
        "duplicate-rows", "duplicate-pairs", "single-event-users",
    }  # fmt: skip


def test_overlaps_count_distinct_target_pairs() -> None:
    train = [("u", "a", "buy"), ("u", "a", "buy"), ("v", "a", "buy"), ("v", "b", "view")]
    valid = [("u", "a", "buy"), ("u", "b", "buy")]
    test = [("u", "a", "buy"), ("u", "b", "buy"), ("v", "b", "buy"), ("v", "a", "buy"), ("v", "a", "buy")]
    findings = found(split_of(train, test, valid, columns="user item behavior", behaviors=FUNNEL))
    assert (findings["overlap-train-valid"].count, findings["overlap-train-valid"].share) == (1, 0.5)
    assert (findings["overlap-train-test"].count, findings["overlap-train-test"].share) == (2, 0.5)
    assert (findings["overlap-valid-test"].count, findings["overlap-valid-test"].share) == (2, 0.5)
    assert findings["overlap-train-test"].severity == "warning"
    assert findings["overlap-train-test"].text == "2 of 4 (50.0 %) target pairs of test also stand in train"


def test_future_in_train_is_counted_per_user_and_for_all() -> None:
    train = [
        ("u", "a", "buy", 1), ("u", "b", "buy", 5), ("u", "c", "view", 6), ("v", "a", "buy", 5), ("v", "b", "buy", 9),
        ("w", "a", "buy", 99), ("u", "d", "buy", 3),
    ]  # fmt: skip
    test = [("u", "x", "buy", 5), ("u", "y", "buy", 7), ("v", "x", "buy", 8), ("u", "z", "view", 0)]
    findings = found(split_of(train, test, columns=TIMED, behaviors=FUNNEL))
    assert (findings["future-user-test"].count, findings["future-user-test"].share) == (2, 2 / 7)
    assert (findings["future-test"].count, findings["future-test"].share) == (3, 3 / 7)


def test_future_is_checked_for_valid_too_and_not_without_times() -> None:
    findings = found(split_of([("u", "a", 4)], [("u", "c", 6)], [("u", "b", 3)], columns="user item time"))
    assert (findings["future-user-valid"].count, findings["future-user-test"].count) == (1, 0)
    assert not any("future" in name for name in found(split_of([("u", "a")], [("u", "b")])))


MASKED = (
    Behavior(name="view", role="auxiliary"),
    Behavior(name="cart", role="auxiliary", mask=False),
    Behavior(name="buy"),
)


def test_unreachable_and_re_engagement() -> None:
    train = [("u", "a", "view"), ("u", "b", "cart"), ("u", "c", "buy"), ("v", "d", "view"), ("v", "d", "cart")]
    test = [("u", "a", "buy"), ("u", "b", "buy"), ("u", "c", "buy"), ("v", "d", "buy"), ("v", "a", "buy")]
    findings = found(split_of(train, test, columns="user item behavior", behaviors=MASKED))
    assert (findings["unreachable-test"].count, findings["unreachable-test"].share) == (3, 0.6)
    assert findings["unreachable-test"].severity == "error"
    assert findings["re-engagement-test:view"].count == 2
    assert findings["re-engagement-test:cart"].count == 2
    assert (findings["re-engagement-test"].count, findings["re-engagement-test"].share) == (3, 0.6)
    assert findings["re-engagement-test"].severity == "info"


def test_valid_events_mask_at_test_but_not_at_valid() -> None:
    findings = found(split_of([("u", "a")], [("u", "b"), ("u", "c")], [("u", "b")]))
    assert (findings["unreachable-valid"].count, findings["unreachable-test"].count) == (0, 1)


def test_a_few_unreachable_positives_are_a_warning() -> None:
    train = [(user, "a") for user in range(101)]
    test = [(user, "b") for user in range(1, 101)] + [(0, "a")]
    findings = found(split_of([*train, ("x", "b")], test))
    assert (findings["unreachable-test"].count, findings["unreachable-test"].severity) == (1, "warning")


def test_labels_of_zero_are_no_positives() -> None:
    train, test = [("u", "a", 1.0), ("u", "b", 0.0)], [("u", "a", 1.0), ("u", "b", 0.0), ("u", "c", 1.0)]
    findings = found(split_of(train, test, columns="user item label"))
    assert (findings["unreachable-test"].count, findings["unreachable-test"].share) == (1, 0.5)


def test_cold_users_and_items() -> None:
    train = [("u", "a", "buy"), ("v", "b", "view")]
    test = [("u", "b", "buy"), ("v", "c", "buy"), ("w", "c", "buy"), ("w", "d", "buy")]
    findings = found(split_of(train, test, columns="user item behavior", behaviors=FUNNEL))
    assert (findings["cold-users-test"].count, findings["cold-users-test"].share) == (1, 1 / 3)
    assert (findings["cold-items-test"].count, findings["cold-items-test"].share) == (2, 2 / 3)


def test_duplicates_are_counted_within_parts() -> None:
    train = [
        ("u", "a", "buy", 1),
        ("u", "a", "buy", 1),
        ("u", "a", "buy", 2),
        ("u", "a", "view", 1),
        ("v", "a", "buy", 1),
    ]
    test = [("u", "a", "buy", 1), ("v", "b", "buy", 3), ("v", "b", "buy", 3)]
    findings = found(split_of(train, test, columns=TIMED, behaviors=FUNNEL))
    assert (findings["duplicate-rows"].count, findings["duplicate-rows"].share) == (2, 0.25)
    assert (findings["duplicate-pairs"].count, findings["duplicate-pairs"].share) == (3, 0.375)


def test_users_with_one_event_in_all_parts_together() -> None:
    findings = found(split_of([("u", "a"), ("v", "a"), ("v", "b")], [("w", "a"), ("u", "b")]))
    assert (findings["single-event-users"].count, findings["single-event-users"].share) == (1, 1 / 3)


NOW = 1_700_000_000


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([NOW, NOW + 1, NOW + 2, NOW + 3], {}),
        ([0, -5, NOW, NOW + 1, NOW + 2], {"time-not-positive": 2}),
        ([NOW, NOW, NOW], {"time-constant": 3}),
        ([0, 0, 0], {"time-constant": 3, "time-not-positive": 3}),
        ([NOW, NOW + 1, NOW + 2, NOW * 1000, (NOW + 1) * 1000], {"time-mixed-units": 2}),
        ([NOW * 1000, (NOW + 1) * 1000, (NOW + 2) * 1000, NOW], {"time-mixed-units": 1}),
        ([NOW, NOW + 1, NOW + 2, NOW + 21 * 31_557_600], {"time-far-future": 1}),
        ([NOW, NOW + 1, NOW + 2, NOW + 19 * 31_557_600], {}),
        ([NOW * 1000, NOW * 1000 + 1, NOW * 1000 + 2, (NOW + 21 * 31_557_600) * 1000], {"time-far-future": 1}),
        ([NOW * 1000, NOW * 1000 + 1, NOW * 1000 + 2, (NOW + 19 * 31_557_600) * 1000], {}),
        ([1, 2, 3, 5000], {}),
    ],
)
def test_time_anomalies(times: list[int], expected: dict[str, int]) -> None:
    rows = [("u", f"i{n}", time) for n, time in enumerate(times)]
    findings = found(split_of(rows, columns="user item time"))
    assert {name: f.count for name, f in findings.items() if name.startswith("time") and f.count} == expected


def test_labels() -> None:
    train = [("u", "a", 1.0), ("u", "b", 1.0)]
    test = [("u", "c", 1.0), ("u", "d", 0.0), ("v", "a", 1.0), ("v", "b", 1.0), ("w", "a", 0.0)]
    findings = found(split_of(train, test, [("u", "e", 3.0), ("u", "f", 1.0)], columns="user item label"))
    assert {name: f.count for name, f in findings.items() if name.startswith("label")} == {
        "label-graded-train": 0,
        "label-one-class-train": 2,
        "label-graded-valid": 1,
        "label-one-class-valid": 0,
        "label-graded-test": 0,
        "label-one-class-test": 0,
        "label-one-class-users-test": 2,
    }
    assert findings["label-one-class-users-test"].share == 2 / 3


def test_a_behaviour_name_with_braces() -> None:
    odd = (Behavior(name="{0}%s\n", role="auxiliary", mask=False), Behavior(name="buy"))
    findings = found(
        split_of([("u", "a", "{0}%s\n")], [("u", "a", "buy")], columns="user item behavior", behaviors=odd)
    )
    assert findings["re-engagement-test:{0}%s\n"].count == 1


def test_taobao_buyers_had_viewed_what_they_buy(shared_data: Path) -> None:
    folder = shared_data / "taobao"
    behaviors = (*FUNNEL, Behavior(name="cart", role="auxiliary", mask=False))
    parts = {name: pl.scan_parquet(folder / f"{name}.parquet") for name in ("train", "test")}
    findings = found(split(prepare(parts, behaviors), SplitConfig(test=Given()), seed=0))
    assert round(findings["re-engagement-test:view"].share, 3) == 0.797
    assert findings["unreachable-test"].count == 0
    assert findings["overlap-train-test"].count == 0
    masking = (Behavior(name="view", role="auxiliary"), *behaviors[1:])
    findings = found(split(prepare(parts, masking), SplitConfig(test=Given()), seed=0))
    assert round(findings["unreachable-test"].share, 3) == 0.797
