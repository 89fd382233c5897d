"""The Python API: one's own ids in, one's own ids out; what an update changes at once, and what it leaves."""

from datetime import datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from tests.logs import FUNNEL
from tests.small_runs import config, write_log

import macrorec
from macrorec import models
from macrorec.api import ItemLinear, Ranker
from macrorec.errors import ConfigError, DataError, ResourceError, UserError
from macrorec.run import run

BRIEF = {"bpr": {"epochs": 2}, "lightgcn": {"epochs": 2}}
# Ann and bob share a and b; cid and dan share c and d; eve is new to most.
TINY = pl.DataFrame(
    {
        "user_id": ["ann", "ann", "bob", "bob", "bob", "cid", "cid", "dan", "dan", "dan", "eve"],
        "item_id": ["a", "b", "a", "b", "e", "c", "d", "c", "d", "f", "a"],
    }
)


def random_log(n_users=25, n_items=18, n=260, seed=0):
    random = np.random.default_rng(seed)
    users = [f"u{number:02}" for number in random.integers(0, n_users, n)]
    return pl.DataFrame({"user_id": users, "item_id": random.integers(0, n_items, n) * 7})


def fitted(name, log=None, **params):
    return macrorec.fit(random_log() if log is None else log, name, quiet=True, **BRIEF.get(name, {}), **params)


@pytest.fixture(params=models.names())
def recommender(request):
    return fitted(request.param)


@pytest.fixture(params=[name for name in models.names() if not issubclass(models.load(name), Ranker)])
def unranked(request):
    """Not rankers: what they know of a user changes with other users, and with the order of events."""
    return fitted(request.param)


# --- fit -------------------------------------------------------------------------------------------------------------


def test_three_lines_from_a_file(tmp_path):
    TINY.write_csv(tmp_path / "clicks.csv")
    recommender = macrorec.fit(tmp_path / "clicks.csv", model="itemknn")
    answer = recommender.recommend(["ann", "dan"], k=2)
    # b and a are ann's; sim(a, e) = 1 / sqrt 3, sim(b, e) = 1 / sqrt 2. Only e is near.
    assert answer.columns == ["user_id", "item_id", "score", "rank", "path"]
    assert answer.row(0)[:2] == ("ann", "e")
    assert answer["score"][0] == pytest.approx(3**-0.5 + 2**-0.5)
    assert answer["rank"].to_list() == [1, 2, 1, 2]


@pytest.mark.parametrize(
    "form",
    [lambda f: f, lambda f: f.lazy(), lambda f: f.to_arrow(), lambda f: f.to_dict(as_series=False)],
    ids=["polars", "lazy", "pyarrow", "mapping"],
)
def test_tables_of_any_kind(form):
    expected = fitted("ease", TINY).recommend(["ann"], 3)
    assert fitted("ease", form(TINY)).recommend(["ann"], 3).equals(expected)


def test_other_column_names_and_dates():
    log = pa.table({"customer": [1, 1, 2], "sku": ["x", "y", "x"], "when": [datetime(2024, 1, 1)] * 3})
    recommender = fitted("popular", log, columns={"user_id": "customer", "item_id": "sku", "timestamp": "when"})
    assert recommender.recommend([2], 1).rows() == [(2, "y", 1.0, 1, "model")]


@pytest.mark.parametrize(("users", "dtype"), [([1, 2, 2], pl.Int64), (["1", "2", "2"], pl.String)])
def test_ids_come_back_in_the_type_of_the_log(users, dtype, tmp_path):
    recommender = fitted("popular", {"user_id": users, "item_id": ["10", "11", "10"]})
    for found in (recommender, macrorec.load(recommender.save(tmp_path / "bundle"))):
        answer = found.recommend(users[:1], 1)
        assert answer.schema["user_id"] == dtype
        assert answer.schema["item_id"] == pl.String
        assert found.recommend([1], 1).equals(answer)
        assert found.recommend(["1"], 1).equals(answer)


def test_target_among_behaviours():
    log = TINY.with_columns(behavior=pl.Series(["buy", "view"] * 5 + ["buy"]))
    recommender = fitted("popular", log, target="buy")
    assert [(b.name, b.role, b.mask) for b in recommender.behaviors] == [
        ("view", "auxiliary", False),
        ("buy", "target", True),
    ]
    with pytest.raises(ConfigError, match="has no behaviour 'cart'; it has 'buy', 'view'"):
        fitted("popular", log, target="cart")
    with pytest.raises(DataError, match="say which is the target"):
        fitted("popular", log)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "eaze"}, "did you mean 'ease'"),
        ({"lambda_": 3}, "unknown setting 'lambda_'; allowed are .*l2"),
        ({"l2": "much"}, "l2"),
        ({"epochs": 3}, "closed form, and takes no 'epochs'"),
        ({"target": "buy"}, "no column of behaviours"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_wrong_settings_are_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message) as error:
        macrorec.fit(TINY, **arguments)
    assert "\n" not in str(error.value)


