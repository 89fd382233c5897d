import math
from dataclasses import replace

import numpy as np
import pytest
from tests.eval.small import Table, Vectors, random_split
from tests.eval.test_metrics import RANKED, slow

from macrorec.errors import ConfigError, DataError
from macrorec.eval.evaluate import Evaluation, evaluate, measure, ranking_task
from macrorec.eval.ranking import EvalConfig

NAMES = tuple(f"{name}@{k}" for name in RANKED for k in (1, 5, 40))


def slow_evaluation(table, split, part, mask):
    """Sets and loops: user id -> metric -> value, and how many relevant items a mask hides."""
    target = split.train.target
    earlier = [split.train, split.valid] if part == "test" else [split.train]
    per_user, unreachable = {}, 0
    for user in range(len(split.users)):
        rows = split.part(part)
        relevant = {i for u, i, b in zip(rows.user, rows.item, rows.behavior, strict=True) if u == user and b == target}
        known = set()
        for log in earlier if mask == "behaviors" else []:
            for u, i, b in zip(log.user, log.item, log.behavior, strict=True):
                if u == user and log.behaviors[b].mask:
                    known.add(i)
        if not relevant:
            continue
        unreachable += len(relevant & known)
        ranked = sorted((i for i in range(len(split.items)) if i not in known), key=lambda i: (-table[user, i], i))
        per_user[f"u{user}"] = {}
        for name in NAMES:
            metric, _, k = name.partition("@")
            hits = [int(i in relevant) for i in ranked[: int(k)]]
            hits += [0] * (int(k) - len(hits))
            per_user[f"u{user}"][name] = slow(metric, hits, len(relevant))
    return per_user, unreachable


@pytest.mark.parametrize("part", ["valid", "test"])
@pytest.mark.parametrize("mask", ["behaviors", "none"])
@pytest.mark.parametrize("tower", [False, True])
def test_evaluation_equals_loops_for_every_block_size(part, mask, tower):
    """Integer scores, so that ties are everywhere; k of 40 exceeds the 30 items."""
    split = random_split()
    rng = np.random.default_rng(9)
    vectors = rng.integers(-2, 3, (40, 4)), rng.integers(-2, 3, (30, 4))
    table = vectors[0] @ vectors[1].T
    expected, unreachable = slow_evaluation(table, split, part, mask)
    for block in (None, 1, 7, 64):
        model = Vectors(*vectors) if tower else Table(table)
        got = evaluate(model, split, part, EvalConfig(metrics=NAMES, mask=mask, block=block))
        assert got.per_user["user_id"].to_list() == list(expected)
        for name in NAMES:
            values = [expected[user][name] for user in expected]
            np.testing.assert_allclose(got.per_user[name].to_numpy(), values, rtol=1e-12, err_msg=name)
            assert got.metrics[name] == pytest.approx(np.mean(values), rel=1e-12)
        assert got.counts["users"] == len(expected)
        assert got.counts["users_left_out"] == 40 - len(expected)
        assert got.counts["unreachable"] == unreachable
        assert got.seconds > 0


def test_metrics_are_the_same_bits_for_every_block_size():
    """With scores that round, too."""
    split, rng = random_split(1, 200, 90, 6000), np.random.default_rng(3)
    users_UD, items_ID = rng.standard_normal((200, 17)), rng.standard_normal((90, 17))
    for model in (Vectors(users_UD, items_ID), Table(users_UD @ items_ID.T)):
        first, *others = (
            evaluate(model, split, "test", EvalConfig(metrics=NAMES, block=block)) for block in (None, 1, 7, 64)
        )
        for other in others:
            assert other.metrics == first.metrics
            assert other.per_user.equals(first.per_user)


def test_mask_policy_is_said_in_words_and_counted():
    split = random_split()
    model = Table(np.zeros((40, 30)))
    words = {part: evaluate(model, split, part, EvalConfig()).mask for part in ("train", "valid", "test")}
    assert words == {
        "train": "nothing is masked",
        "valid": "items of a user's cart, buy in train are masked",
        "test": "items of a user's cart, buy in train and valid are masked",
    }
    assert evaluate(model, split, "test", EvalConfig(mask="none")).mask == "nothing is masked"
    assert (
        evaluate(model, split.with_valid_in_train(), "test", EvalConfig()).mask
        == "items of a user's cart, buy in train are masked"
    )


def test_refit_masks_the_same_items():
    """Valid rows moved into train change neither what is masked nor any metric."""
    split, model = random_split(), Table(np.random.default_rng(0).standard_normal((40, 30)))
    apart = evaluate(model, split, "test", EvalConfig(metrics=NAMES))
    moved = evaluate(model, split.with_valid_in_train(), "test", EvalConfig(metrics=NAMES))
    assert apart.metrics == moved.metrics
    assert apart.counts == moved.counts


def test_a_task_is_measured_as_often_as_needed():
    split, config = random_split(), EvalConfig(metrics=("Recall@5",))
    task = ranking_task(split, "valid", config)
    model = Table(np.random.default_rng(0).standard_normal((40, 30)))
    assert measure(model, task, config).metrics == evaluate(model, split, "valid", config).metrics
    assert measure(model, task, config).metrics.keys() == {"recall@5", "recall@5:re-engagement", "recall@5:discovery"}


def test_wrong_requests_are_one_line():
    split, model = random_split(), Table(np.zeros((40, 30)))
    nothing = replace(split, test=split.test.take(np.arange(0)))
    for config, message in (
        (EvalConfig(metrics=("auc",)), "does not belong to the protocol 'ranking'"),
        (EvalConfig(metrics=()), "name at least one metric"),
        (EvalConfig(metrics=("hits@5",)), "unknown metric"),
        (EvalConfig(protocol="ctr", metrics=("recall@5",)), "it measures auc, gauc, logloss, calibration"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(model, split, "test", config)
    for protocol, name in (("ranking", "hr@5"), ("links", "auc_roc"), ("ctr", "auc")):
        with pytest.raises(DataError, match="test"):
            evaluate(model, nothing, "test", EvalConfig(protocol=protocol, metrics=(name,)))


def test_an_evaluation_is_plain_values():
    got = evaluate(Table(np.zeros((40, 30))), random_split(), "test", EvalConfig())
    assert isinstance(got, Evaluation)
    assert all(type(value) is float and math.isfinite(value) for value in got.metrics.values())
    assert all(type(value) is int for value in got.counts.values())
