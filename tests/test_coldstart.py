"""Users held out of train: nothing of them leaks, and what they give is all that is known."""

from dataclasses import replace

import numpy as np
import pytest
from tests.eval.test_metrics import slow
from tests.small_runs import clicks, config, write_funnel, write_ratings

from macrorec import coldstart, models
from macrorec.coldstart import ALL, newcomers, study
from macrorec.data.log import Behavior
from macrorec.data.split import RandomFraction, SplitConfig
from macrorec.errors import ConfigError, DataError
from macrorec.inputs import read_split
from macrorec.run import fit

ITEMS = (1, 2, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


def settings(folder, model="ease", **more):
    """Thirty users took nine of twenty items each, those of their own half three times as often."""
    rng, rows = np.random.default_rng(0), ["user_id,item_id,timestamp"]
    for user in range(30):
        share = np.where(np.arange(20) // 10 == user % 2, 3.0, 1.0)
        items = rng.choice(20, 9, replace=False, p=share / share.sum())
        rows += [f"u{user:02d},i{item:02d},{1_700_000_000 + 60 * t}" for t, item in enumerate(items)]
    (folder / "drawn.csv").write_text("\n".join(rows) + "\n")
    return config(folder / "drawn.csv", model, **more)


def parts_of(run):
    return read_split(run.source, run.prepare, run.split, seed=run.seed)


def funnel(folder, model="bpr"):
    run = config(write_funnel(folder), model)
    view = Behavior(name="view", role="auxiliary", mask=False)
    return replace(run, source=replace(run.source, behaviors=(view, Behavior(name="buy"))))


def pairs_of(part, users):
    return {(int(u), int(i)) for u, i in zip(part.user, part.item, strict=True) if u in users}


@pytest.mark.parametrize("make", [settings, funnel])
def test_nothing_of_newcomers_is_in_train_but_what_they_give(folder, make):
    parts = parts_of(make(folder, "bpr"))
    found = newcomers(parts, 0.3, 4, seed=5)
    own = set(found.users_B.tolist())
    assert len(own) == 9 and found.users_B.tolist() == sorted(own)
    for part in ("train", "valid", "test"):
        assert not own & set(found.warm.part(part).user.tolist())
        assert len(found.warm.part(part)) + len(pairs_of_rows(parts.part(part), own)) == len(parts.part(part))
    assert set(found.whole.test.user.tolist()) == own
    bought = parts.train.take(parts.train.behavior == parts.train.target)
    before = set()
    for h in (1, 2, 4, ALL):
        train = found.with_given(h).train
        given = train.take(np.isin(train.user, found.users_B))
        assert (given.behavior == given.target).all()
        now = pairs_of(given, own)
        assert before < now <= pairs_of(bought, own)
        sizes = np.bincount([user for user, _ in now], minlength=len(parts.users))[found.users_B]
        assert h == ALL or sizes.tolist() == [h] * 9
        assert {(key // 20, key % 20) for key in found.given(h).tolist()} == now
        before = now
    assert now == pairs_of(bought, own)


def pairs_of_rows(part, users):
    return [u for u in part.user.tolist() if u in users]


def test_who_and_which_items_are_drawn_from_the_seed(folder):
    parts = parts_of(settings(folder))
    first, again, other = (newcomers(parts, 0.5, 2, seed) for seed in (0, 0, 1))
    assert first.users_B.tolist() == again.users_B.tolist() and first.rank_E.tolist() == again.rank_E.tolist()
    assert first.users_B.tolist() != other.users_B.tolist()
    places = [np.sort(first.rank_E[first.pair_E // 20 == user]).tolist() for user in first.users_B]
    assert places == [list(range(7))] * 15
    assert len({tuple(first.given(2)[first.given(2) // 20 == user] % 20) for user in first.users_B}) > 5


def test_the_cells_of_a_linear_model_equal_loops(folder):
    """Given rows times the weights fitted without newcomers, all of train masked; retrained: with their rows in it."""
    run = settings(folder, l2=3.0)
    got = study(run, {"popular": models.load("popular").Config()}, items=ITEMS, share=0.4)
    whole = parts_of(run).with_valid_in_train()
    found = newcomers(whole, 0.4, max(ITEMS), seed=0)
    assert got["users"] == [len(found.users_B)] and got["epochs"] == [None] and got["items"] == [*ITEMS, ALL]
    count_I = np.bincount(found.warm.train.item, minlength=20)
    plain = replace(run.train, monitor=None, patience=None)
    weights = fit(run, found.warm, settings=plain)[0].weight_II.numpy()
    for place, h in enumerate(got["items"]):
        anew = fit(run, found.with_given(h), settings=plain)[0].weight_II.numpy()
        rows_UI = np.zeros((30, 20))
        rows_UI.flat[found.given(h)] = 1
        for way, scores_UI in (
            ("fold-in", rows_UI @ weights),
            ("retrained", rows_UI @ anew),
            ("popular", np.tile(count_I, (30, 1))),
        ):
            values = [by_loop(scores_UI[user], user, whole, 3) for user in found.users_B]
            assert got["ways"][way][place]["ndcg@3"]["mean"] == pytest.approx(np.mean(values), rel=1e-6), (way, h)
        told = got["differences"][place]
        ways = [got["ways"][way][place]["ndcg@3"]["mean"] for way in ("fold-in", "retrained")]
        assert told["difference"] == pytest.approx(ways[0] - ways[1], abs=1e-12)
        assert told["low"] <= told["difference"] <= told["high"]
    assert (
        len({got["ways"][way][place]["ndcg@3"]["mean"] for way in ("fold-in", "retrained") for place in range(4)}) > 5
    )


def by_loop(scores_I, user, split, k):
    known = set(split.train.item[split.train.user == user].tolist())
    held = set(split.test.item[split.test.user == user].tolist())
    ranked = sorted(set(range(20)) - known, key=lambda i: (-np.float32(scores_I[i]), i))
    return slow("ndcg", [int(i in held) for i in ranked[:k]], len(held))


def test_no_fit_but_the_retrained_ones_meets_newcomers(folder, monkeypatch):
    """Nor does valid, by which the number of epochs is chosen; all later fits take as many."""
    met = []

    def watching(config, parts, device, settings=None, *, validate=None):
        ids = [set(parts.part(name).user.tolist()) for name in ("train", "valid", "test")]
        met.append((configs_name(config), ids, settings))
        model, history = fit(config, parts, device, settings, validate=validate)
        if validate is not None:
            chosen.append(history.best_epoch)
        return model, history

    def configs_name(config):
        return type(config.model).__name__

    chosen = []
    monkeypatch.setattr(coldstart, "fit", watching)
    run = funnel(folder)
    got = study(run, {"userknn": models.load("userknn").Config(k=3)}, items=(1, 3), share=0.3, seeds=(4,))
    own = set(newcomers(parts_of(replace(run, seed=4)).with_valid_in_train(), 0.3, 3, seed=4).users_B.tolist())
    names = [name for name, _, _ in met]
    assert names == ["BPRConfig", "BPRConfig", "UserKNNConfig", *["BPRConfig"] * 3]
    for number, (_, (train, valid, test), settings) in enumerate(met):
        assert bool(train & own) == (number >= 3) and not valid & own and not test & own
        if number and number != 2:
            assert (settings.epochs, settings.monitor) == (chosen[0], None)
    assert got["epochs"] == chosen


def test_seeds_are_means_and_the_deviation_stands_beside(folder):
    run = settings(folder)
    one, two = (study(run, {}, items=(2,), share=0.3, seeds=(seed,)) for seed in (0, 1))
    both = study(run, {}, items=(2,), share=0.3, seeds=(0, 1))
    for way in ("fold-in", "retrained"):
        values = [found["ways"][way][0]["ndcg@3"]["mean"] for found in (one, two)]
        assert both["ways"][way][0]["ndcg@3"]["mean"] == pytest.approx(np.mean(values))
        assert both["ways"][way][0]["ndcg@3"]["deviation"] == pytest.approx(np.std(values, ddof=1))
        assert one["ways"][way][0]["ndcg@3"]["deviation"] is None
    assert both["differences"][0]["users"] == sum(both["users"]) == one["users"][0] + two["users"][0]


def test_what_cannot_be_studied_is_one_line(folder, monkeypatch):
    run = settings(folder)
    gone = replace(run, split=SplitConfig(test=RandomFraction(fraction=0.1), valid=run.split.valid))
    for case, more, kind, message in (
        (run, {"items": (3, 1)}, ConfigError, "must ascend from at least 1; got 3, 1"),
        (run, {"items": ()}, ConfigError, "must ascend"),
        (run, {"share": 1.0}, ConfigError, "between 0 and 1; got 1"),
        (run, {"seeds": (1, 1)}, ConfigError, "seeds must be different"),
        (run, {"items": (50,)}, DataError, "nobody has 50 items in train and one in test"),
        (run, {"share": 0.999}, DataError, "holds out all 30 users"),
        (clicks(write_ratings(folder)), {}, ConfigError, "a model of rankings"),
    ):
        with pytest.raises(kind, match=message) as error:
            study(case, {}, **{"items": (1,), **more})
        assert "\n" not in str(error.value)
    monkeypatch.setattr(coldstart, "folds", lambda model: False)
    with pytest.raises(ConfigError, match="EASE cannot score a user that it was not trained on"):
        study(run, {}, items=(1,))
    monkeypatch.undo()
    assert study(gone, {}, items=(1,), share=0.2)["users"][0] >= 1
