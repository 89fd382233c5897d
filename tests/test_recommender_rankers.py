"""A ranker behind the Python API: what an event changes at once, for whom, and why a score is what it is."""

import shutil

import numpy as np
import polars as pl
import pytest
import torch
from tests.small_runs import clicks, write_ratings

import macrorec
from macrorec import files, weights
from macrorec.bundle import MANIFEST
from macrorec.errors import ConfigError, DataError
from macrorec.graph.features import FeatureConfig
from macrorec.graph.groups import ByKMeans
from macrorec.graph.macro import MacroGraph
from macrorec.restore import export
from macrorec.run import run

NEWS = pl.DataFrame(
    {
        "user_id": ["u3", "new", "u3", "new", "new", "newer"],
        "item_id": ["i1", "i1", "i3", "i5", "i2", "i2"],
        "rating": [5, 5, 4, 5, 1, 2],
        "timestamp": [1_800_000_000 + 60 * n for n in (0, 1, 2, 3, 4, 5)],
    }
)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return write_ratings(tmp_path_factory.mktemp("ratings"))


def fitted(log, model="macgnn", **settings):
    return macrorec.fit(log, model, positive=4, epochs=3, batch_size=64, lr=0.01, quiet=True, **settings)


@pytest.fixture
def recommender(log):
    return fitted(log)


def rebuilt(recommender, *frames):
    """The macro graph of all positives at once, with the groups that the recommender counts by."""
    rows = pl.concat([frame.select("user_id", "item_id", "rating", "timestamp") for frame in frames])
    rows = rows.filter(pl.col("rating") >= 4)
    macro = recommender.module.macro
    user, item = recommender.users.numbers(rows["user_id"]), recommender.items.numbers(rows["item_id"])
    return MacroGraph(macro.users, macro.items, user, item, None, rows["timestamp"].to_numpy())


def same_features(a, b):
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(len(b.users)), np.arange(len(b.items))))
    ours, theirs = a.features(user, item), b.features(user, item)
    for name in ours.__slots__:
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


# --- fit -------------------------------------------------------------------------------------------------------------


def test_a_ranker_learns_who_likes_what(recommender):
    asked = [(f"u{user}", f"i{item}") for user in range(22) for item in range(16)]
    score = recommender.score(asked)["score"].to_numpy()
    liked = np.array([user % 2 == item % 2 for user in range(22) for item in range(16)])
    assert (score[liked][:, None] > score[~liked]).mean() > 0.95


def test_ratings_without_a_threshold_are_refused(log):
    with pytest.raises(DataError, match="ratings run from 1 to 5: say which are positives, such as positive=5"):
        macrorec.fit(log, "macgnn", epochs=1, quiet=True)


def test_a_log_without_labels_and_times_has_drawn_negatives():
    log = pl.DataFrame({"user_id": np.repeat(np.arange(30), 8), "item_id": (np.arange(240) * 7) % 20})
    recommender = macrorec.fit(log, "macgnn", epochs=1, quiet=True)
    answer = recommender.recommend([3, 4], 5)
    assert len(answer) == 10 and set(answer["path"]) == {"model"}
    again = macrorec.fit(log, "macgnn", epochs=1, quiet=True)
    assert again.recommend([3, 4], 5).equals(answer)


def test_features_are_the_callers_to_choose(log):
    features = FeatureConfig(kind="as_of", history=0.3, users=ByKMeans(n=3), items=ByKMeans(n=4), recents=2)
    macro = fitted(log, features=features).module.macro
    assert (macro.users.n, macro.items.n, macro.recents) == (3, 4, 2)
    with pytest.raises(ConfigError, match="features are for rankers, and ease is none"):
        macrorec.fit(log, "ease", features=features)


# --- scores ----------------------------------------------------------------------------------------------------------


def test_candidates_alone_are_scored(recommender, monkeypatch):
    seen = []
    real = MacroGraph.candidates

    def spy(self, user, item_B):
        seen.append(len(item_B))
        return real(self, user, item_B)

    monkeypatch.setattr(MacroGraph, "candidates", spy)
    answer = recommender.recommend(["u3"], 9, candidates=["i1", "i4", "i7"], filter_seen=False)
    assert seen == [3]
    expected = recommender.score([("u3", item) for item in answer["item_id"]])["score"]
    np.testing.assert_allclose(answer["score"], expected, rtol=1e-5)
    assert answer["score"].to_list() == sorted(answer["score"], reverse=True)


