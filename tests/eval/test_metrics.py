import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, ndcg_score, roc_auc_score

from macrorec.errors import ConfigError
from macrorec.eval import metrics
from macrorec.eval.metrics import METRICS, by_cohort, canonical, parse, with_cohorts

RANKED = ("recall", "ndcg", "ndcg_full", "hr", "map", "mrr", "precision")


def slow(name, hits, relevant):
    """One user, one loop: ``hits`` is a list of 0 and 1 by rank."""
    k = len(hits)
    if name == "recall":
        return sum(hits) / relevant
    if name == "precision":
        return sum(hits) / k
    if name == "hr":
        return float(any(hits))
    if name == "mrr":
        return next((1 / rank for rank, hit in enumerate(hits, 1) if hit), 0.0)
    if name == "map":
        return sum(sum(hits[:rank]) / rank for rank, hit in enumerate(hits, 1) if hit) / min(relevant, k)
    ideal = relevant if name == "ndcg_full" else min(relevant, k)
    gain = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(hits, 1) if hit)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, ideal + 1))


rankings = st.integers(1, 12).flatmap(
    lambda k: st.lists(st.tuples(st.lists(st.integers(0, 1), min_size=k, max_size=k), st.integers(0, 30)), min_size=1)
)


@given(rankings)
def test_ranking_metrics_equal_a_loop_per_user(users):
    hits_BK = np.array([hits for hits, _ in users], dtype=bool)
    relevant_B = np.array([max(sum(hits) + more, 1) for hits, more in users])
    for name in RANKED:
        got = METRICS[name].function(hits_BK, relevant_B)
        expected = [slow(name, hits.astype(int).tolist(), n) for hits, n in zip(hits_BK, relevant_B, strict=True)]
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        assert got.dtype == np.float64
        assert ((got >= 0) & (got <= 1 + 1e-12)).all()


def test_values_by_hand():
    hits_BK, relevant_B = np.array([[False, True, False, True]]), np.array([6])
    dcg = 1 / math.log2(3) + 1 / math.log2(5)
    expected = {
        "recall": 2 / 6,
        "precision": 2 / 4,
        "hr": 1,
        "mrr": 1 / 2,
        "map": (1 / 2 + 2 / 4) / 4,
        "ndcg": dcg / (1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5)),
        "ndcg_full": dcg / (1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5) + 1 / math.log2(6) + 1 / math.log2(7)),
    }
    for name, value in expected.items():
        assert METRICS[name].function(hits_BK, relevant_B)[0] == pytest.approx(value, rel=1e-12), name


