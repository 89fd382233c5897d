from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from tests.eval.small import BUY, Table, Vectors, interactions, random_split

from macrorec.data.log import Split, concat
from macrorec.errors import ConfigError, DataError
from macrorec.eval.ctr import score_pairs
from macrorec.eval.evaluate import evaluate
from macrorec.eval.links import draw_negatives, keys_of, link_pairs, load_pairs, probe, save_pairs
from macrorec.eval.ranking import EvalConfig


def target_pairs(*logs):
    return {(u, i) for log in logs for u, i, b in zip(log.user, log.item, log.behavior, strict=True) if b == log.target}


def pairs_with(log, label):
    return [(u, i) for u, i, y in zip(log.user, log.item, log.label, strict=True) if y == label]


@pytest.mark.parametrize("per_edge", [1, 3, 14])
def test_negatives_are_distinct_true_non_edges(per_edge):
    """At 14 per edge most pairs are taken, and the few that are left are enumerated."""
    split = random_split(rows=700)
    got = draw_negatives(split, "test", per_edge, seed=5)
    positives, negatives = pairs_with(got, 1), pairs_with(got, 0)
    assert set(positives) == target_pairs(split.test)
    assert len(set(positives)) == len(positives)
    assert len(set(negatives)) == len(negatives) == per_edge * len(positives)
    assert not set(negatives) & target_pairs(split.train, split.valid, split.test)
    assert (got.behavior == got.target).all()


def test_negatives_are_fixed_by_the_seed_and_differ_between_parts():
    split = random_split()
    one, same, other = (draw_negatives(split, "test", seed=seed) for seed in (1, 1, 2))
    assert one.digest() == same.digest() != other.digest()
    shuffled = replace(split, test=split.test.take(np.random.default_rng(0).permutation(len(split.test))))
    assert draw_negatives(shuffled, "test", seed=1).digest() == one.digest()
    wide = replace(split, train=split.test, test=split.train)
    overlap = set(pairs_with(draw_negatives(wide, "train", seed=1), 0)) & set(pairs_with(one, 0))
    assert len(overlap) < len(one) / 8


def test_too_few_non_edges():
    with pytest.raises(DataError, match="negatives asked for, but only"):
        draw_negatives(random_split(), "test", 1000, seed=0)


def test_saved_pairs_come_back(tmp_path):
    split = random_split()
    pairs = draw_negatives(split, "test", seed=0)
    save_pairs(pairs, tmp_path / "pairs.parquet")
    assert pl.read_parquet(tmp_path / "pairs.parquet").columns == ["user_id", "item_id", "label"]
    assert load_pairs(tmp_path / "pairs.parquet", split.test).digest() == pairs.digest()


def test_pairs_that_cannot_be_read(tmp_path):
    like = random_split().test
    frame = pl.DataFrame({"user_id": ["u0", "nobody"], "item_id": ["i0", "i1"], "label": [1, 0]})
    frame.write_parquet(tmp_path / "unknown.parquet")
    frame.drop("label").write_parquet(tmp_path / "short.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    for name, message in (
        ("unknown", "user_id 'nobody' is not in the vocabulary"),
        ("short", "cannot read labelled pairs"),
        ("text", "cannot read labelled pairs"),
        ("missing", "cannot read labelled pairs"),
    ):
        with pytest.raises(DataError, match=message) as error:
            load_pairs(tmp_path / f"{name}.parquet", like)
        assert "\n" not in str(error.value)