def test_large_catalogues_are_scored_in_blocks(recommender, monkeypatch):
    whole = recommender.recommend(["u3"], 18, filter_seen=False)
    monkeypatch.setattr("macrorec.api._IMPRESSIONS_AT_ONCE", 5)
    blocks = recommender.recommend(["u3"], 18, filter_seen=False)
    assert blocks["item_id"].to_list() == whole["item_id"].to_list()
    np.testing.assert_allclose(blocks["score"], whole["score"], rtol=1e-5, atol=1e-6)


# --- update ----------------------------------------------------------------------------------------------------------


def test_after_an_update_the_macro_graph_equals_one_of_all_events(recommender, log):
    recommender.update(NEWS)
    same_features(recommender.module.macro, rebuilt(recommender, pl.read_csv(log), NEWS))


@pytest.mark.parametrize("model", ["macgnn", "din"])
def test_order_and_number_of_updates_do_not_matter_where_there_are_times(model, log):
    at_once, one_by_one = fitted(log, model), fitted(log, model)
    at_once.update(NEWS)
    for row in (4, 2, 0, 5, 1, 3):
        one_by_one.update(NEWS[row : row + 1])
    users = [*at_once.users.ids]
    assert one_by_one.recommend(users, 5).equals(at_once.recommend(users, 5))


def test_events_without_a_time_come_last_in_their_order(recommender):
    recommender.update({"user_id": ["u3", "u3"], "item_id": ["i9", "i4"]})
    recommender.update({"user_id": ["u3", "u3"], "item_id": ["i7", "i2"], "timestamp": [None, 1_900_000_000]})
    user = recommender.users.numbers(["u3"])
    latest = recommender.items.ids_of(recommender.module.macro.user_recent(user)[0, :4]).to_list()
    assert latest == ["i7", "i4", "i9", "i2"]


def test_an_event_counts_at_once_and_a_low_rating_is_only_seen(recommender):
    before = recommender.recommend(["u3"], 18)["item_id"].to_list()
    counted = recommender.module.macro.n_events
    assert recommender.update(NEWS) == {"events": 6, "users": 3, "new_users": 2, "unknown_items": 0}
    assert recommender.module.macro.n_events == counted + 4
    assert set(recommender.recommend(["new"], 18)["item_id"]) == set(recommender.items.ids) - {"i1", "i5", "i2"}
    assert set(before) - set(recommender.recommend(["u3"], 18)["item_id"]) <= {"i1", "i3"}


def test_a_new_user_is_scored_from_its_macro_rows_alone(recommender):
    recommender.update(NEWS)
    paths = dict(zip(*recommender.score([(u, "i7") for u in ("u3", "new", "newer")])["user_id", "path"], strict=True))
    assert paths == {"u3": "model", "new": "macro", "newer": "macro"}
    answer = recommender.recommend(["new"], 8)
    assert set(answer["path"]) == {"macro"}
    odd = [int(item[1:]) % 2 == 1 for item in answer["item_id"]]
    assert sum(odd[:4]) >= 3, "it has liked odd items only"
    assert set(recommender.recommend(["nobody"], 3, unknown="fallback")["path"]) == {"popular"}
    assert recommender.explain("new", "i7").path == "macro"


def test_the_fitted_graph_stays_as_it_was(log, tmp_path):
    recommender = fitted(log)
    bundle = recommender.save(tmp_path / "before")
    recommender.update(NEWS)
    after = recommender.save(tmp_path / "after")
    one, other = (weights.read(folder / "macro.safetensors") for folder in (bundle, after))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


# --- reasons ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [("u3", "i1"), ("u22", "i17"), ("u5", "i0")])
def test_contributions_add_up_to_the_score(recommender, pair):
    score = recommender.score([pair])["score"][0]
    for k in (None, 1, 3):
        found = recommender.explain(*pair, k)
        assert found.exact and found.path == "model"
        assert found.score == pytest.approx(score, rel=1e-5)
        assert found.reasons["contribution"].sum() == pytest.approx(score, abs=1e-5)
        if k is not None:
            told = found.reasons.filter(pl.col("what") != "(others)").group_by("side", "via").len()
            assert told.filter(~pl.col("via").is_in(["base", "itself"]))["len"].max() <= k