def test_a_model_that_would_not_fit_in_memory_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr("macrorec.train.memory.available_bytes", lambda device="cpu": 1000)
    with pytest.raises(ResourceError, match="ease on 5 users x 6 items needs about"):
        macrorec.fit(TINY, "ease")


# --- recommend -------------------------------------------------------------------------------------------------------


def test_recommend_equals_a_sort_of_all_scores(recommender):
    log = random_log()
    users = ["u03", "u11", "u03"]
    answer = recommender.recommend(users, 4)
    for place, user in enumerate(users):
        own = set(log.filter(pl.col("user_id") == user)["item_id"])
        others = [item for item in recommender.items.ids if item not in own]
        scores = recommender.score([(user, item) for item in others])["score"].to_list()
        expected = sorted(zip(others, scores, strict=True), key=lambda pair: (-pair[1], pair[0]))[:4]
        rows = answer[4 * place : 4 * place + 4]
        assert rows["user_id"].to_list() == [user] * 4
        assert rows["rank"].to_list() == [1, 2, 3, 4]
        np.testing.assert_allclose(rows["score"], [score for _, score in expected], rtol=1e-4, atol=1e-6)
        assert len(set(rows["item_id"]) & own) == 0


def test_candidates_and_seen_items():
    recommender = fitted("popular", TINY)
    assert recommender.recommend(["ann"], 9, candidates=["c", "b", "f"])["item_id"].to_list() == ["c", "f"]
    everything = recommender.recommend(["ann"], 9, candidates=["c", "b", "f"], filter_seen=False)
    assert everything["item_id"].to_list() == ["b", "c", "f"]
    assert len(recommender.recommend(["ann"], 99)) == 4
    assert len(recommender.recommend([], 3)) == 0


def test_unknown_users_by_policy():
    recommender = fitted("ease", TINY)
    asked = ["ann", "zoe", "dan"]
    with pytest.raises(UserError, match="unknown user id 'zoe'; there are 5 users, such as 'ann'"):
        recommender.recommend(asked, 1)
    known = recommender.recommend(["ann", "dan"], 2)
    assert recommender.recommend(asked, 2, unknown="skip").equals(known)
    answer = recommender.recommend(asked, 2, unknown="fallback")
    assert answer.filter(pl.col("user_id") != "zoe").equals(known)
    assert answer.filter(pl.col("user_id") == "zoe").rows() == [
        ("zoe", "a", 3.0, 1, "popular"),
        ("zoe", "b", 2.0, 2, "popular"),
    ]


def test_fallback_for_text_where_ids_are_integers():
    recommender = fitted("popular", {"user_id": [1, 2], "item_id": [5, 6]})
    assert recommender.recommend([1, 99], 1, unknown="fallback")["user_id"].to_list() == [1, 99]
    assert recommender.recommend(["1", "zoe"], 1, unknown="fallback")["user_id"].to_list() == ["1", "zoe"]


