import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.small_runs import clicks, config, write_log, write_ratings

import macrorec
from macrorec import files
from macrorec.bundle import MANIFEST, Bundle
from macrorec.clusters import Clusters
from macrorec.data.prepare import PrepareConfig
from macrorec.data.split import Nothing, SplitConfig, TimeQuantile
from macrorec.data.vocab import Vocab
from macrorec.errors import DataError
from macrorec.eval.ranking import EvalConfig
from macrorec.graph.bipartite import Graph
from macrorec.graph.features import FeatureConfig
from macrorec.graph.groups import ByFile, ByKMeans
from macrorec.inputs import read_features, read_split
from macrorec.models.itemknn import ItemKNN
from macrorec.restore import export, restore
from macrorec.run import RunConfig, run

SMALL: dict[str, Any] = {"dim": 8, "n_clusters": 4, "hidden": 4, "n_preferences": 3}
LOG = {"user_id": ["ann", "ann", "bob", "cid"], "item_id": [30, 4, 4, 100], "timestamp": [5, 9, 7, 8]}
"""Users 0, 1, 2; items 0, 1, 2 are 4, 30, 100."""
PREFERENCES = torch.tensor([[0.9, 0.2], [0.2, 0.6], [0.1, 0.1]])
STRENGTHS = torch.tensor([[0.3, 0.7], [0.6, 0.4], [0.5, 0.5]])


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> macrorec.Recommender:
    monkeypatch.setattr(ItemKNN, "clusters", lambda self: (PREFERENCES, STRENGTHS))
    return macrorec.fit(pl.DataFrame(LOG), "itemknn")


def same(one: Clusters | None, other: Clusters | None) -> bool:
    assert one is not None and other is not None
    sides = [(one.users, other.users), (one.items, other.items)]
    return one.until == other.until and all(
        a.nodes == b.nodes and (a.events_N == b.events_N).all() and (a.strength_NK == b.strength_NK).all()
        for a, b in sides
    )


def test_the_files_by_hand(fitted: macrorec.Recommender, tmp_path: Path) -> None:
    """The strongest cluster is that of a row's largest number; of equals it is the first."""
    folder = fitted.save(tmp_path / "b")
    items, users = (pl.read_parquet(folder / f"clusters-{side}.parquet") for side in ("items", "users"))
    assert items.columns == ["item_id", "events", "group", "strengths"]
    assert items.drop("strengths").rows() == [(4, 2, 1), (30, 1, 0), (100, 1, 0)]
    assert users.drop("strengths").rows() == [("ann", 2, 0), ("bob", 1, 1), ("cid", 1, 0)]
    assert items["strengths"].to_numpy().tolist() == STRENGTHS.tolist()
    assert users["strengths"].to_numpy().tolist() == PREFERENCES.tolist()
    for side in ("items", "users"):
        assert pl.read_parquet_metadata(folder / f"clusters-{side}.parquet")["macrorec.until"] == "9"


def test_load_gives_them_back_and_a_second_save_keeps_them(fitted: macrorec.Recommender, tmp_path: Path) -> None:
    folder = fitted.save(tmp_path / "b")
    loaded = macrorec.load(folder)
    assert same(loaded.clusters, fitted.clusters)
    assert same(Bundle.load(loaded.save(tmp_path / "c")).clusters, fitted.clusters)
    listed = json.loads((folder / MANIFEST).read_text())["sha256"]
    assert {"clusters-users.parquet", "clusters-items.parquet"} <= set(listed)
    assert macrorec.fit(pl.DataFrame(LOG), "ease").clusters is None


