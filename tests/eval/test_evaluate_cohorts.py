"""Three ways to count a ranking: all held-out items, those that the user had met before, and those it had not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.eval.small import BUY, FUNNEL, Table, Vectors, interactions, random_split
from tests.eval.test_metrics import RANKED, slow

from macrorec.data.audit import audit
from macrorec.data.log import Behavior, Split
from macrorec.errors import ConfigError
from macrorec.eval.compare import compare
from macrorec.eval.evaluate import evaluate, ranking_task
from macrorec.eval.ranking import EvalConfig

NAMES = tuple(f"{name}@{k}" for name in RANKED for k in (1, 5, 40))
FIVE = (
    Behavior(name="view", role="auxiliary", mask=False),
    Behavior(name="dislike", role="negative", mask=False),
    Behavior(name="wish", role="auxiliary", mask=True),
    Behavior(name="share", role="auxiliary", mask=False),
    Behavior(name="buy"),
)
KNOWN = {"train": (), "valid": ("train",), "test": ("train", "valid")}


def items_of(split, parts, user, holds):
    """Items of ``user`` in ``parts`` by behaviours that ``holds``."""
    found = set()
    for part in parts:
        log = split.part(part)
        for u, i, b in zip(log.user, log.item, log.behavior, strict=True):
            if u == user and holds(log.behaviors[b]):
                found.add(int(i))
    return found


def slow_cohorts(table, split, part, mask):
    """user id -> name -> value, by sets and loops; users of no cohort stand without its names."""
    masks = {"behaviors": lambda b: b.mask, "every": lambda b: True, "none": lambda b: False}
    per_user = {}
    for user in range(len(split.users)):
        held = items_of(split, [part], user, lambda b: b.role == "target")
        met = items_of(split, KNOWN[part], user, lambda b: b.role == "auxiliary")
        masked = items_of(split, KNOWN[part], user, masks[mask])
        ranked = sorted(set(range(len(split.items))) - masked, key=lambda i: (-table[user, i], i))
        for suffix, relevant in (("", held), (":re-engagement", held & met), (":discovery", held - met)):
            for name in NAMES if relevant else ():
                metric, _, k = name.partition("@")
                hits = [int(i in relevant) for i in ranked[: int(k)]]
                hits += [0] * (int(k) - len(hits))
                per_user.setdefault(f"u{user}", {})[name + suffix] = slow(metric, hits, len(relevant))
    return per_user


@pytest.mark.parametrize("behaviors", [FUNNEL, FIVE], ids=["three", "five"])
@pytest.mark.parametrize("part", ["valid", "test"])
@pytest.mark.parametrize("mask", ["behaviors", "every", "none"])
def test_cohorts_equal_loops_for_every_block_size(behaviors, part, mask):
    """Scores of five values, so that ties are everywhere; several held-out items per user, some of each cohort."""
    split, rng = random_split(3, 30, 25, 500, behaviors), np.random.default_rng(9)
    vectors = rng.integers(-2, 3, (30, 4)), rng.integers(-2, 3, (25, 4))
    table = vectors[0] @ vectors[1].T
    expected = slow_cohorts(table, split, part, mask)
    for model, block in ((Vectors(*vectors), None), (Table(table), None), (Table(table), 1), (Table(table), 7)):
        got = evaluate(model, split, part, EvalConfig(metrics=NAMES, mask=mask, block=block))
        assert set(got.metrics) == {name + c for name in NAMES for c in ("", ":re-engagement", ":discovery")}
        assert got.per_user.columns == ["user_id", *got.metrics]
        assert got.per_user["user_id"].to_list() == list(expected)
        for name, mean in got.metrics.items():
            values = [expected[user].get(name) for user in expected]
            assert [v is None for v in got.per_user[name]] == [v is None for v in values], name
            there = [value for value in values if value is not None]
            np.testing.assert_allclose(got.per_user[name].drop_nulls().to_numpy(), there, rtol=1e-12, err_msg=name)
            assert mean == pytest.approx(np.mean(there), rel=1e-12)
        for cohort in ("re-engagement", "discovery"):
            own = sum(f"hr@1:{cohort}" in values for values in expected.values())
            assert 0 < got.counts[f"users:{cohort}"] == own


def test_by_hand():
    """Two users, three items. u0 viewed and later bought i0; u1 viewed i0, and bought i1 and i0."""
    train = interactions(2, 3, [0, 1, 1], [0, 0, 2], [0, 0, 2], FUNNEL)
    test = interactions(2, 3, [0, 1, 1], [0, 0, 1], [2, 2, 2], FUNNEL)
    split = Split(train, *(replace_vocabs(part, train) for part in (train.take(np.arange(0)), test)), protocol={})
    model = Table(np.array([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]]))  # i1, i2, i0; u1 has bought i2: i1, i0
    got = evaluate(model, split, "test", EvalConfig(metrics=("mrr@3",)))
    assert got.metrics == {"mrr@3": (1 / 3 + 1) / 2, "mrr@3:re-engagement": (1 / 3 + 1 / 2) / 2, "mrr@3:discovery": 1.0}
    assert got.per_user.rows() == [("u0", 1 / 3, 1 / 3, None), ("u1", 1.0, 0.5, 1.0)]
    assert got.counts["users:re-engagement"] == 2
    assert got.counts["users:discovery"] == 1


def replace_vocabs(part, like):
    return replace(part, users=like.users, items=like.items)


@given(seed=st.integers(0, 10_000), mask=st.sampled_from(["behaviors", "every", "none"]))
@settings(max_examples=40, deadline=None)
def test_one_held_out_item_each_makes_all_the_mix_of_both_cohorts(seed, mask):
    split, rng = random_split(seed, 20, 12, 220), np.random.default_rng(seed)
    bought = split.test.take(split.test.behavior == split.test.target)
    one = bought.take(np.unique(bought.user, return_index=True)[1])
    split = replace(split, test=one)
    got = evaluate(Table(rng.integers(0, 4, (20, 12))), split, "test", EvalConfig(metrics=NAMES, mask=mask))
    users = {cohort: got.counts[f"users:{cohort}"] for cohort in ("re-engagement", "discovery")}
    assert sum(users.values()) == got.counts["users"]
    for name in NAMES:
        parts = [users[cohort] * got.metrics.get(f"{name}:{cohort}", 0.0) for cohort in users]
        assert sum(parts) / got.counts["users"] == pytest.approx(got.metrics[name], abs=1e-12)


def test_the_measured_part_and_later_ones_do_not_say_who_had_met_what():
    """Auxiliary rows of valid and test move nothing at valid; those of valid count at test, those of test never."""
    split, model = random_split(5), Table(np.random.default_rng(0).standard_normal((40, 30)))
    config = EvalConfig(metrics=("hr@3", "ndcg@10"))

    def everything_viewed(part):
        every = np.repeat(np.arange(40), 30), np.tile(np.arange(30), 40)
        views = interactions(40, 30, *every, np.zeros(1200), FUNNEL)
        log = split.part(part)
        rows = {
            name: np.concatenate([getattr(log, name), getattr(views, name)]) for name in ("user", "item", "behavior")
        }
        return replace(split, **{part: replace(log, **rows)})

    was = {part: evaluate(model, split, part, config) for part in ("valid", "test")}
    for part, more in (("valid", "valid"), ("valid", "test"), ("test", "test")):
        now = evaluate(model, everything_viewed(more), part, config)
        assert (now.metrics, now.counts) == (was[part].metrics, was[part].counts)
    now = evaluate(model, everything_viewed("valid"), "test", config)
    assert now.counts["users:discovery"] == 0
    assert set(now.metrics) == {"hr@3", "hr@3:re-engagement", "ndcg@10", "ndcg@10:re-engagement"}
    assert now.metrics["hr@3:re-engagement"] == now.metrics["hr@3"] == was["test"].metrics["hr@3"]


@pytest.mark.parametrize("part", ["valid", "test"])
def test_the_audit_counts_the_same_items(part):
    split = random_split(2)
    task = ranking_task(split, part, EvalConfig())
    counted = {finding.name: finding.count for finding in audit(split)}
    assert counted[f"re-engagement-{part}"] == task.reengaged_E.sum() > 0
    assert counted[f"unreachable-{part}"] == task.counts["unreachable"] > 0


def test_a_refit_has_the_same_cohorts():
    split, model = random_split(), Table(np.random.default_rng(0).standard_normal((40, 30)))
    apart = evaluate(model, split, "test", EvalConfig(metrics=NAMES))
    moved = evaluate(model, split.with_valid_in_train(), "test", EvalConfig(metrics=NAMES))
    assert apart.metrics == moved.metrics
    assert apart.per_user.equals(moved.per_user)


def test_target_and_negative_events_are_no_engagement():
    """u0 bought i0 before and disliked i1: neither makes its next purchase of them a re-engagement."""
    train = interactions(2, 3, [0, 0, 1], [0, 1, 0], [4, 1, 0], FIVE)
    test = replace_vocabs(interactions(2, 3, [0, 0], [0, 1], [4, 4], FIVE), train)
    split = Split(train, train.take(np.arange(0)), test, protocol={})
    got = evaluate(Table(np.zeros((2, 3))), split, "test", EvalConfig(metrics=("hr@1",)))
    assert (got.counts["users:re-engagement"], got.counts["users:discovery"]) == (0, 1)
    assert set(got.metrics) == {"hr@1", "hr@1:discovery"}


def test_without_auxiliary_events_there_are_no_more_names():
    alone = random_split(0, behaviors=BUY)
    model = Table(np.zeros((40, 30)))
    got = evaluate(model, alone, "test", EvalConfig(metrics=("hr@1",)))
    assert set(got.metrics) == {"hr@1"}
    assert not any(":" in name for name in got.counts)
    split = random_split()
    assert set(evaluate(model, split, "train", EvalConfig(metrics=("hr@1",))).metrics) == {"hr@1"}


def test_a_cohort_may_be_asked_for_by_name():
    split, model = random_split(), Table(np.random.default_rng(0).standard_normal((40, 30)))
    whole = evaluate(model, split, "test", EvalConfig(metrics=("HR@5",)))
    got = evaluate(model, split, "test", EvalConfig(metrics=("HR@5:Discovery",)))
    assert got.metrics == {"hr@5:discovery": whole.metrics["hr@5:discovery"]}
    assert got.per_user.columns == ["user_id", "hr@5:discovery"]
    both = evaluate(model, split, "test", EvalConfig(metrics=("hr@5:discovery", "hr@5", "HR@5")))
    assert list(both.metrics) == ["hr@5:discovery", "hr@5", "hr@5:re-engagement"]


def test_a_cohort_that_cannot_be_is_one_line():
    model, wanted = Table(np.zeros((40, 30))), EvalConfig(metrics=("hr@5:discovery",))
    split = random_split()
    bought = replace(split, train=split.train.of("target"), valid=split.valid.take(np.arange(0)))
    met = replace(split, test=split.test.take(np.arange(0)))
    views = split.train.of("auxiliary")
    met = replace(met, test=replace(views, behavior=np.full_like(views.behavior, 2)))
    for case, part, message in (
        (random_split(0, behaviors=BUY), "test", r"the log has no auxiliary behaviour \(only buy\)"),
        (bought, "test", "no event of view, cart comes before it"),
        (split, "train", "no event of view, cart comes before it"),
        (met, "test", "all of its held-out items are of the other cohort"),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            evaluate(model, case, part, wanted)
        assert str(error.value).startswith(f"metric 'hr@5:discovery' has nothing to measure in the part {part!r}: ")
    with pytest.raises(ConfigError, match="takes no cohort"):
        evaluate(model, split, "test", EvalConfig(protocol="ctr", metrics=("auc:discovery",)))


def test_a_mask_of_every_behaviour_hides_all_re_engagements():
    split, model = random_split(), Table(np.random.default_rng(1).standard_normal((40, 30)))
    got = evaluate(model, split, "test", EvalConfig(metrics=("hr@30", "recall@30"), mask="every"))
    assert got.mask == "items of a user's view, cart, buy in train and valid are masked"
    assert got.metrics["recall@30:re-engagement"] == 0
    known = evaluate(model, split, "test", EvalConfig(metrics=("hr@30",)))
    assert known.counts["unreachable"] < got.counts["unreachable"]
    assert known.metrics["hr@30:re-engagement"] > 0


def test_runs_are_compared_on_the_users_of_a_cohort():
    split, rng = random_split(), np.random.default_rng(0)
    a, b = (
        evaluate(Table(rng.standard_normal((40, 30))), split, "test", EvalConfig(metrics=("ndcg@10", "hr@2"))).per_user
        for _ in range(2)
    )
    for found in compare(a, b, n_bootstrap=500):
        (alone,) = compare(a, b, [found.metric], n_bootstrap=500)
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high), rel=1e-9)
        own = a[found.metric].is_not_null()
        assert found.users == own.sum()
        assert found.a == pytest.approx(a[found.metric].mean(), rel=1e-12)
        assert found.low <= found.difference <= found.high
    names = [found.metric for found in compare(a, b, n_bootstrap=10)]
    assert names[:4] == ["ndcg@10", "ndcg@10:re-engagement", "ndcg@10:discovery", "hr@2"]