def test_neighbours_have_names_that_a_person_can_read(log, tmp_path):
    done = run(clicks(log), name="clicks", root=tmp_path)
    found = macrorec.load(done.folder).explain("u3", "i1")
    user_hop1 = found.reasons.filter((pl.col("side") == "user") & (pl.col("via") == "hop 1"))
    assert set(user_hop1["what"]) == {"red", "blue"}
    assert (
        user_hop1.filter(pl.col("what") == "blue")["count"][0] > user_hop1.filter(pl.col("what") == "red")["count"][0]
    )
    recent = found.reasons.filter((pl.col("side") == "user") & (pl.col("via") == "recent"))["what"]
    assert all(name.startswith("Item ") or name == "i17" for name in recent)
    groups = found.reasons.filter((pl.col("side") == "item") & (pl.col("via") == "hop 1"))["what"]
    parities = [{int(name.split()[-1]) % 2 for name in group.split("; ") if name != "i17"} for group in groups]
    assert sorted(map(sorted, parities)) == [[0], [1]], "a group of users is called after three items of its colour"


def test_a_ranker_that_tells_no_reasons_tells_likenesses(log):
    found = fitted(log, "lr").explain("u3", "i1", 2)
    assert not found.exact and found.reasons.columns == ["item_id", "weight"]


# --- save and load ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", ["positive", "signed"])
def test_saved_and_loaded_answers_are_equal(edges, log, tmp_path):
    features = FeatureConfig(kind="as_of", history=0.5, users=ByKMeans(n=2), items=ByKMeans(n=2), edges=edges)
    recommender = fitted(log, features=features)
    recommender.update(NEWS)
    loaded = macrorec.load(recommender.save(tmp_path / "bundle"))
    users = [*recommender.users.ids]
    assert loaded.recommend(users, 5).equals(recommender.recommend(users, 5))
    assert loaded.explain("new", "i7").reasons.equals(recommender.explain("new", "i7").reasons)
    counted = loaded.module.macro.n_events
    loaded.update({"user_id": ["u1"], "item_id": ["i1"], "rating": [2]})
    assert loaded.module.macro.n_events == counted + (edges == "signed"), "the threshold of ratings is kept"


def test_a_bundle_of_a_run_answers_as_the_run(log, tmp_path):
    done = run(clicks(log), name="clicks", root=tmp_path)
    of_run, of_bundle = macrorec.load(done.folder), macrorec.load(export(done, tmp_path / "bundle"))
    users = [*of_run.users.ids]
    assert of_bundle.recommend(users, 5).equals(of_run.recommend(users, 5))
    assert of_bundle.explain("u3", "i1").reasons.equals(of_run.explain("u3", "i1").reasons)
    for one in (of_run, of_bundle):
        one.update({"user_id": ["u3"], "item_id": ["i1"], "rating": [2]})
    assert of_bundle.module.macro.n_events == of_run.module.macro.n_events


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("users.key", lambda t: t + 1000, "'users.key' does not fit"),
        ("items.key", lambda t: t - 1000, "'items.key' does not fit"),
        ("users.size", lambda t: t[:-1], "'users.size' does not fit"),
        ("items.size", lambda t: t + 1, "'items.size' does not fit"),
        ("users.group", lambda t: t + 50, "'users.group' does not fit"),
        ("items.weight", lambda t: t[1:], "'items.size' does not fit"),
        ("item_hop2.rows", lambda t: t[:, 1:].clone(), "'item_hop2.rows' does not fit"),
        ("settings", lambda t: None, "settings"),
        ("users.names", lambda t: torch.zeros(3, dtype=torch.uint8), "cannot be read"),
    ],
)
def test_a_macro_graph_that_points_outside_is_refused(name, change, message, recommender, tmp_path):
    bundle = recommender.save(tmp_path / "bundle")
    tensors = weights.read(bundle / "macro.safetensors")
    changed = change(tensors.pop(name))
    weights.write(bundle / "macro.safetensors", tensors if changed is None else {**tensors, name: changed})
    with pytest.raises(DataError, match=r"macro.safetensors is damaged: its sha256"):
        macrorec.load(bundle)
    manifest = files_json(bundle / MANIFEST)
    manifest["sha256"]["macro.safetensors"] = files.sha256(bundle / "macro.safetensors")
    files.write_json(bundle / MANIFEST, manifest)
    with pytest.raises(DataError, match=message) as error:
        macrorec.load(bundle)
    assert "\n" not in str(error.value)


def test_a_bundle_without_its_macro_graph_is_incomplete(recommender, tmp_path):
    bundle = recommender.save(tmp_path / "bundle")
    shutil.copytree(bundle, tmp_path / "copy")
    (tmp_path / "copy" / "macro.safetensors").unlink()
    with pytest.raises(DataError, match=r"incomplete: macro.safetensors is missing"):
        macrorec.load(tmp_path / "copy")


def files_json(path):
    import json

    return json.loads(path.read_text())
