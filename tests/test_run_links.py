"""Runs that measure links: which pairs they learn from, which they are measured on, and what they leave."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tests.small_runs import config as ranking

from macrorec import configs, recipes
from macrorec.cli import status
from macrorec.data.sources.home import locate
from macrorec.data.sources.source import Source
from macrorec.data.split import Given, RandomFraction, SplitConfig
from macrorec.errors import ConfigError, DataError
from macrorec.eval.links import PROBES, keys_of
from macrorec.eval.ranking import EvalConfig
from macrorec.graph.bipartite import from_split
from macrorec.inputs import LinkSource, read_probe, read_split
from macrorec.models import load
from macrorec.report.results import record
from macrorec.restore import evaluate_run, export, restore
from macrorec.run import RunConfig, fit, pairs_of, run, watch
from macrorec.store import Bundle
from macrorec.train.trainer import TrainConfig
from macrorec.tune import Board

ALL = tuple(
    f"{name}{probe}" for probe in ("", *(f"_{features}" for features in PROBES)) for name in ("auc_roc", "auc_pr")
)
CPU = torch.device("cpu")


def write_links(folder: Path, n_users: int = 30, n_items: int = 20) -> Path:
    """Users like items of their parity: 60 % of such pairs are train, 40 % test; non-edges are of the other parity.

    The first 60 edges of train are the probe's. User 99 and item 99 occur in non-edges of test only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pairs = rng.permutation([(u, i) for u in range(n_users) for i in range(n_items) if u % 2 == i % 2])
    others = rng.permutation([(u, i) for u in range(n_users) for i in range(n_items) if u % 2 != i % 2])
    cut = len(pairs) * 6 // 10
    train, test = pairs[:cut], pairs[cut:]

    def write(name: str, edges: Any, non_edges: Any = None) -> None:
        rows = edges if non_edges is None else np.concatenate([edges, non_edges])
        frame = pl.DataFrame({"user_id": rows[:, 0], "item_id": rows[:, 1]})
        if non_edges is not None:
            frame = frame.with_columns(label=pl.Series([1] * len(edges) + [0] * len(non_edges), dtype=pl.Int8))
        frame.write_parquet(folder / f"{name}.parquet")

    write("train", train)
    write("edges", test)
    write("test", test, np.concatenate([others[: len(test) - 2], [[99, 3], [4, 99]]]))
    write("probe", train[:60], others[len(test) : len(test) + 60])
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_links(tmp_path / "data")


def links(
    folder: Path, model: str = "gebe", metrics: tuple[str, ...] = ALL, *, seed: int = 0, **more: Any
) -> RunConfig:
    """As Wikipedia's recipes: test and probe with labels, a tenth of train's edges is valid."""
    return RunConfig(
        source=LinkSource(
            path=f"{folder}/train.parquet", test=f"{folder}/test.parquet", probe=f"{folder}/probe.parquet"
        ),
        split=SplitConfig(test=Given(), valid=RandomFraction(fraction=0.1, per_user=False), vocabulary="all"),
        model=load(model).Config(**more),
        train=TrainConfig(epochs=4, batch_size=32, lr=0.05, monitor=None),
        eval=EvalConfig(protocol="links", metrics=metrics),
        seed=seed,
        refit=True,
    )


def drawn(folder: Path, **more: Any) -> RunConfig:
    """As Yelp's: edges alone."""
    source = Source(path=f"{folder}/train.parquet", test=f"{folder}/edges.parquet")
    return replace(links(folder, **more), source=source)


def rows(path: Path) -> set[tuple[int, int, int]]:
    return set(pl.read_parquet(path, columns=["user_id", "item_id", "label"]).rows())