def test_ranking_metrics_equal_ranx():
    """ranx divides MAP@k by all relevant items; its other definitions are ours."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="unsafe cast from uint64 to int64")  # ranx, as numba compiles it
        from ranx import Qrels, Run
        from ranx import evaluate as ranx_evaluate

        rng = np.random.default_rng(2)
        n_users, n_items, k = 60, 40, 10
        score_BI = rng.permuted(np.tile(np.arange(n_items, dtype=np.float64), (n_users, 1)), axis=1)
        relevant = [rng.choice(n_items, rng.integers(1, 25), replace=False) for _ in range(n_users)]
        top_BK = np.argsort(-score_BI, axis=1)[:, :k]
        qrels = Qrels({f"q{b:02}": {f"d{i}": 1 for i in items} for b, items in enumerate(relevant)})
        run = Run({f"q{b:02}": {f"d{i}": float(row[i]) for i in range(n_items)} for b, row in enumerate(score_BI)})
        names = {"recall": "recall", "ndcg": "ndcg", "hr": "hit_rate", "mrr": "mrr", "precision": "precision"}
        theirs = ranx_evaluate(qrels, run, [f"{name}@{k}" for name in (*names.values(), "map")], return_mean=False)
    hits_BK = np.array([np.isin(top, items) for top, items in zip(top_BK, relevant, strict=True)])
    relevant_B = np.array([len(items) for items in relevant])
    for ours, name in names.items():
        np.testing.assert_allclose(METRICS[ours].function(hits_BK, relevant_B), theirs[f"{name}@{k}"], rtol=1e-12)
    by_cut = METRICS["map"].function(hits_BK, relevant_B) * np.minimum(relevant_B, k) / relevant_B
    np.testing.assert_allclose(by_cut, theirs[f"map@{k}"], rtol=1e-12)


def test_ndcg_equals_scikit_learn():
    rng = np.random.default_rng(3)
    truth_BI = (rng.random((50, 30)) < 0.2).astype(int)
    truth_BI[:, 0] = 1
    score_BI = rng.permuted(np.tile(np.arange(30.0), (50, 1)), axis=1)
    top_BK = np.argsort(-score_BI, axis=1)[:, :7]
    got = metrics.ndcg(np.take_along_axis(truth_BI, top_BK, 1).astype(bool), truth_BI.sum(1))
    assert got.mean() == pytest.approx(ndcg_score(truth_BI, score_BI, k=7), rel=1e-12)


pairs = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 1), st.sampled_from([-2.0, -0.0, 0.0, 0.25, 0.5, 1.0])), min_size=1
)


@given(pairs)
def test_pair_metrics_equal_scikit_learn(rows):
    """Few distinct scores, so that ties are the rule."""
    user_E, label_E, score_E = (np.array(column) for column in zip(*rows, strict=True))
    if 0 < label_E.sum() < len(label_E):
        assert metrics.auc(label_E, score_E) == pytest.approx(roc_auc_score(label_E, score_E), rel=1e-12)
    else:
        assert math.isnan(metrics.auc(label_E, score_E))
    if label_E.any():
        assert metrics.auc_pr(label_E, score_E) == pytest.approx(average_precision_score(label_E, score_E), rel=1e-12)
    else:
        assert math.isnan(metrics.auc_pr(label_E, score_E))
    values, weights = [], []
    for user in set(user_E.tolist()):
        own = user_E == user
        if 0 < label_E[own].sum() < own.sum():
            values.append(roc_auc_score(label_E[own], score_E[own]))
            weights.append(own.sum())
    got = metrics.gauc(user_E, label_E, score_E)
    assert got == pytest.approx(np.average(values, weights=weights), rel=1e-12) if values else math.isnan(got)


def test_logloss_equals_scikit_learn_and_clips():
    rng = np.random.default_rng(4)
    label_E, p_E = rng.integers(0, 2, 500), rng.random(500)
    assert metrics.logloss(label_E, p_E) == pytest.approx(log_loss(label_E, p_E), rel=1e-12)
    clipped = metrics.logloss(np.array([1, 0]), np.array([0.0, 1.0]))
    assert clipped == pytest.approx(log_loss([1, 0], np.array([1e-7, 1 - 1e-7])), rel=1e-9)
    assert clipped == pytest.approx(-math.log(1e-7), rel=1e-9)


def test_calibration_error_by_hand():
    """Bin 0: mean label 1/2, mean probability .05; bin 9, with p = 1: both 1."""
    got = metrics.calibration_error(np.array([0, 1, 1, 1]), np.array([0.04, 0.06, 1.0, 1.0]))
    assert got == pytest.approx(0.5 * abs(0.5 - 0.05), rel=1e-12)


@pytest.mark.parametrize(
    ("given", "metric", "cut", "cohort", "name"),
    [
        ("NDCG-full@10", "ndcg_full", 10, None, "ndcg_full@10"),
        (" Recall@20 ", "recall", 20, None, "recall@20"),
        ("AUC", "auc", None, None, "auc"),
        ("Auc-ROC", "auc_roc", None, None, "auc_roc"),
        ("MAP@1", "map", 1, None, "map@1"),
        ("HR@10:Re_Engagement", "hr", 10, "re-engagement", "hr@10:re-engagement"),
        ("NDCG-full@5:discovery ", "ndcg_full", 5, "discovery", "ndcg_full@5:discovery"),
    ],
)
def test_names_have_one_spelling(given, metric, cut, cohort, name):
    assert parse(given) == (metric, cut, cohort)
    assert canonical(given) == name == canonical(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("recal@20", "unknown metric"),
        ("", "unknown metric"),
        ("recall", "needs a cut"),
        ("recall@", "needs a cut"),
        ("recall@0", "needs a cut"),
        ("recall@-3", "needs a cut"),
        ("recall@2.5", "needs a cut"),
        ("recall@²", "needs a cut"),
        ("auc@10", "takes no cut"),
        ("auc:discovery", "takes no cohort"),
        ("hr:discovery", "needs a cut"),
        ("hr@10:", "unknown cohort; known are re-engagement, discovery"),
        ("hr@10:new", "unknown cohort; known are re-engagement, discovery"),
    ],
)
def test_wrong_names_say_what_is_allowed(name, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse(name)
    assert "\n" not in str(error.value)


def test_each_metric_states_its_formula():
    for metric in METRICS.values():
        assert metric.formula.endswith("."), metric.name
        assert "\n" not in metric.formula
    assert [m.name for m in METRICS.values() if not m.higher_is_better] == [
        "logloss",
        "calibration",
        "calibration_mass",
    ]


def test_names_of_all_cohorts_are_listed_once_and_stand_in_rows():
    names = with_cohorts(("hr@5:discovery", "hr@5", "auc"))
    assert names == ("hr@5:discovery", "hr@5", "hr@5:re-engagement", "auc")
    assert with_cohorts(("hr@5",), ()) == ("hr@5",)
    rows = by_cohort({name: number for number, name in enumerate(names)})
    assert rows == {"hr@5": {"discovery": 0, "all": 1, "re-engagement": 2}, "auc": {"all": 3}}
