import math
from dataclasses import astuple

import numpy as np
import polars as pl
import pytest

from macrorec.errors import ConfigError, DataError
from macrorec.eval import compare as module
from macrorec.eval.compare import compare, paired_bootstrap


def frame(values, ids=None, **more):
    return pl.DataFrame({"user_id": ids or [f"u{n}" for n in range(len(values))], "hr@1": values, **more})


def test_resamples_equal_a_loop_over_drawn_users(monkeypatch):
    """Draw by draw from the same stream; small chunks change nothing."""
    rng = np.random.default_rng(0)
    difference_U, weight_U = rng.standard_normal(23), rng.integers(1, 9, 23).astype(float)
    stream = np.random.default_rng(7)
    expected = []
    for _ in range(50):
        drawn = stream.integers(23, size=23, dtype=np.int32)
        expected.append(sum(difference_U[u] * weight_U[u] for u in drawn) / sum(weight_U[u] for u in drawn))
    np.testing.assert_allclose(paired_bootstrap(difference_U, weight_U, 50, 7), expected, rtol=1e-12)
    monkeypatch.setattr(module, "CHUNK_DRAWS", 100)
    np.testing.assert_allclose(paired_bootstrap(difference_U, weight_U, 50, 7), expected, rtol=1e-12)


def test_interval_is_that_of_normal_theory():
    """Many users: the interval is mean +- 1.96 deviations / sqrt(users), and p that of the z test."""
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 2000)) + np.array([[0.07], [0.0]])
    (got,) = compare(frame(a), frame(b), n_bootstrap=20_000, seed=2)
    deviation = (a - b).std() / math.sqrt(2000)
    assert got.difference == pytest.approx((a - b).mean(), rel=1e-12)
    assert got.low == pytest.approx(got.difference - 1.96 * deviation, abs=0.05 * deviation)
    assert got.high == pytest.approx(got.difference + 1.96 * deviation, abs=0.05 * deviation)
    p = math.erfc(got.difference / deviation / math.sqrt(2))
    assert got.p == pytest.approx(p, abs=4 * math.sqrt(p / 20_000))
    assert got.share_above == pytest.approx(1 - p / 2, abs=0.005)


def test_users_are_matched_by_id_and_counted():
    a = frame([1.0, 0.0, 1.0, None], ["x", "y", "z", "n"])
    b = frame([0.5, 1.0, 0.0, 0.0], ["z", "w", "x", "n"])
    (got,) = compare(a, b, ["hr@1"], n_bootstrap=200)
    assert (got.a, got.b, got.difference) == (1.0, 0.25, 0.75)
    assert (got.users, got.users_only_a, got.users_only_b) == (2, 1, 2)
    (swapped,) = compare(b, a, n_bootstrap=200)
    assert (swapped.difference, swapped.low, swapped.high) == (-got.difference, -got.high, -got.low)


def test_integer_and_text_ids_of_one_log_match():
    (got,) = compare(frame([1.0, 0.0], [7, 8]), frame([1.0, 1.0], ["8", "7"]), n_bootstrap=10)
    assert (got.users, got.difference) == (2, -0.5)


def test_equal_runs_are_not_different():
    (got,) = compare(frame([0.1, 0.7, 0.3]), frame([0.1, 0.7, 0.3]), n_bootstrap=100)
    assert (got.difference, got.low, got.high, got.share_above, got.p) == (0, 0, 0, 0, 1)


def test_gauc_is_weighted_by_impressions():
    a = frame([1.0, 0.0, 1.0], gauc=[0.9, 0.5, None], impressions=[30, 10, 4])
    b = frame([1.0, 0.0, 1.0], gauc=[0.5, 0.5, None], impressions=[30, 10, 4])
    by_name = {row.metric: row for row in compare(a, b, n_bootstrap=50)}
    assert by_name.keys() == {"hr@1", "gauc"}
    assert by_name["gauc"].a == pytest.approx((0.9 * 30 + 0.5 * 10) / 40)
    assert by_name["gauc"].difference == pytest.approx(0.3)
    assert by_name["gauc"].users == 2


def test_seeds_decide():
    a, b = frame(np.random.default_rng(3).random(50)), frame(np.random.default_rng(4).random(50))
    one, same, other = (compare(a, b, n_bootstrap=100, seed=seed)[0] for seed in (1, 1, 2))
    assert astuple(one) == astuple(same)
    assert one.low != other.low


def test_what_cannot_be_compared():
    a = frame([1.0, 0.0])
    for call, error, message in (
        (lambda: compare(a, a, ["ndcg@5"]), ConfigError, "'ndcg@5' is not in both runs; they share hr@1"),
        (lambda: compare(a, a.rename({"hr@1": "mrr@1"})), ConfigError, "share no metric"),
        (lambda: compare(a, a, n_bootstrap=0), ConfigError, "at least 1, got 0"),
        (lambda: compare(a, frame([1.0], ["other"])), DataError, "no common user"),
        (lambda: compare(a, frame([1.0, 1.0], ["u0", "u0"])), DataError, "each user once"),
    ):
        with pytest.raises(error, match=message):
            call()
