import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from tests.eval.small import Table, interactions

from macrorec.data.log import Split
from macrorec.errors import DataError
from macrorec.eval import ctr
from macrorec.eval.evaluate import evaluate
from macrorec.eval.ranking import EvalConfig

NAMES = ("AUC", "GAUC", "LogLoss", "calibration")


def impressions(seed=0, n=400, labels=None):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n) if labels is None else labels
    log = interactions(20, 15, rng.integers(20, size=n), rng.integers(15, size=n), label=label)
    return Split(log.take(np.arange(0)), log.take(np.arange(0)), log, protocol={})


def test_impressions_equal_scikit_learn_and_a_loop(monkeypatch):
    """Scores of up to 60 in size: the sigmoid neither overflows nor loses the order that AUC needs."""
    split = impressions()
    split.test.label[split.test.user == 3] = 1
    table = 20 * np.random.default_rng(1).standard_normal((20, 15)).astype(np.float32)
    score_E = table[split.test.user, split.test.item].astype(np.float64)
    label_E, user_E = split.test.label, split.test.user
    with np.errstate(over="ignore"):
        p_E = 1 / (1 + np.exp(-score_E))
    monkeypatch.setattr(ctr, "PAIRS", 37)
    got = evaluate(Table(table), split, "test", EvalConfig(protocol="ctr", metrics=NAMES))
    assert got.metrics["auc"] == pytest.approx(roc_auc_score(label_E, score_E), rel=1e-12)
    assert got.metrics["logloss"] == pytest.approx(log_loss(label_E, np.clip(p_E, 1e-7, 1 - 1e-7)), rel=1e-9)
    bins = np.minimum((p_E * 10).astype(int), 9)
    gaps = [abs(label_E[bins == b].mean() - p_E[bins == b].mean()) * (bins == b).mean() for b in set(bins.tolist())]
    assert got.metrics["calibration"] == pytest.approx(sum(gaps), rel=1e-6)
    both = [u for u in range(20) if len(set(label_E[user_E == u].tolist())) == 2]
    values = [roc_auc_score(label_E[user_E == u], score_E[user_E == u]) for u in both]
    weights = [(user_E == u).sum() for u in both]
    assert got.metrics["gauc"] == pytest.approx(np.average(values, weights=weights), rel=1e-12)
    assert got.counts == {"pairs": 400, "positives": int(label_E.sum()), "users": 20, "users_of_one_class": 1}
    assert got.per_user.columns == ["user_id", "impressions", "gauc", "logloss"]
    assert got.per_user["user_id"].to_list() == [f"u{u}" for u in range(20)]
    assert got.per_user["gauc"][3] is None
    own = user_E == 7
    assert got.per_user["logloss"][7] == pytest.approx(log_loss(label_E[own], np.clip(p_E[own], 1e-7, 1 - 1e-7)))
    assert got.mask == "none: only the labelled pairs of the part are scored"


def test_labels_must_be_there_and_binary():
    config = EvalConfig(protocol="ctr", metrics=("auc",))
    stars = impressions(labels=np.full(400, 4))
    with pytest.raises(DataError, match="labels must be 0 or 1 to evaluate on, found 4"):
        evaluate(Table(np.zeros((20, 15))), stars, "test", config)
    with pytest.raises(DataError, match="needs a column 'label'"):
        ctr.labels_of(interactions(2, 2, [0], [1]))
    with pytest.raises(DataError, match="NaN"):
        evaluate(Table(np.full((20, 15), np.nan)), impressions(), "test", config)