def forget(folder: Path) -> None:
    """Make of a bundle what was written before clusters were."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for side in ("users", "items"):
        (folder / f"clusters-{side}.parquet").unlink()
        del manifest["sha256"][f"clusters-{side}.parquet"]
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_bundle_of_before_still_loads(fitted: macrorec.Recommender, tmp_path: Path) -> None:
    folder = fitted.save(tmp_path / "b")
    forget(folder)
    assert Bundle.load(folder).clusters is None
    again = macrorec.load(folder).clusters
    assert again is not None and again.until is None
    assert same(replace(again, until=9), fitted.clusters), "asked of the model"


def resealed(folder: Path, frame: pl.DataFrame, name: str = "clusters-items.parquet") -> None:
    frame.write_parquet(folder / name)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"][name] = files.sha256(folder / name)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_ids_in_another_order_and_damaged_files_are_refused(fitted: macrorec.Recommender, tmp_path: Path) -> None:
    folder = fitted.save(tmp_path / "b")
    whole = pl.read_parquet(folder / "clusters-items.parquet")
    for frame, message in (
        (whole.reverse(), "holds other items than the model, or in another order"),
        (whole.head(2), "holds other items than the model, or in another order"),
        (whole.drop("strengths"), "cannot be read as clusters"),
        (whole.with_columns(pl.col("strengths").arr.to_list()), r"its strengths are List\(Float32\)"),
        (whole.with_columns(pl.col("strengths").arr.head(1, as_array=True)), "users and items have not the same"),
    ):
        resealed(folder, frame)
        with pytest.raises(DataError, match=message) as caught:
            Bundle.load(folder)
        assert "\n" not in str(caught.value)
    (folder / "clusters-items.parquet").write_bytes(b"no Parquet")
    with pytest.raises(DataError, match=r"clusters-items\.parquet is damaged"):
        Bundle.load(folder)


def test_nodes_without_an_event_have_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ItemKNN, "clusters", lambda self: (PREFERENCES, STRENGTHS))
    events = macrorec.fit(pl.DataFrame(LOG), "itemknn")
    graph = events._fitted[1]
    target = replace(graph.target, item_E=torch.tensor([1, 2, 1, 2]))
    found = Clusters.of(events.module, Graph(3, 3, graph.behaviors, (target,)), events.users, events.items)
    assert found is not None
    assert found.items.group_N.tolist() == [-1, 0, 0] and found.items.events_N.tolist() == [0, 2, 2]


# --- of CCBIE --------------------------------------------------------------------------------------------------------


def test_a_run_and_its_bundle_hold_what_the_model_says(tmp_path: Path) -> None:
    done = run(config(write_log(tmp_path), "ccbie", **SMALL), name="ccbie-small", root=tmp_path)
    found, again = done.clusters(), restore(done)
    assert found is not None and found.n == 3
    preference_UK, assignment_IK = again.model.clusters()  # type: ignore[misc]
    assert (found.users.strength_NK == preference_UK.numpy()).all()
    assert (found.items.strength_NK == assignment_IK.numpy()).all()
    np.testing.assert_allclose(found.items.strength_NK.sum(1), 1, rtol=1e-5)
    assert found.users.nodes == again.parts.users and found.items.nodes == again.parts.items
    assert again.parts.train.time is not None and found.until == again.parts.train.time.max()
    assert same(Bundle.load(export(done, tmp_path / "bundle")).clusters, found)
    assert same(macrorec.load(done.folder).clusters, found) and same(macrorec.load(tmp_path / "bundle").clusters, found)
    for side in ("users", "items"):
        (done.folder / f"clusters-{side}.parquet").unlink()
    assert done.clusters() is None and same(macrorec.load(done.folder).clusters, found), "a run of before"
    plain = run(config(tmp_path / "log.csv", "ccbie", variant="explicit", dim=8), name="ccbie-e", root=tmp_path)
    assert plain.clusters() is None and not list(plain.folder.glob("clusters-*"))


def likes(path: Path) -> RunConfig:
    """CCBIE on the likes of the first half of the events."""
    return replace(
        clicks(path, "ccbie", **SMALL),
        prepare=PrepareConfig(positive=4.0, dedupe="none"),
        split=SplitConfig(test=TimeQuantile(quantile=0.5), valid=Nothing()),
        eval=EvalConfig(metrics=("ndcg@10",)),
    )


def test_what_comes_later_moves_no_cluster(tmp_path: Path) -> None:
    """Another half of the log after the cut, with as many likes, leaves the clusters as they are to the bit."""
    path = write_ratings(tmp_path)
    folders = []
    for name, shuffled in (("one", False), ("other", True)):
        frame = pl.read_csv(path).with_columns(pl.col("rating").cast(pl.Int64))
        positive = frame.filter(pl.col("rating") >= 4)
        later = pl.col("timestamp") > positive["timestamp"].sort()[(len(positive) + 1) // 2 - 1]
        if shuffled:
            others = pl.when(later).then(pl.col("item_id").reverse().over(later)).otherwise(pl.col("item_id"))
            frame = frame.with_columns(item_id=others)
        (tmp_path / name).mkdir()
        frame.write_csv(tmp_path / name / "ratings.csv")
        (tmp_path / name / "items.csv").write_bytes((tmp_path / "items.csv").read_bytes())
        folders.append(run(likes(tmp_path / name / "ratings.csv"), name="ccbie-h", root=tmp_path / name).folder)
    one, other = (pl.read_parquet(folder / "clusters-items.parquet") for folder in folders)
    assert one.equals(other)


def test_clusters_of_the_history_are_groups_of_a_ranker_and_later_ones_are_refused(tmp_path: Path) -> None:
    path = write_ratings(tmp_path)
    early = SplitConfig(test=TimeQuantile(quantile=0.45), valid=Nothing())
    done = run(replace(likes(path), split=early), name="ccbie-history", root=tmp_path)
    file = done.folder / "clusters-items.parquet"
    ranked = clicks(path)
    grouped = FeatureConfig(kind="as_of", history=0.5, users=ByKMeans(n=2), items=ByFile(path=str(file)))
    parts = read_split(ranked.source, ranked.prepare, ranked.split, seed=0)
    found = read_features(ranked.source, grouped, parts, seed=0).macro.items
    clusters = done.clusters()
    assert clusters is not None
    group = dict(zip(clusters.items.nodes.ids, clusters.items.group_N.tolist(), strict=True))
    assert found.of_N.tolist() == [group.get(own, -1) for own in parts.items.ids]
    with pytest.raises(DataError, match=r"were learned from events up to \d+, and the history ends at \d+") as caught:
        read_features(ranked.source, replace(grouped, history=0.2), parts, seed=0)
    assert "\n" not in str(caught.value)
    other = run(likes(path), name="ccbie-late", root=tmp_path).folder / "clusters-items.parquet"
    with pytest.raises(DataError, match="learn them from the history alone"):
        read_features(ranked.source, replace(grouped, items=ByFile(path=str(other))), parts, seed=0)


def test_items_that_come_later_join_a_cluster_where_that_is_asked_for(tmp_path: Path) -> None:
    """The last two items of the log appear in its second half; those of before stay where the file puts them."""
    path = write_ratings(tmp_path)
    ids = [f"i{n}" for n in range(16)]
    groups = pl.DataFrame({"item_id": ids, "group": [n % 2 for n in range(16)]})
    groups.write_parquet(tmp_path / "groups.parquet")
    ranked = clicks(path)
    parts = read_split(ranked.source, ranked.prepare, ranked.split, seed=0)
    found = {}
    for join in (False, True):
        items = ByFile(path=str(tmp_path / "groups.parquet"), join=join)
        features = FeatureConfig(kind="as_of", history=0.5, users=ByKMeans(n=2), items=items)
        made = read_features(ranked.source, features, parts, seed=0)
        found[join] = dict(zip(parts.items.ids, made.macro.items.of_N.tolist(), strict=True))
        assert (made.report["groups"]["items"]["objective"] is None) == (not join)
    before = {f"i{n}": n % 2 for n in range(16)}
    assert found[False] == {**before, "i16": -1, "i17": -1}
    assert found[True] == {**before, "i16": 0, "i17": 1}


def test_clusters_stand_in_the_order_of_the_vocabulary() -> None:
    class Model(ItemKNN):
        def clusters(self) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.eye(2), torch.eye(2)[[1, 0]]

    frame = pl.DataFrame({"user_id": ["b", "a"], "item_id": [9, 8]})
    log = macrorec.fit(frame, "itemknn")
    graph = log._fitted[1]
    made = Model.from_graph(ItemKNN.Config(), graph, torch.Generator())
    found = Clusters.of(made, graph, Vocab(["a", "b"]), Vocab([8, 9]))
    assert found is not None and found.items.frame("items").rows() == [(8, 1, 1, [0.0, 1.0]), (9, 1, 0, [1.0, 0.0])]
