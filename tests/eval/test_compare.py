import math
from dataclasses import astuple
from itertools import product

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from macrorec.errors import ConfigError, DataError
from macrorec.eval import compare as module
from macrorec.eval.compare import compare, compare_auc, mean_per_user, paired_bootstrap


def frame(values, ids=None, **more):
    return pl.DataFrame({"user_id": ids or [f"u{n}" for n in range(len(values))], "hr@1": values, **more})


def test_resamples_equal_a_loop_over_drawn_users(monkeypatch):
    """Draw by draw from the same stream; small chunks change nothing."""
    rng = np.random.default_rng(0)
    difference_UM, weight_U = rng.standard_normal((23, 2)), rng.integers(1, 9, 23).astype(float)
    stream = np.random.default_rng(7)
    expected = []
    for _ in range(50):
        drawn = stream.integers(23, size=23, dtype=np.int32)
        expected.append(sum(difference_UM[u] * weight_U[u] for u in drawn) / sum(weight_U[u] for u in drawn))
    np.testing.assert_allclose(paired_bootstrap(difference_UM, weight_U, 50, 7), expected, rtol=1e-12)
    monkeypatch.setattr(module, "CHUNK_DRAWS", 100)
    np.testing.assert_allclose(paired_bootstrap(difference_UM, weight_U, 50, 7), expected, rtol=1e-12)


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


# --- AUC over all impressions, groups of runs ------------------------------------------------------------------------


def clicks(seed, n_users=12, n=150, shift=0.0):
    """The same impressions for every seed, with repeats of a pair and ties of scores; logits of the seed's own."""
    same, own = np.random.default_rng(0), np.random.default_rng(seed)
    label = same.integers(0, 2, n).astype(np.float32)
    return pl.DataFrame(
        {
            "user_id": [f"u{u}" for u in same.integers(n_users, size=n)],
            "item_id": same.integers(9, size=n),
            "label": label,
            "logit": np.round(shift * label + own.standard_normal(n), 1),
            "user_history": same.integers(0, 3, n),
            "item_history": same.integers(0, 3, n),
        }
    )


def slow_auc(frame, drawn):
    """scikit-learn on the impressions of the drawn users, one after the other; NaN without both labels."""
    rows = [row for user in drawn for row in frame.filter(pl.col("user_id") == user).select("label", "logit").rows()]
    labels, logits = zip(*rows, strict=True) if rows else ((), ())
    return roc_auc_score(labels, logits) if len(set(labels)) == 2 else np.nan


def test_auc_of_all_resamples_of_three_users_is_scikit_learns():
    """All 27 draws: user a has one class alone, so that draws of a only have no AUC."""
    frame = pl.DataFrame(
        {"user_id": list("aabbbc"), "label": [1.0, 1, 0, 1, 0, 0], "logit": [0.3, 0.1, 0.1, 0.5, 0.4, 0.3]}
    )
    every = list(product("abc", repeat=3))
    counts = np.array([[drawn.count(user) for user in "abc"] for drawn in every])
    user, label = np.array([0, 0, 1, 1, 1, 2], dtype=np.int32), frame["label"].to_numpy()
    got = module._aucs(user, label, frame["logit"].to_numpy(), counts)
    expected = [slow_auc(frame, drawn) for drawn in every]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert np.isnan(expected).sum() == 2  # aaa and ccc


@pytest.mark.parametrize("count", ["all", "warm"])
def test_interval_of_auc_equals_a_loop_over_resamples(monkeypatch, count):
    """Three runs against two; the rows of one run come in another order."""
    a, b = [clicks(seed, shift=0.5) for seed in (1, 2, 3)], [clicks(4), clicks(5).sort("user_id", maintain_order=True)]
    kept = [
        f if count == "all" else f.filter((pl.col("user_history") > 0) & (pl.col("item_history") > 0)) for f in a + b
    ]
    users = sorted(set(kept[0]["user_id"]))
    stream = np.random.default_rng(7)
    expected = []
    for _ in range(40):
        drawn = [users[k] for k in stream.integers(len(users), size=len(users), dtype=np.int32)]
        aucs = [slow_auc(frame, drawn) for frame in kept]
        expected.append(np.mean(aucs[:3]) - np.mean(aucs[3:]))
    monkeypatch.setattr(module, "CHUNK_DRAWS", 100)
    got = compare_auc(a, b, count=count, n_bootstrap=40, seed=7)
    values = [roc_auc_score(frame["label"], frame["logit"]) for frame in kept]
    assert (got.a, got.b) == pytest.approx((np.mean(values[:3]), np.mean(values[3:])), rel=1e-12)
    assert got.difference == got.a - got.b
    assert (got.low, got.high) == pytest.approx(np.percentile(expected, [2.5, 97.5]), rel=1e-9)
    assert got.share_above == np.mean(np.array(expected) > 0)
    assert (got.metric, got.users, got.runs_a, got.runs_b) == ("auc", len(users), 3, 2)


def test_auc_of_pairs_hides_what_users_share():
    """Runs that are equal but for noise differ by less than luck; a run that knows more is above in every resample."""
    noise = [clicks(seed, n_users=60, n=2000) for seed in (1, 2, 3, 4)]
    knows = [clicks(seed, n_users=60, n=2000, shift=0.5) for seed in (5, 6)]
    same = compare_auc(noise[:2], noise[2:], n_bootstrap=500)
    assert same.low < 0 < same.high
    better = compare_auc(knows, noise[:2], n_bootstrap=500)
    assert 0.05 < better.low < better.difference < better.high
    assert better.share_above == 1
    swapped = compare_auc(noise[:2], knows, n_bootstrap=500)
    assert (swapped.low, swapped.high) == pytest.approx((-better.high, -better.low))
    itself = compare_auc(noise[:1], noise[:1], n_bootstrap=50)
    assert (itself.difference, itself.low, itself.high, itself.p) == (0, 0, 0, 1)


def test_per_user_values_of_several_runs_are_averaged():
    a = pl.DataFrame(
        {"user_id": [7, 8, 9], "impressions": [4, 2, 3], "gauc": [1.0, 0.5, None], "hr@1": [1.0, 0.0, 1.0]}
    )
    b = pl.DataFrame({"user_id": ["9", "8", "7"], "impressions": [3, 2, 4], "gauc": [0.5, 0.5, 0.0]})
    got = mean_per_user([a, b])
    assert got.to_dict(as_series=False) == {
        "user_id": ["7", "8", "9"],
        "impressions": [4, 2, 3],
        "gauc": [0.5, 0.5, None],
    }
    assert mean_per_user([a]) is a


def test_what_auc_cannot_compare():
    one = clicks(1)
    other = one.with_columns(item_id=pl.col("item_id") + 1)
    of_one = one.with_columns(label=pl.lit(1.0))
    bare = one.drop("user_history")
    for call, error, message in (
        (lambda: compare_auc([one], [other]), DataError, r"different impressions \(150 and 150\)"),
        (lambda: compare_auc([one], [one[:-1]]), DataError, r"different impressions \(150 and 149\)"),
        (lambda: compare_auc([of_one], [of_one]), DataError, "both labels; the runs measured 150 of one"),
        (lambda: compare_auc([one[:0]], [one[:0]]), DataError, "both labels; the runs measured 0 of one"),
        (lambda: compare_auc([bare], [bare], count="warm"), DataError, "no lengths of history"),
        (lambda: compare_auc([one], [one], n_bootstrap=0), ConfigError, "at least 1, got 0"),
    ):
        with pytest.raises(error, match=message):
            call()
