import numpy as np
import polars as pl
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, roc_auc_score
from tests.eval.small import FUNNEL, Table, empty_graph, interactions

from macrorec.api import Ranker
from macrorec.data.log import Split
from macrorec.errors import ConfigError, DataError
from macrorec.eval import ctr
from macrorec.eval.cohorts import breakdown, history_lengths, reliability
from macrorec.eval.evaluate import evaluate
from macrorec.eval.ranking import EvalConfig
from macrorec.graph.features import macro_of, samples_at

NAMES = ("AUC", "GAUC", "LogLoss", "calibration", "calibration_mass")


def impressions(seed=0, n=400, labels=None):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n) if labels is None else labels
    log = interactions(20, 15, rng.integers(20, size=n), rng.integers(15, size=n), label=label)
    return Split(log.take(np.arange(0)), log.take(np.arange(0)), log, protocol={})


def with_history(seed=0, n=900):
    """Users 0 to 4 are cold, and items 0 to 2; histories reach beyond 100 events."""
    rng = np.random.default_rng(seed)
    user = np.concatenate([5 + (15 * rng.random(n) ** 3).astype(int), rng.integers(20, size=n)])
    item = np.concatenate([3 + (12 * rng.random(n) ** 3).astype(int), rng.integers(15, size=n)])
    log = interactions(20, 15, user, item, label=rng.integers(0, 2, 2 * n))
    return Split(*(log.take(np.arange(a, b)) for a, b in ((0, n // 2), (n // 2, n), (n, 2 * n))), protocol={})


class Hops(Ranker):
    """The logit is a sum of features, so that each sample has its own; counts its blocks."""

    def __init__(self, graph):
        super().__init__(None, graph)
        self.weight = torch.nn.Parameter(torch.tensor(0.1))
        self.sizes = []

    def logits(self, features):
        self.sizes.append(len(features))
        hops = features.user_hop1_BQ[:, 0] - features.item_hop1_BP[:, 1] + features.item_B % 3
        return self.weight * hops


def slow_rows(frame):
    """The breakdown by loops and scikit-learn."""
    rows = frame.to_dicts()
    tests = {"all": lambda r: True, "warm": lambda r: r["user_history"] > 0 and r["item_history"] > 0}
    for side in ("user", "item"):
        for name, low, high in (("cold", 0, 0), ("1-4", 1, 4), ("5-19", 5, 19), ("20-99", 20, 99), ("100+", 100, 1e9)):
            key = f"cold {side}" if name == "cold" else f"{side} {name}"
            tests[key] = lambda r, s=side, a=low, b=high: a <= r[f"{s}_history"] <= b
    for name, test in tests.items():
        own = [r for r in rows if test(r)]
        label, logit = [r["label"] for r in own], np.array([r["logit"] for r in own])
        p = 1 / (1 + np.exp(-logit))
        by_user = {}
        for r in own:
            by_user.setdefault(r["user_id"], []).append(r)
        both = [rs for rs in by_user.values() if len({r["label"] for r in rs}) == 2]
        aucs = [roc_auc_score([r["label"] for r in rs], [r["logit"] for r in rs]) for rs in both]
        gap = 0.0
        for b in range(10):
            inside = [k for k in range(len(p)) if (b / 10 < p[k] or b == 0) and p[k] <= (b + 1) / 10]
            gap += abs(sum(label[k] - p[k] for k in inside))
        yield {
            "cohort": name,
            "impressions": len(own),
            "positives": int(sum(label)),
            "users": len(by_user),
            "auc": roc_auc_score(label, logit) if len(set(label)) == 2 else None,
            "gauc": np.average(aucs, weights=[len(rs) for rs in both]) if both else None,
            "logloss": log_loss(label, p, labels=[0, 1]) if own else None,
            "calibration": gap / len(own) if own else None,
        }


def assert_rows_equal(got, expected):
    for ours, theirs in zip(got.to_dicts(), expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours.pop("cohort") == theirs["cohort"]
        assert ours == {key: theirs[key] and pytest.approx(theirs[key], rel=1e-6) for key in ours}, theirs["cohort"]


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
    for bare in (ctr.labels_of, ctr.impressions_of):
        with pytest.raises(DataError, match="needs a column 'label'"):
            bare(interactions(2, 2, [0], [1]))
    with pytest.raises(DataError, match="NaN"):
        evaluate(Table(np.full((20, 15), np.nan)), impressions(), "test", config)


def test_a_ranker_is_measured_by_the_features_of_its_samples_in_any_blocks(monkeypatch):
    """The samples see half of what the ranker's own graph holds, so that scoring pairs would give other numbers."""
    split = with_history()
    graph = empty_graph(20, 15)
    macro = macro_of(graph)
    macro.add(split.train.user, split.train.item)
    model = Hops(graph)
    model.macro.add(split.test.user, split.test.item)
    samples = {"test": samples_at(macro, split.test)}
    config = EvalConfig(protocol="ctr", metrics=NAMES)
    whole = evaluate(model, split, "test", config, samples=samples)
    with torch.no_grad():
        logit_E = model.logits(samples["test"].features).double().numpy()
    assert whole.samples["logit"].to_list() == logit_E.tolist()
    assert whole.metrics["auc"] == pytest.approx(roc_auc_score(split.test.label, logit_E), rel=1e-12)
    assert whole.samples.columns == ["user_id", "item_id", "label", "logit", "user_history", "item_history"]
    assert whole.samples["item_id"].to_list() == split.test.items.ids_of(split.test.item).to_list()
    assert_rows_equal(whole.breakdown, list(slow_rows(whole.samples)))
    monkeypatch.setattr(ctr, "IMPRESSIONS", 37)
    model.sizes.clear()
    assert evaluate(model, split, "test", config, samples=samples).metrics == pytest.approx(whole.metrics, rel=1e-12)
    assert model.sizes == [37] * 24 + [12]
    with pytest.raises(ConfigError, match=r"Hops is a ranker: .* the part 'test' has none; set features"):
        evaluate(model, split, "test", config)


def test_breakdown_of_scored_pairs_equals_loops_over_the_earlier_parts():
    split = with_history()
    table = np.random.default_rng(1).standard_normal((20, 15)).astype(np.float32)
    got = evaluate(Table(table), split, "test", EvalConfig(protocol="ctr", metrics=("auc",)))
    positive = [
        (u, i)
        for part in (split.train, split.valid)
        for u, i, label in zip(part.user, part.item, part.label, strict=True)
        if label == 1
    ]
    for side, column, of in ((0, "user_history", split.test.user), (1, "item_history", split.test.item)):
        assert got.samples[column].to_list() == [sum(pair[side] == n for pair in positive) for n in of]
    rows = list(slow_rows(got.samples))
    assert sum(not row["impressions"] for row in rows) == 2  # nobody has 1 to 4
    assert got.metrics["auc"] == got.breakdown["auc"][0]
    assert_rows_equal(got.breakdown, rows)
    on_valid = evaluate(Table(table), split, "valid", EvalConfig(protocol="ctr", metrics=("auc",)))
    assert on_valid.samples["user_history"].sum() < got.samples["user_history"].sum()


def test_warm_impressions_alone_can_make_the_metrics():
    split = with_history()
    table = np.random.default_rng(1).standard_normal((20, 15)).astype(np.float32)
    config = EvalConfig(protocol="ctr", metrics=NAMES, samples="warm")
    got = evaluate(Table(table), split, "test", config)
    by_hand = split.test.take((split.test.user >= 5) & (split.test.item >= 3))
    alone = Split(split.train, split.valid, by_hand, protocol={})
    assert got.metrics == evaluate(Table(table), alone, "test", EvalConfig(protocol="ctr", metrics=NAMES)).metrics
    assert got.counts["pairs"] == len(by_hand) == got.breakdown["impressions"][1]
    assert got.counts["cold_pairs_left_out"] == 900 - len(by_hand)
    assert got.per_user["impressions"].sum() == len(by_hand)
    assert len(got.samples) == 900
    assert got.mask.endswith("those whose user and item have positive history")
    everybody = evaluate(Table(table), split, "test", EvalConfig(protocol="ctr", metrics=NAMES))
    assert everybody.breakdown.equals(got.breakdown)
    with pytest.raises(DataError, match="no impression of the part 'test' is warm"):
        evaluate(Table(table), impressions(), "test", config)


def test_history_counts_as_in_the_macro_graph():
    """Views count, whatever their label; buys where they are positive; what a user disliked does not."""
    kinds = (*FUNNEL[:1], FUNNEL[1].__class__(name="hide", role="negative"), FUNNEL[2])
    behavior, label = [0, 1, 2, 2, 2], [np.nan, 1, 1, 0, 0.6]
    log = interactions(3, 2, [0, 0, 0, 0, 1], [0, 0, 0, 1, 1], behavior, kinds, label)
    pairs = interactions(3, 2, [0, 1, 2, 0], [0, 1, 0, 1], label=[1, 0, 1, 0])
    user, item = history_lengths((log, log), pairs)
    assert user.tolist() == [4, 2, 0, 4]
    assert item.tolist() == [4, 2, 4, 2]
    assert ctr.impressions_of(log).label.tolist() == pytest.approx([1, 0, 0.6])


def test_one_class_has_no_auc_but_a_loss():
    split = impressions(labels=np.ones(400))
    table = Table(np.zeros((20, 15)))
    for name in ("auc", "gauc"):
        with pytest.raises(DataError, match=f"{name} needs .* all 400 of the part 'test' have label 1"):
            evaluate(table, split, "test", EvalConfig(protocol="ctr", metrics=("logloss", name)))
    got = evaluate(table, split, "test", EvalConfig(protocol="ctr", metrics=("logloss",)))
    assert got.metrics == {"logloss": pytest.approx(np.log(2))}
    assert got.breakdown.row(0, named=True)["auc"] is None
    by_user = impressions()
    by_user.test.label[:] = by_user.test.user % 2
    with pytest.raises(DataError, match="gauc needs a user with impressions of both labels; the part 'test' has none"):
        evaluate(table, by_user, "test", EvalConfig(protocol="ctr", metrics=("auc", "gauc")))
    assert evaluate(table, by_user, "test", EvalConfig(protocol="ctr", metrics=("auc",))).metrics == {"auc": 0.5}


@pytest.mark.parametrize(("bins", "strategy"), [("width", "uniform"), ("mass", "quantile")])
def test_the_reliability_curve_is_scikit_learns(bins, strategy):
    rng = np.random.default_rng(0)
    logit = np.round(1.5 * rng.standard_normal(700), 1)  # with ties
    label = (rng.random(700) < 0.4).astype(np.float32)
    frame = pl.DataFrame({"user_id": ["a"] * 700, "label": label, "logit": logit})
    got = reliability(frame).filter(pl.col("bins") == bins)
    share, mean = calibration_curve(label, 1 / (1 + np.exp(-logit)), n_bins=10, strategy=strategy)
    np.testing.assert_allclose(got["predicted"], mean, rtol=1e-12)
    np.testing.assert_allclose(got["positive"], share, rtol=1e-12)
    assert got["n"].sum() == 700
    assert breakdown(frame)["cohort"].to_list() == ["all"]
