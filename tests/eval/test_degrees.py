"""Every ranking metric by train degree: of users, and of held-out items."""

from dataclasses import replace

import numpy as np
import pytest
from tests.eval.small import BUY, FUNNEL, Table, interactions, random_split
from tests.eval.test_evaluate_cohorts import NAMES, items_of
from tests.eval.test_metrics import slow

from macrorec.data.log import Split
from macrorec.eval.degrees import DEGREES, train_degrees
from macrorec.eval.evaluate import evaluate, measure, ranking_task
from macrorec.eval.ranking import EvalConfig

RANGES = {"0": (0, 0), "1-4": (1, 4), "5-9": (5, 9), "10-19": (10, 19), "20-49": (20, 49), "50-99": (50, 99)}
COHORTS = ("", ":re-engagement", ":discovery")


def slow_breakdown(table, split, part):
    """(side, range) -> (users, relevant, {name: mean}), by sets and loops."""
    known = {"valid": ("train",), "test": ("train", "valid")}[part]
    bought = [items_of(split, ["train"], user, lambda b: b.role == "target") for user in range(len(split.users))]
    degree = {
        "user": [len(items) for items in bought],
        "item": [sum(i in items for items in bought) for i in range(len(split.items))],
    }
    found = {}
    for side in ("user", "item"):
        for name, (low, high) in RANGES.items():
            users, relevant, values = 0, 0, {}
            for user in range(len(split.users)):
                held = items_of(split, [part], user, lambda b: b.role == "target")
                if side == "user" and not low <= degree["user"][user] <= high:
                    continue
                if side == "item":
                    held = {i for i in held if low <= degree["item"][i] <= high}
                users, relevant = users + bool(held), relevant + len(held)
                met = items_of(split, known, user, lambda b: b.role == "auxiliary")
                masked = items_of(split, known, user, lambda b: b.mask)
                ranked = sorted(set(range(len(split.items))) - masked, key=lambda i: (-table[user, i], i))
                for way, own in zip(COHORTS, (held, held & met, held - met), strict=True):
                    for metric in NAMES if own else ():
                        kind, _, k = metric.partition("@")
                        hits = [int(i in own) for i in ranked[: int(k)]]
                        hits += [0] * (int(k) - len(hits))
                        values.setdefault(metric + way, []).append(slow(kind, hits, len(own)))
            if users:
                found[side, name] = users, relevant, {key: np.mean(own) for key, own in values.items()}
    return found


@pytest.mark.parametrize("part", ["valid", "test"])
def test_the_breakdown_equals_loops(part):
    """Degrees from 0 to some 30, several held-out items per user, scores full of ties, cohorts beside the whole."""
    split, rng = random_split(3, 30, 25, 1000), np.random.default_rng(9)
    popular = split.train.take(split.train.item % 3 > 0)
    split = replace(split, train=popular)
    table = rng.integers(-2, 3, (30, 25))
    got = evaluate(Table(table), split, part, EvalConfig(metrics=NAMES)).degrees
    expected = slow_breakdown(table, split, part)
    assert {("user", "1-4"), ("item", "0"), ("item", "1-4"), ("item", "5-9")} <= expected.keys()
    assert got.select("side", "degree").rows() == list(expected)
    assert got.columns[4:] == [name + way for name in NAMES for way in COHORTS]
    for row, (users, relevant, means) in zip(got.iter_rows(named=True), expected.values(), strict=True):
        assert (row["users"], row["relevant"]) == (users, relevant)
        for name in got.columns[4:]:
            assert row[name] == (pytest.approx(means[name], rel=1e-12) if name in means else None), (row, name)


def test_by_hand():
    """u0 has bought one item, u1 five, one of them twice; i5 is known of u1 alone, i6 of nobody."""
    train = interactions(2, 7, [0, 1, 1, 1, 1, 1, 1], [0, 0, 1, 2, 3, 5, 5])
    held = interactions(2, 7, [0, 0, 1], [5, 6, 4])
    split = Split(
        train, *(replace(p, users=train.users, items=train.items) for p in (held.take(np.arange(0)), held)), {}
    )
    assert [degree.tolist() for degree in train_degrees(train)] == [[1, 5], [2, 1, 1, 1, 0, 1, 0]]
    got = evaluate(Table(np.tile([0, 0, 0, 0, 1.0, 3.0, 2.0], (2, 1))), split, "test", EvalConfig(metrics=("mrr@3",)))
    assert got.degrees.rows() == [
        ("user", "1-4", 1, 2, 1.0),  # u0: i5, i6, i4
        ("user", "5-9", 1, 1, 1 / 2),  # u1, who has i5: i6, i4
        ("item", "0", 2, 2, (1 / 2 + 1 / 2) / 2),  # u0's i6 and u1's i4
        ("item", "1-4", 1, 1, 1.0),  # u0's i5
    ]


def test_all_users_are_in_one_range_and_so_are_all_pairs():
    split = random_split(1, behaviors=BUY)
    got = evaluate(Table(np.random.default_rng(0).random((40, 30))), split, "test", EvalConfig(metrics=("ndcg@5",)))
    users = got.degrees.filter(side="user")
    assert users["users"].sum() == got.counts["users"]
    mean = (users["users"] * users["ndcg@5"]).sum() / users["users"].sum()
    assert mean == pytest.approx(got.metrics["ndcg@5"], rel=1e-12)
    assert [side["relevant"].sum() for _, side in got.degrees.group_by("side")] == [got.counts["relevant"]] * 2


def test_degrees_are_those_of_train_alone():
    """Valid counts once it has joined train; auxiliary events never do."""
    split = random_split(2)
    users, items = train_degrees(split.train)
    bought = split.train.of("target")
    assert users.sum() == items.sum() == len(bought.pairs()) < len(bought) < len(split.train)
    joined = train_degrees(split.with_valid_in_train().train)
    assert (joined[0] >= users).all() and joined[0].sum() > users.sum()
    task = ranking_task(split, "test", EvalConfig())
    np.testing.assert_array_equal(task.degree_B, users[task.users_B])
    np.testing.assert_array_equal(task.degree_E, items[task.relevant_E])


def test_a_validation_does_without():
    split, config = random_split(), EvalConfig(metrics=("hr@5",))
    model = Table(np.zeros((40, 30)))
    assert measure(model, ranking_task(split, "valid", config), config).degrees is None
    assert DEGREES[0] == 0 and list(DEGREES) == sorted(DEGREES)


def test_a_log_of_several_behaviours_counts_purchases():
    train = interactions(1, 3, [0, 0, 0], [0, 1, 2], [0, 1, 2], FUNNEL)
    assert [degree.tolist() for degree in train_degrees(train)] == [[1], [0, 0, 1]]