def test_test_is_the_published_pairs_and_no_non_edge_is_learned(data: Path, tmp_path: Path) -> None:
    done = run(links(data, dim=4), name="gebe-links", root=tmp_path / "runs")
    assert {f"pairs-{part}.parquet" for part in ("probe", "valid", "test")} < {p.name for p in done.folder.iterdir()}
    assert rows(done.pairs("test")) == rows(data / "test.parquet")
    assert rows(done.pairs("probe")) == rows(data / "probe.parquet"), "the last stage has no valid to leave out"
    found = restore(done)
    learned = set(zip(found.graph.target.user_E.tolist(), found.graph.target.item_E.tolist(), strict=True))
    vocabulary = found.parts.users, found.parts.items
    ids = {(vocabulary[0].ids[u], vocabulary[1].ids[i]) for u, i in learned}
    assert ids == set(pl.read_parquet(data / "train.parquet").rows()), "valid's edges are back, test's are not"
    assert (len(vocabulary[0]), len(vocabulary[1])) == (31, 21), "nodes of non-edges have a row"

    pairs = pl.read_parquet(done.pairs("test"))
    users_UD, items_ID = (x.detach().double().numpy() for x in found.model.encode())  # type: ignore[operator]
    u, v = (vocab.numbers(pairs[name]) for vocab, name in zip(vocabulary, ("user_id", "item_id"), strict=True))
    expected = roc_auc_score(pairs["label"], (users_UD[u] * items_ID[v]).sum(1))
    assert done.metrics["test"]["auc_roc"] == pytest.approx(expected, abs=1e-6)
    assert set(done.metrics["test"]) == set(done.metrics["valid"]) == set(ALL)
    assert done.metrics["test"]["auc_roc_hadamard"] > 0.9
    counts = done.provenance["counts"]
    assert (counts["pairs"], counts["positives"]) == (240, 120)
    assert "drawn" not in done.provenance["mask"]


def test_the_probe_is_fitted_to_published_pairs_without_those_of_valid(data: Path) -> None:
    settings = links(data)
    parts = read_split(settings.source, settings.prepare, settings.split, seed=0)
    given, made = read_probe(settings.source, parts.train), pairs_of(settings, parts)
    assert given is not None and made is not None
    held_out = np.isin(keys_of(given), keys_of(parts.valid))
    assert 0 < held_out.sum() == len(given) - len(made.probe) < 15
    assert made.probe.digest() == given.take(~held_out).digest()
    assert not np.isin(keys_of(made.valid), np.concatenate([keys_of(given), keys_of(made.test)]))[18:].any()
    last = pairs_of(settings, parts.with_valid_in_train())
    assert last is not None and last.probe.digest() == given.digest()


def test_what_is_drawn_is_the_same_for_every_model_and_seed(data: Path, tmp_path: Path) -> None:
    one, two, three = (
        run(settings, name="links", root=tmp_path / "runs")
        for settings in (drawn(data), drawn(data, seed=1), drawn(data, model="itemknn", metrics=("auc_roc",)))
    )
    digests = [done.provenance["pairs"]["test"] for done in (one, two, three)]
    assert digests[0] == digests[1] == digests[2]
    assert rows(one.pairs("test")) == rows(two.pairs("test")) == rows(three.pairs("test"))
    assert rows(one.pairs("valid")) != rows(two.pairs("valid"))
    test = pl.read_parquet(one.pairs("test"))
    assert set(test.filter(pl.col("label") == 1).drop("label").rows()) == set(
        pl.read_parquet(data / "edges.parquet").rows()
    )
    assert test["label"].sum() * 2 == len(test)
    assert one.provenance["mask"].endswith("1 non-edges per edge drawn with seed 0")


def test_a_run_is_measured_again_on_the_pairs_that_it_saved(data: Path, tmp_path: Path) -> None:
    done = run(drawn(data, metrics=("auc_roc",)), name="links", root=tmp_path / "runs")
    again = evaluate_run(done, metrics=("auc_roc", "auc_roc_concat"))
    assert again.metrics["auc_roc"] == done.metrics["test"]["auc_roc"]
    pl.read_parquet(done.pairs("test"))[60:180].write_parquet(done.pairs("test"))
    assert evaluate_run(done).counts["pairs"] == 120
    with pytest.raises(ConfigError, match="a mask is for rankings"):
        evaluate_run(done, mask="none")