def planted(seed=0):
    """Vectors of 3 and labels that follow their products; train and test are disjoint draws."""
    rng = np.random.default_rng(seed)
    users_UD, items_ID = rng.standard_normal((40, 3)), rng.standard_normal((30, 3))
    key = rng.choice(1200, 900, replace=False)
    label = (users_UD[key // 30] * items_ID[key % 30]).sum(1) + rng.standard_normal(900) > 0
    log = interactions(40, 30, key // 30, key % 30, label=label)
    return Vectors(users_UD, items_ID), log.take(np.arange(450)), log.take(np.arange(450, 900))


def test_labelled_pairs_equal_scikit_learn():
    """Direct scores, and both probes fitted as scikit-learn fits them on features built in a loop."""
    model, train, test = planted()
    edges = replace(train.take(train.label == 1), label=None)
    split = replace(random_split(), train=edges, valid=train.take(np.arange(0)), test=test)
    names = ("auc_roc", "auc_pr", "auc_roc_hadamard", "auc_pr_hadamard", "auc_roc_concat", "auc_pr_concat")
    config = EvalConfig(protocol="links", metrics=names)
    got = evaluate(model, split, "test", config, pairs=link_pairs(split, config, train))
    u, v = (x.detach().double().numpy() for x in model.encode())
    score_E = (u[test.user] * v[test.item]).sum(1)
    assert got.metrics["auc_roc"] == pytest.approx(roc_auc_score(test.label, score_E), abs=1e-4)
    assert got.metrics["auc_pr"] == pytest.approx(average_precision_score(test.label, score_E), abs=1e-4)
    for features in ("hadamard", "concat"):
        x_fit, x_test = (
            np.array(
                [
                    u[a] * v[b] if features == "hadamard" else [*u[a], *v[b]]
                    for a, b in zip(log.user, log.item, strict=True)
                ]
            )
            for log in (train, test)
        )
        regression = LogisticRegression(C=0.001, max_iter=1000, tol=1e-9).fit(x_fit, train.label)
        expected = roc_auc_score(test.label, regression.decision_function(x_test))
        assert got.metrics[f"auc_roc_{features}"] == pytest.approx(expected, rel=1e-9)
    assert got.metrics["auc_roc_hadamard"] > 0.8 > 0.6 > got.metrics["auc_roc_concat"]
    assert got.counts["pairs"] == 450
    assert got.per_user.columns == ["user_id", "impressions", "gauc"]


def test_pairs_without_labels_get_fixed_negatives():
    split = random_split()
    edges = target_pairs(split.test)
    table = np.zeros((40, 30))
    for pair in edges:
        table[pair] = 1
    config = EvalConfig(protocol="links", metrics=("auc_roc", "auc_pr"), negatives=2, negative_seed=3)
    got = evaluate(Table(table), split, "test", config)
    assert got.metrics == {"auc_roc": 1.0, "auc_pr": 1.0}
    assert got.counts["positives"] == len(edges)
    assert got.counts["pairs"] == 3 * len(edges)
    assert got.mask.endswith("2 non-edges per edge drawn with seed 3")
    assert evaluate(Table(1 - table), split, "test", config).metrics["auc_roc"] == 0.0
    random = np.random.default_rng(0).standard_normal((2, 40, 5))
    probed = replace(config, metrics=("auc_roc_hadamard",))
    assert 0.3 < evaluate(Vectors(random[0], random[1, :30]), split, "test", probed).metrics["auc_roc_hadamard"] < 0.7


def test_probes_need_vectors_and_both_labels():
    model, train, test = planted()
    with pytest.raises(ConfigError, match="Table has no vectors"):
        probe(Table(np.zeros((40, 30))), train, test, "concat")
    with pytest.raises(ConfigError, match="'hadamard' or 'concat', got 'sum'"):
        probe(model, train, test, "sum")
    with pytest.raises(DataError, match="both labels"):
        probe(model, train.take(train.label == 1), test, "concat")


# --- the pairs of a split --------------------------------------------------------------------------------------------

LINKS = EvalConfig(protocol="links", metrics=("auc_roc",))


def labelled_split(seed=0):
    """A split whose test part came with labels; pairs are distinct over all parts."""
    rng = np.random.default_rng(seed)
    key = rng.permutation(1200)[:400]
    log = interactions(40, 30, key // 30, key % 30, label=np.arange(400) % 2)
    train, valid = (replace(log.take(rows), label=None) for rows in (slice(0, 150), slice(150, 200)))
    return Split(train, valid, log.take(slice(200, 300)), protocol={}), log.take(slice(300, 400))


def test_a_labelled_part_is_measured_as_it_is():
    split, _ = labelled_split()
    made = link_pairs(split, LINKS)
    assert made.test.digest() == split.test.digest()
    assert made.drawn == {"valid": "1 non-edges per edge drawn with seed 0"}
    assert set(pairs_with(made.valid, 1)) == target_pairs(split.valid)
    assert len(pairs_with(made.valid, 0)) == len(split.valid) == 50
    assert set(pairs_with(made.probe, 1)) == target_pairs(split.train)


def test_no_pair_is_in_two_parts():
    labelled, given = labelled_split()
    for split, probed in ((labelled, None), (labelled, given), (random_split(seed=3, rows=700), None)):
        made = link_pairs(split, LINKS, probed)
        parts = [set(pairs_with(pairs, 0)) for pairs in (made.probe, made.valid, made.test)]
        assert sum(map(len, parts)) == len(set().union(*parts)) > 100
        assert not set().union(*parts) & target_pairs(split.train, split.valid)


def test_a_given_probe_leaves_out_what_is_measured():
    """A third of its edges are valid's, and two of its rows are in test: neither is learned from."""
    split, given = labelled_split()
    both = [replace(part.take(slice(0, 5)), label=np.ones(5, dtype=np.float32)) for part in (split.train, split.valid)]
    wide = concat(*both, given, split.test.take(slice(0, 2)))
    made = link_pairs(split, LINKS, wide)
    kept = [*pairs_with(made.probe, 0), *pairs_with(made.probe, 1)]
    assert set(kept) == target_pairs(both[0], given)
    assert not set(pairs_with(made.valid, 0)) & target_pairs(wide)
    last = link_pairs(split.with_valid_in_train(), LINKS, wide)
    assert set(pairs_with(last.probe, 1)) == target_pairs(*both, given.take(given.label == 1))


def test_pairs_of_test_depend_on_the_log_alone():
    """Not on which of train's edges are valid, nor on a refit, nor on other metrics."""
    split = random_split(seed=1, behaviors=BUY)
    whole = concat(split.train, split.valid)
    other = np.random.default_rng(5).random(len(whole)) < 0.7
    moved = replace(split, train=whole.take(other), valid=whole.take(~other))
    one = link_pairs(split, LINKS)
    refit = link_pairs(split.with_valid_in_train(), replace(LINKS, metrics=("auc_pr_concat",)))
    assert one.test.digest() == link_pairs(moved, LINKS).test.digest() == refit.test.digest()
    assert one.valid.digest() != link_pairs(moved, LINKS).valid.digest()
    assert one.test.digest() != link_pairs(split, replace(LINKS, negative_seed=1)).test.digest()
    assert (set(one.digests()), set(refit.digests())) == ({"valid", "test"}, {"test"})


def test_a_probe_is_fitted_to_so_many_edges_at_most(monkeypatch):
    split, _ = labelled_split()
    monkeypatch.setattr("macrorec.eval.links.PROBE_EDGES", 60)
    made = link_pairs(split, LINKS).probe
    assert (len(pairs_with(made, 1)), len(pairs_with(made, 0))) == (60, 60)
    assert set(pairs_with(made, 1)) < target_pairs(split.train)
    ranks = np.searchsorted(np.sort(keys_of(split.train)), keys_of(made.take(made.label == 1)))
    assert 65 < ranks.mean() < 85, "drawn from all 150, not the first ones"


def test_non_edges_never_stand_for_edges():
    split, given = labelled_split()
    with pytest.raises(DataError, match="train has 50 rows of label 0, which would be taken for edges"):
        link_pairs(replace(split, train=given), LINKS)
    edge = replace(split.train.take(slice(0, 3)), label=np.zeros(3, dtype=np.float32))
    with pytest.raises(DataError, match="3 pairs of label 0 in test are edges of train"):
        link_pairs(replace(split, test=concat(split.test, edge)), LINKS)
    with pytest.raises(DataError, match="3 pairs of label 0 in probe are edges of train"):
        link_pairs(split, LINKS, concat(given, edge))
    with pytest.raises(DataError, match="labels must be 0 or 1"):
        link_pairs(replace(split, test=replace(split.test, label=split.test.label + 3)), LINKS)


def test_pairs_of_one_label_measure_nothing():
    model, train, test = planted()
    split = replace(random_split(), train=replace(train, label=None).take(slice(0, 9)), valid=train, test=test)
    ones = link_pairs(replace(split, valid=train.take(slice(0, 0)), test=test.take(slice(0, 0))), LINKS)
    with pytest.raises(DataError, match="all 9 pairs have label 1"):
        evaluate(model, split, "test", LINKS, pairs=replace(ones, test=ones.probe.take(ones.probe.label == 1)))


def test_a_probe_sees_directions_not_scales():
    """Singular vectors are as small as 1e-4: a probe that stops early would answer .5."""
    model, train, test = planted()
    small = Vectors(model.u.detach().numpy() * 1e-3, model.v.detach().numpy() * 1e-3)
    auc = roc_auc_score(test.label, probe(small, train, test, "hadamard"))
    assert auc > 0.8
    assert small.encoded == 1


def test_vectors_are_made_once():
    model, train, test = planted()
    many = concat(*[test] * 200)  # more than are scored at once
    split = replace(random_split(), train=replace(train.take(train.label == 1), label=None), valid=train, test=many)
    got = evaluate(model, replace(split, valid=train.take(slice(0, 0))), "test", LINKS)
    assert model.encoded == 1
    assert got.metrics["auc_roc"] == pytest.approx(roc_auc_score(many.label, score_pairs(model, many.user, many.item)))