def test_what_is_unknown_or_out_of_range_is_one_line():
    recommender = fitted("ease", TINY)
    for call, message in (
        (lambda: recommender.recommend(["ann"], 0), "k must be a whole number of at least 1; got 0"),
        (lambda: recommender.recommend(["ann"], 2.5), "got 2.5"),
        (lambda: recommender.recommend("ann"), r"give a list of ids, such as \['ann'\]"),
        (lambda: recommender.recommend(["ann"], unknown="ignore"), "unknown must be one of error, skip, fallback"),
        (lambda: recommender.recommend(["ann"], candidates=[]), "candidates: none"),
        (lambda: recommender.recommend(["ann"], candidates=["z"]), "unknown item id 'z'"),
        (lambda: recommender.recommend(["ann"], candidates=["z"], unknown="skip"), "candidates: none"),
        (lambda: recommender.recommend_for(["z"]), "unknown item id 'z'"),
        (lambda: recommender.similar_items(["z"]), "unknown item id 'z'"),
        (lambda: recommender.similar_users(["z"], unknown="fallback"), "one of error, skip; got 'fallback'"),
        (lambda: recommender.score([("ann", "z")]), "unknown item id 'z'"),
        (lambda: recommender.score([("ann",)]), "a list of"),
        (lambda: recommender.explain("zoe", "a"), "unknown user id 'zoe'"),
    ):
        with pytest.raises(UserError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_new_users_by_their_items(recommender):
    answer = recommender.recommend_for([0, 7, 14], 5)
    assert answer.columns == ["item_id", "score", "rank", "path"]
    assert len(answer) == 5
    assert set(answer["path"]) == {"fold_in"}
    assert not set(answer["item_id"]) & {0, 7, 14}
    assert set(recommender.recommend_for([], 5)["path"]) == {"popular"}
    assert recommender.recommend_for([0, "no such"], 5, unknown="skip").equals(recommender.recommend_for([0], 5))


def test_somebody_new_with_the_items_of_a_user_gets_what_the_user_gets():
    for name in ("ease", "itemknn", "gfcf", "popular"):
        recommender = fitted(name)
        known = recommender.recommend(["u05"], 6).drop("user_id", "path")
        own = recommender.history("u05")["item_id"]
        assert recommender.recommend_for(own, 6).drop("path").equals(known)


# --- likeness and reasons --------------------------------------------------------------------------------------------


def test_likeness_leaves_out_the_thing_itself(recommender):
    items = recommender.similar_items([21, 0], 3)
    assert items.columns == ["item_id", "similar_id", "score", "rank"]
    assert (items["item_id"] != items["similar_id"]).all()
    users = recommender.similar_users(["u02", "u01"], 3)
    assert users.columns == ["user_id", "similar_id", "score", "rank"]
    assert (users["user_id"] != users["similar_id"]).all()
    for frame in (items, users):
        assert frame["rank"].to_list() == [1, 2, 3] * 2
        assert frame["score"].to_list()[:3] == sorted(frame["score"].to_list()[:3], reverse=True)


def test_likeness_by_hand():
    recommender = fitted("userknn", TINY)
    answer = recommender.similar_users(["ann"], 5)
    # |ann| = 2: bob shares 2 of his 3, eve 1 of her 1; nobody else shares anything.
    assert answer["similar_id"].to_list() == ["bob", "eve"]
    assert answer["score"].to_list() == pytest.approx([2 / 6**0.5, 1 / 2**0.5])
    # Users of e: bob. Of a: ann, bob, eve. Of b: ann, bob.
    answer = recommender.similar_items(["e"], 5)
    assert answer["similar_id"].to_list() == ["b", "a"]
    assert answer["score"].to_list() == pytest.approx([1 / 2**0.5, 1 / 3**0.5])


def test_reasons_sum_to_the_score_where_they_are_exact(unranked):
    recommender = unranked
    for user, item in (("u05", 21), ("u05", 0)):
        found = recommender.explain(user, item)
        assert found.exact == isinstance(recommender.module, ItemLinear)
        assert found.score == recommender.score([(user, item)])["score"][0]
        assert set(found.reasons["item_id"]) == set(recommender.history(user)["item_id"])
        if found.exact:
            assert found.reasons["weight"].sum() == pytest.approx(found.score, rel=1e-4, abs=1e-6)
        assert len(recommender.explain(user, item, 2).reasons) == 2


# --- update ----------------------------------------------------------------------------------------------------------

NEWS = pl.DataFrame({"user_id": ["u03", "new", "u03", "new", "new"], "item_id": [0, 7, 7, 14, 7]})


def test_what_an_update_brought_is_counted():
    recommender = fitted("popular")
    news = pl.concat([NEWS, pl.DataFrame({"user_id": ["u04"], "item_id": [9999]})])
    assert recommender.update(news) == {"events": 5, "users": 2, "new_users": 1, "unknown_items": 1}
    assert len(recommender.users) == 26


def test_popular_after_an_update_equals_a_new_fit():
    updated, again = fitted("popular"), fitted("popular", pl.concat([random_log(), NEWS]))
    updated.update(NEWS)
    users = [*again.users.ids]
    columns = ["user_id", "item_id", "score", "rank"]
    assert updated.recommend(users, 18).select(columns).equals(again.recommend(users, 18).select(columns))


def test_seen_items_and_histories_after_an_update_equal_a_new_fit(recommender):
    again = fitted("popular", pl.concat([random_log(), NEWS]))
    recommender.update(NEWS)
    for user in again.users.ids:
        assert recommender.history(user).equals(again.history(user))
        assert set(recommender.recommend([user], 99)["item_id"]) == set(again.recommend([user], 99)["item_id"])


@pytest.mark.parametrize("name", ["ease", "itemknn", "gfcf"])
def test_rows_after_an_update_are_the_old_weights_applied_to_the_new_history(name):
    recommender = fitted(name)
    everything = recommender.items.ids
    numbers = torch.arange(len(everything))
    old = recommender.module.similar(numbers, numbers)
    recommender.update(NEWS)
    for user, path in (("u03", "fold_in"), ("new", "fold_in"), ("u04", "model")):
        answer = recommender.score([(user, item) for item in everything])
        own = torch.from_numpy(recommender.items.numbers(recommender.history(user)["item_id"]))
        np.testing.assert_allclose(answer["score"], old[own].sum(0), rtol=1e-4, atol=1e-6)
        assert set(answer["path"]) == {path}


def test_other_users_are_left_alone(unranked):
    recommender = unranked
    others = ["u00", "u01", "u02"]
    before = recommender.recommend(others, 5)
    recommender.update(NEWS)
    if models.name_of(type(recommender.module)) not in ("popular", "retarget", "cascadingrank", "attachment"):
        assert recommender.recommend(others, 5).equals(before)
    assert set(recommender.recommend(["new"], 3)["path"]) == {"fold_in"}
    assert len(recommender.similar_users(["new", "u03"], 2)) == 4
    assert recommender.explain("new", 21).path == "fold_in"


def test_order_and_number_of_updates_do_not_matter(unranked):
    recommender = unranked
    name = models.name_of(type(recommender.module))
    recommender.update(NEWS)
    other = fitted(name)
    for row in (4, 2, 0, 1, 3):
        other.update(NEWS[row : row + 1])
    users = [*recommender.users.ids]
    assert other.recommend(users, 5).equals(recommender.recommend(users, 5))
    assert other.history("new").equals(recommender.history("new"))


def test_auxiliary_events_do_not_make_a_history():
    log = TINY.with_columns(behavior=pl.lit("buy"), weight=pl.lit(1.0))
    recommender = fitted("ease", log, behaviors=FUNNEL)
    recommender.update({"user_id": ["zoe"], "item_id": ["a"], "behavior": ["view"]})
    assert recommender.recommend(["zoe"], 1).rows() == [("zoe", "a", 3.0, 1, "popular")]
    assert recommender.explain("zoe", "a").path == "popular"
    recommender.update({"user_id": ["zoe"], "item_id": ["a"]})
    assert recommender.recommend(["zoe"], 1)["path"].to_list() == ["fold_in"]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ({"user_id": ["ann"]}, "no column for item_id"),
        ({"user_id": ["ann"], "item_id": ["a"], "behavior": ["steal"]}, "unknown behaviour 'steal'"),
        ({"user_id": ["ann"], "item_id": ["a"], "weight": [-1.0]}, "finite number of at least 0"),
        ({"user_id": ["ann"], "item_id": ["a"], "weight": ["much"]}, "finite number of at least 0"),
        ({"user_id": [None], "item_id": ["a"]}, "user id None is not text"),
        (7, "no table"),
    ],
)
def test_news_that_cannot_be_used_are_refused_and_change_nothing(events, message):
    recommender = fitted("popular", TINY)
    before = recommender.recommend(["ann"], 5)
    with pytest.raises(DataError, match=message):
        recommender.update(events)
    assert recommender.recommend(["ann"], 5).equals(before)


# --- save and load ---------------------------------------------------------------------------------------------------


def test_saved_and_loaded_answers_are_equal(recommender, tmp_path):
    recommender.update(NEWS)
    loaded = macrorec.load(recommender.save(tmp_path / "bundle"))
    users = [*recommender.users.ids]
    assert loaded.recommend(users, 5).equals(recommender.recommend(users, 5))
    assert loaded.recommend_for([0, 7], 5).equals(recommender.recommend_for([0, 7], 5))
    assert loaded.explain("new", 21, 3).reasons.equals(recommender.explain("new", 21, 3).reasons)
    loaded.update({"user_id": ["newer"], "item_id": [0]})
    assert len(loaded.users) == len(users) + 1


def test_a_finished_run_is_loaded_too(tmp_path):
    path = write_log(tmp_path)
    done = run(config(path), name="tiny", root=tmp_path / "runs")
    recommender = macrorec.load(done.folder)
    assert len(recommender.recommend(["u3"], 2)) == 2


def test_what_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a bundle: there is no such folder"):
        macrorec.load(tmp_path / "nothing")
    with pytest.raises(DataError, match="it has no manifest"):
        macrorec.load(tmp_path)