def test_the_command_line_measures_links(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(drawn(data, metrics=("auc_roc",)), name="links", root=tmp_path / "runs")
    assert status(["evaluate", str(done.folder), "--metrics", "auc_pr", "--metrics", "auc_pr_hadamard"]) == 0
    out = capsys.readouterr().out
    assert "auc_pr_hadamard" in out and "pairs 240, positives 120" in out
    knn = run(drawn(data, model="itemknn", metrics=("auc_roc",)), name="knn", root=tmp_path / "runs")
    assert status(["evaluate", str(knn.folder), "--metrics", "auc_roc_concat"]) != 0
    assert "ItemKNN has no vectors to probe; measure auc_roc and auc_pr" in capsys.readouterr().err


def test_a_probe_without_vectors_is_refused_before_anything_is_learned(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ItemKNN has no vectors to probe; measure auc_roc and auc_pr"):
        run(links(data, "itemknn"), name="links", root=tmp_path / "runs")
    parts = read_split(links(data).source, links(data).prepare, links(data).split, seed=0)
    assert not any(path.suffix == ".safetensors" for path in (tmp_path / "runs").rglob("*"))
    with pytest.raises(ConfigError, match="no vectors"):
        fit(links(data, "itemknn"), parts)


def test_training_watches_direct_scores_on_valid(data: Path, tmp_path: Path) -> None:
    settings = links(data, "bpr", dim=4)
    settings = replace(settings, train=replace(settings.train, monitor="auc_roc", epochs=6))
    done = run(settings, name="bpr-links", root=tmp_path / "runs")
    watched = [epoch["metrics"] for epoch in done.history["fit"]["epochs"]]
    assert all(set(values) == {"auc_roc", "auc_pr"} for values in watched), "probes wait until the end"
    assert done.history["fit"]["valid"]["auc_roc"] == max(values["auc_roc"] for values in watched)
    assert set(done.metrics["valid"]) == set(ALL)
    parts = read_split(settings.source, settings.prepare, settings.split, seed=0)
    model, _ = fit(replace(settings, train=replace(settings.train, monitor=None)), parts)
    probed = replace(settings, train=replace(settings.train, monitor="auc_pr_concat"))
    look = watch(probed, parts, CPU, None, pairs_of(probed, parts))
    assert look is not None and set(look(model)) == {"auc_roc", "auc_pr", "auc_pr_concat"}


def test_a_search_sees_the_same_valid_and_nothing_of_test(data: Path) -> None:
    settings = drawn(data, model="itemknn", metrics=("auc_roc",))
    board = Board(settings, CPU)
    parts = read_split(settings.source, settings.prepare, settings.split, seed=0)
    made = pairs_of(settings, parts)
    assert made is not None and board.pairs is not None
    assert board.pairs.valid.digest() == made.valid.digest()
    assert len(board.pairs.test) == len(board.parts.test) == 0
    assert not np.isin(keys_of(board.pairs.valid), keys_of(parts.test)).any()
    model, _ = fit(settings, parts)
    assert board.play(settings, "auc_roc", rebuilt=False)[0] == board.measured(model)["auc_roc"]


def test_a_bundle_of_links_has_seen_train_alone(data: Path, tmp_path: Path) -> None:
    done = run(links(data, "attachment"), name="links", root=tmp_path / "runs")
    bundle = Bundle.load(export(done, tmp_path / "bundle"))
    train = pl.read_parquet(data / "train.parquet")
    assert len(bundle.graph.target) == len(train)
    degrees = train.group_by("item_id").len().sort("item_id")["len"].to_list()
    assert bundle.model.degree_I.tolist() == [*degrees, 0]  # type: ignore[operator, union-attr]


def test_a_record_keeps_the_digest_of_the_pairs(data: Path, tmp_path: Path) -> None:
    done = run(links(data, "attachment"), name="attachment-links", root=tmp_path / "runs")
    kept = record(done, "attachment-links", "macrorec run attachment-links")
    assert kept["pairs"] == done.provenance["pairs"] and set(kept["pairs"]) == {"test"}
    assert json.loads(json.dumps(kept)) == kept
    assert configs.parse(RunConfig, kept["config"]).source.probe.endswith("probe.parquet")  # type: ignore[union-attr]


def test_probe_pairs_that_cannot_be_read(data: Path) -> None:
    settings = links(data)
    assert isinstance(settings.source, LinkSource)
    parts = read_split(settings.source, settings.prepare, settings.split, seed=0)
    for name, message in (("edges", "there is no column 'label'"), ("wide", "user_id 1234 is not in the vocabulary")):
        pl.DataFrame({"user_id": [1234], "item_id": [3], "label": [1]}).write_parquet(data / "wide.parquet")
        with pytest.raises(DataError, match=message):
            read_probe(replace(settings.source, probe=f"{data}/{name}.parquet"), parts.train)
    assert read_probe(drawn(data).source, parts.train) is None


def test_a_ranking_makes_no_pairs(tmp_path: Path) -> None:
    from tests.small_runs import write_log

    settings = ranking(write_log(tmp_path / "data"))
    done = run(settings, name="tiny", root=tmp_path / "runs")
    assert done.provenance["pairs"] == {}
    assert not list(done.folder.glob("pairs-*"))


# --- the published data ----------------------------------------------------------------------------------------------


def there(path: str) -> bool:
    try:
        return locate(path).is_file()
    except DataError:
        return False


@pytest.mark.skipif(not there("wikipedia/train.parquet"), reason="the Wikipedia data are not here")
def test_wikipedia_leaks_nothing_and_is_measured_on_the_published_pairs() -> None:
    settings = recipes.load("attachment-wikipedia")
    parts = read_split(settings.source, settings.prepare, settings.split, seed=0)
    made, given = pairs_of(settings, parts), read_probe(settings.source, parts.train)
    assert made is not None and given is not None
    assert (len(parts.users), len(parts.items)) == (15_000, 3_214)
    assert (len(parts.train) + len(parts.valid), len(made.test), int(made.test.label.sum())) == (38_457, 51_276, 25_638)  # type: ignore[union-attr]
    published = pl.read_parquet(locate("wikipedia/link_test.parquet")).select(pl.all().cast(pl.Int64))
    assert set(made.test.frame().select("user_id", "item_id", pl.col("label").cast(pl.Int64)).rows()) == set(
        published.rows()
    )
    edges, probed = np.concatenate([keys_of(parts.train), keys_of(parts.valid)]), keys_of(given)
    assert not np.isin(keys_of(made.test), edges).any(), "no pair of test is an edge of train"
    assert not np.isin(keys_of(made.test), probed).any()
    assert (np.isin(probed, edges) == (given.label == 1)).all(), "a probe's edges are a third of train's"
    assert len(from_split(parts).target) == len(parts.train)


@pytest.mark.skipif(not there("yelp/train.parquet"), reason="the Yelp data are not here")
def test_yelp_is_measured_on_one_draw() -> None:
    settings = recipes.load("attachment-yelp")
    made = []
    for seed in (0, 1):
        parts = read_split(settings.source, settings.prepare, settings.split, seed=seed)
        made += [pairs_of(settings, parts), pairs_of(settings, parts.with_valid_in_train())]
    digests = {pairs.test.digest() for pairs in made if pairs is not None}
    assert len(digests) == 1 and len(made) == 4
    assert made[0] is not None
    assert [len(made[0].part(name)) for name in ("train", "valid", "test")] == [100_000, 26_050, 130_256]
