"""Rankers through the pipeline: features are made once, belong to the run, and are the same when it is restored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.small_runs import clicks, config, write_log, write_ratings

from macrorec import configs, models
from macrorec import run as pipeline
from macrorec import tune as search
from macrorec.api import Ranker
from macrorec.bundle import Bundle
from macrorec.errors import ConfigError, DataError
from macrorec.eval.evaluate import evaluate
from macrorec.graph.features import FeatureConfig
from macrorec.graph.groups import ByKMeans
from macrorec.inputs import read_features, read_split
from macrorec.restore import evaluate_run, export, restore
from macrorec.run import RunConfig, run
from macrorec.store import Run
from macrorec.train.trainer import train as real_train
from macrorec.tune import tune

RANKERS = [name for name in models.names() if issubclass(models.load(name), Ranker)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_ratings(tmp_path / "data")


def once(settings: RunConfig, root: Path, **named: Any) -> Run:
    return run(settings, name="clicks", root=root, **named)


@pytest.mark.parametrize("model", [*RANKERS, "rates"])
def test_every_ranker_runs_is_restored_and_exported(model: str, log: Path, tmp_path: Path) -> None:
    done = once(clicks(log, model), tmp_path / "runs")
    assert done.metrics["test"]["auc"] > (0.8 if model == "macgnn" else 0.3)
    found = restore(done)
    assert all(torch.equal(value, done.weights()[name]) for name, value in found.model.state_dict().items())
    assert evaluate_run(done).metrics == done.metrics["test"]
    bundle = Bundle.load(export(done, tmp_path / "bundle"))
    with torch.no_grad():
        expected = found.model.score_all(torch.arange(24))
        assert torch.equal(bundle.model.score_all(torch.arange(24)), expected)
    assert bundle.titles is not None and bundle.titles[:2].to_list() == ["Item 0", "Item 1"]
    samples = done.samples("test")
    assert samples is not None and {"user_id", "item_id", "label", "logit"} <= set(samples.columns)
    assert len(samples) == done.provenance["counts"]["pairs"] == 120


def test_a_run_equals_its_steps_by_hand_with_and_without_refit(log: Path, tmp_path: Path) -> None:
    settings = clicks(log)
    parts = read_split(settings.source, settings.prepare, settings.split, seed=0)
    assert settings.features is not None
    seen = read_features(settings.source, settings.features, parts, seed=0)
    watch = pipeline.watch(settings, parts, "cpu", seen)
    model, history = pipeline.fit(settings, parts, features=seen, validate=watch)
    for part in ("valid", "test"):
        measured = evaluate(model, parts, part, settings.eval, samples=seen.samples)  # type: ignore[arg-type]
        assert once(settings, tmp_path).metrics[part] == measured.metrics
    again = once(replace(settings, refit=True), tmp_path)
    both = parts.with_valid_in_train()
    seen_by_both = read_features(settings.source, settings.features, both, seed=0)
    assert len(seen_by_both.samples["train"]) == len(seen.samples["train"]) + len(seen.samples["valid"])
    for name in ("user_hop1_BQ", "item_hop2_BQ", "user_recent_BR"):
        before, after = (getattr(s.samples["test"].features, name) for s in (seen, seen_by_both))
        assert torch.equal(before, after), "test sees the same, whoever learns from valid"
    last = pipeline.for_epochs(settings.train, history.best_epoch)
    refitted, _ = pipeline.fit(settings, both, settings=last, features=seen_by_both)
    measured = evaluate(refitted, both, "test", settings.eval, samples=seen_by_both.samples)
    assert again.metrics["test"] == measured.metrics


def test_a_refitted_run_is_restored_with_what_it_learned_from(log: Path, tmp_path: Path) -> None:
    done = once(clicks(log, refit=True), tmp_path)
    found = restore(done)
    assert found.features is not None and found.graph.macro is found.features.macro
    liked = (
        read_split(found.config.source, found.config.prepare, found.config.split, seed=0).with_valid_in_train().train
    )
    assert found.features.macro.n_events == liked.label.sum()  # type: ignore[union-attr]
    assert evaluate_run(done).metrics == done.metrics["test"]


def test_provenance_says_what_was_counted_by_what(log: Path, tmp_path: Path) -> None:
    told = once(clicks(log), tmp_path).provenance["features"]
    assert told["kind"] == "as_of" and len(told["digest"]) == 64
    assert {"boundary", "history"} <= told.keys()


def test_training_is_given_no_sample_of_test(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []

    def spy(model: Any, graph: Any, *rest: Any, labelled: Any = None, **named: Any) -> Any:
        times.append(int(labelled.pairs.time.max()))
        return real_train(model, graph, *rest, labelled=labelled, **named)

    monkeypatch.setattr(pipeline, "train", spy)
    once(clicks(log, refit=True), tmp_path)
    minute = [(time - 1_700_000_000) // 60 for time in times]
    assert minute[0] < 1200 * 0.9 * 0.89 <= minute[1] < 1200 * 0.9


def test_groups_that_have_changed_are_refused(log: Path, tmp_path: Path) -> None:
    done = once(clicks(log), tmp_path)
    file = log.parent / "items.csv"
    file.write_text(file.read_text().replace("i3,blue", "i3,red"))
    with pytest.raises(DataError, match=r"groups of .* cannot be made again: the item file has changed"):
        restore(done)


@pytest.mark.parametrize("broken_in", ["fit", "refit"])
def test_ctrl_c_and_going_on_ends_with_the_same_bits(broken_in: str, log: Path, tmp_path: Path) -> None:
    settings = clicks(log, refit=True, dropout=0.2)
    settings = replace(settings, train=replace(settings.train, keep="last"))
    whole = once(settings, tmp_path / "whole")
    began: list[str] = []

    class Impatient:
        def start(self, n_epochs: int, n_steps: int, done: int = 0) -> None:
            began.append("refit" if began else "fit")

        def step(self, epoch: int, step: int, loss: float) -> None:
            if step == 3 and began[-1] == broken_in:
                raise KeyboardInterrupt

        def epoch(self, record: Any) -> None: ...
        def close(self) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        once(settings, tmp_path / "broken", progress=Impatient())
    again = once(settings, tmp_path / "broken")
    assert again.metrics == whole.metrics
    assert all(torch.equal(value, again.weights()[name]) for name, value in whole.weights().items())


def test_a_checkpoint_of_other_features_is_refused(log: Path, tmp_path: Path) -> None:
    settings = clicks(log)
    assert settings.features is not None
    parts = read_split(settings.source, settings.prepare, settings.split, seed=0)
    brief = pipeline.for_epochs(settings.train, 1)
    pipeline.fit(settings, parts, settings=brief, folder=tmp_path)
    other = replace(settings, features=replace(settings.features, recents=3))
    with pytest.raises(DataError, match="other train data"):
        pipeline.fit(other, parts, settings=brief, folder=tmp_path)


# --- configuration ---------------------------------------------------------------------------------------------------


def test_features_are_for_rankers_alone_and_theirs_by_default(tmp_path: Path) -> None:
    ranker, other = clicks(tmp_path / "x.csv"), config(tmp_path / "x.csv")
    assert replace(ranker, features=None).features == FeatureConfig()
    assert other.features is None
    with pytest.raises(ConfigError, match="features are for rankers, and ease is none"):
        replace(other, features=FeatureConfig())


@pytest.mark.parametrize(
    ("assignment", "wanted"),
    [
        ("features.users.n=40", FeatureConfig(kind="as_of", history=0.5, users=ByKMeans(n=40))),
        ("features.recents=5", FeatureConfig(kind="as_of", history=0.5, users=ByKMeans(n=2), recents=5)),
        ("features.items.kind=kmeans", FeatureConfig(kind="as_of", history=0.5, users=ByKMeans(n=2), items=ByKMeans())),
        ("features.kind=snapshot", FeatureConfig(history=0.5, users=ByKMeans(n=2))),
    ],
)
def test_features_are_set_by_path(assignment: str, wanted: FeatureConfig, tmp_path: Path) -> None:
    table = configs.plain(clicks(tmp_path / "x.csv"))
    assert configs.parse(RunConfig, configs.assign(table, [assignment], RunConfig)).features == wanted


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("features.user.n=40", "unknown key 'features.user'"),
        ("features.users.m=40", "unknown key 'features.users.m': did you mean 'dim'? legal are dim, kind, n"),
        ("features.history=1.5", "features.history is 1.5"),
        ("features.kind=asof", "features.kind: input should be 'snapshot' or 'as_of'"),
        ("features.users.kind=category", "only items have categories"),
    ],
)
def test_what_does_not_fit_is_one_line_with_its_path(assignment: str, message: str, tmp_path: Path) -> None:
    table = configs.plain(clicks(tmp_path / "x.csv"))
    with pytest.raises(ConfigError) as caught:
        configs.parse(RunConfig, configs.assign(table, [assignment], RunConfig))
    assert message in str(caught.value) and "\n" not in str(caught.value)


# --- tuning ----------------------------------------------------------------------------------------------------------


def test_a_search_makes_features_once_and_sees_no_test(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(candidate: RunConfig, parts: Any) -> Any:
        made.append("features")
        return pipeline.features_of(candidate, parts)

    def blind(candidate: Any, parts: Any, *rest: Any, features: Any = None, **named: Any) -> Any:
        assert len(parts.test) == 0 and set(features.samples) == {"train", "valid"}
        return pipeline.fit(candidate, parts, *rest, features=features, **named)

    monkeypatch.setattr(search, "features_of", counted)
    monkeypatch.setattr(search, "fit", blind)
    result = tune(clicks(log), {"train.lr": [1e-3, 1e-2], "model.dim": [4, 8]}, name="x", trials=3, root=tmp_path)
    assert len(made) == 1
    assert all(trial["value"] is not None for trial in result["trials"])


def test_a_search_over_features_leaves_the_measured_rows_as_they_are(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[tuple[int, ...]] = []

    def seen(candidate: Any, parts: Any, *rest: Any, features: Any = None, **named: Any) -> Any:
        valid = features.samples["valid"].pairs
        rows.append(
            (features.macro.users.n, features.macro.recents, hash((valid.user.tobytes(), valid.item.tobytes())))
        )
        return pipeline.fit(candidate, parts, *rest, features=features, **named)

    monkeypatch.setattr(search, "fit", seen)
    space = {"features.users.n": [2, 3], "features.recents": [2, 20]}
    result = tune(clicks(log), space, name="x", trials=4, root=tmp_path)
    tried = [tuple(trial["settings"].values()) for trial in result["trials"]]
    assert [row[:2] for row in rows] == tried and len(set(tried)) > 1
    assert len({row[2] for row in rows}) == 1
    with pytest.raises(ConfigError, match=r"cannot search 'features.history'"):
        tune(clicks(log), {"features.history": [0.5, 0.6]}, name="x", trials=1, root=tmp_path)


# --- rates -----------------------------------------------------------------------------------------------------------


def test_rates_by_hand(log: Path) -> None:
    settings = clicks(log, "rates", user_prior=3.0, item_prior=5.0)
    parts = read_split(settings.source, settings.prepare, settings.split, seed=0)
    model, _ = pipeline.fit(settings, parts)
    rows = parts.train.frame()
    mean = (rows["label"].sum() + 1) / (len(rows) + 2)

    def logit(column: str, value: str, prior: float) -> float:
        own = rows.filter(pl.col(column) == value)["label"]
        rate = (own.sum() + prior * mean) / (len(own) + prior)
        return float(np.log(rate / (1 - rate)))

    pair = torch.tensor([parts.users.numbers(["u3"])[0]]), torch.tensor([parts.items.numbers(["i4"])[0]])
    expected = logit("user_id", "u3", 3.0) + logit("item_id", "i4", 5.0) - np.log(mean / (1 - mean))
    assert float(model.score(*pair)) == pytest.approx(expected, abs=1e-5)


def test_a_log_without_labels_keeps_its_models(tmp_path: Path) -> None:
    """Rates of edges among all pairs rank items as popularity does."""
    path = write_log(tmp_path)
    rates = once(config(path, "rates"), tmp_path / "a").metrics["test"]
    assert rates == once(config(path, "popular"), tmp_path / "b").metrics["test"]
