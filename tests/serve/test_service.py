"""What answers, by which path, on what it has just been told; and what stays true through removals, swaps, restarts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.serve.market import BEHAVIORS, N_ITEMS, MemoryLog, bought, fitted, graph_of, interactions, write

import macrorec
from macrorec.api import TwoTower
from macrorec.bundle import Bundle
from macrorec.data.vocab import Vocab
from macrorec.errors import DataError, UserError
from macrorec.graph.bipartite import edges_of
from macrorec.serve import memory, snapshots
from macrorec.serve.events import Event, EventError, Forgotten, ItemAnnounced, hidden
from macrorec.serve.log import Batch
from macrorec.serve.ranking import Version
from macrorec.serve.service import NotReady, Service, UnknownItem, view_of

Made = Callable[..., Service]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    """Services on bundles made for them, closed at the end."""
    running: list[Service] = []

    def make(name: str = "bpr", log: MemoryLog | None = None, data: str | None = None, **settings: object) -> Service:
        folder = tmp_path / f"{name}-{len(running)}"
        place = settings.pop("bundle", None) or write(folder, name, **settings)  # type: ignore[arg-type]
        own = log if log is not None else MemoryLog()
        service = Service(place, own, None if data is None else tmp_path / data)  # type: ignore[arg-type]
        running.append(service)
        return service

    yield make
    for service in running:
        service.close()


def ids(service: Service, user_id: str, n: int = N_ITEMS, **how: object) -> list[str]:
    return [one.item_id for one in service.recommend(user_id, n, **how).items]  # type: ignore[arg-type]


def test_a_known_user_gets_the_models_candidates_in_the_rankers_order(made: Made) -> None:
    service = made()
    answer = service.recommend("u1", 100)
    assert (answer.path, answer.degraded, answer.version) == ("model", (), service.model()["version"])
    assert set(answer.timings) == {"state", "retrieve", "rank"} and answer.ranked == len(answer.items)
    view = view_of(service, "u1")
    assert view is not None
    unseen = np.setdiff1d(np.arange(N_ITEMS), view.masked)
    assert sorted(int(one.item_id[1:]) for one in answer.items) == unseen.tolist()
    whole = graph_of(interactions())
    ranker = fitted("macgnn", whole)
    with torch.no_grad():
        logits = ranker.score(torch.full((len(unseen),), 1), torch.from_numpy(unseen)).numpy()
    order = np.lexsort((unseen, -logits))
    assert [one.item_id for one in answer.items] == [f"i{n}" for n in unseen[order]]
    np.testing.assert_allclose([one.score for one in answer.items], logits[order], atol=1e-5)
    assert [one.rank for one in answer.items] == list(range(1, len(unseen) + 1))


def test_without_a_ranker_the_order_is_that_of_the_model(made: Made) -> None:
    service = made(ranker=False)
    graph = graph_of(interactions())
    model = fitted("bpr", graph, 1)
    assert isinstance(model, TwoTower)
    with torch.no_grad():
        scores = model.score_all(torch.tensor([4]))[0].numpy()
        history = np.array([3, 9])
        folded = model.fold_in(edges_of(np.zeros(2, np.int64), history, 1, N_ITEMS))[0].numpy()
    view = view_of(service, "u4")
    assert view is not None
    scores[view.masked] = -np.inf
    answer = service.recommend("u4", 5)
    assert [one.item_id for one in answer.items] == [f"i{n}" for n in np.argsort(-scores, kind="stable")[:5]]
    service.feedback([bought("new", "i3")])
    assert service.recommend("new", 5).path == "fold_in"
    service.feedback([bought("new", "i9")])  # what was folded in before is out of date
    folded[history] = -np.inf
    answer = service.recommend("new", 5)
    assert answer.path == "fold_in" and answer.position == 2
    assert [one.item_id for one in answer.items] == [f"i{n}" for n in np.argsort(-folded, kind="stable")[:5]]
    service.announce([{"item_id": "x", "category": "unheard of"}])
    assert "x" not in ids(service, "new", 100), "it has no vector"
    assert ids(service, "new", 100, only=["x", "i1"]) == ["i1", "x"] and "x" in ids(service, "nobody", 100)


@pytest.mark.parametrize(
    ("name", "ranker", "known", "after_buy", "after_view"),
    [
        ("bpr", True, "model", "fold_in", "macro_fallback"),
        ("ease", True, "model", "fold_in", "macro_fallback"),
        ("lightgcn", False, "model", "fold_in", "popular"),
        ("retarget", True, "model", "fold_in", "macro_fallback"),
        ("no folding", True, "model", "macro_fallback", "macro_fallback"),
        ("no folding", False, "model", "popular", "popular"),
        ("macgnn", False, "model", "macro_fallback", "macro_fallback"),
    ],
)
def test_paths(name: str, ranker: bool, known: str, after_buy: str, after_view: str, made: Made) -> None:
    service = made("bpr" if name == "no folding" else name, ranker=ranker)
    service.version._folds &= name != "no folding"  # all models that retrieve can fold in today
    paths = lambda *users: [service.recommend(user, 3).path for user in users]  # noqa: E731
    assert paths("u1", "u11", "nobody") == [known, "popular", "popular"]
    service.feedback([bought("new", "i2"), bought("looker", "i2", "view")])
    assert paths("new", "looker", "nobody") == [after_buy, after_view, "popular"]
    before = service.recommend("u1", 3).path
    service.feedback([bought("u1", "i2")])
    changed = "fold_in" if after_buy == "fold_in" else "model"
    assert (before, *paths("u1")) == (known, changed)


def test_what_is_popular_is_counted_live(made: Made) -> None:
    service = made(ranker=False)
    buyers = [bought(f"n{n}", "i29") for n in range(20)]
    service.feedback(buyers)
    answer = service.recommend("nobody", 3)
    assert (answer.items[0].item_id, answer.items[0].score, answer.ranked) == ("i29", 20.0, 0)
    for event in buyers:
        service.forget(event.user_id)
    assert "i29" not in ids(service, "nobody", 3)


def test_an_event_is_in_the_next_answer(made: Made) -> None:
    service = made()
    first = ids(service, "u1")
    service.feedback([bought("u1", first[0])])
    assert first[0] not in ids(service, "u1") and ids(service, "u1", seen=True).count(first[0]) == 1
    service.feedback([bought("u1", first[1], "hide")])
    assert first[1] not in ids(service, "u1")
    service.feedback([bought("u1", first[2], "view")])
    assert first[2] in ids(service, "u1")


def test_pages_are_of_one_list(made: Made) -> None:
    service = made()
    service._candidates = 6
    whole = service.recommend("u1", 14)
    assert whole.ranked == 6
    parts = [service.recommend("u1", 5, offset) for offset in (0, 5, 10)]
    assert [one for part in parts for one in part.items][:6] == list(whole.items[:6])
    assert [one.item_id for part in parts for one in part.items][:14] == [one.item_id for one in whole.items]
    assert [one.rank for one in parts[2].items] == [11, 12, 13, 14, 15]
    assert service.recommend("u1", 5, 1000).items == ()


@pytest.mark.parametrize("user", ["u1", "u2", "looker", "nobody"])
@pytest.mark.parametrize(("name", "ranker"), [("bpr", True), ("ease", False), ("macgnn", False)])
def test_filters_never_make_an_answer_shorter_than_it_must_be(user: str, name: str, ranker: bool, made: Made) -> None:
    service = made(name, ranker=ranker)
    service.feedback([bought("looker", "i2", "view")])
    everything = set(ids(service, user, 100))
    view = view_of(service, user)
    unseen = {f"i{n}" for n in range(N_ITEMS) if view is None or n not in view.masked}
    assert everything == unseen
    few = sorted(unseen)[:7]
    assert set(ids(service, user, 100, only=[*few, "i_unknown", few[0]])) == set(few)
    assert set(ids(service, user, 100, exclude=[*few, "i_unknown"])) == unseen - set(few)
    assert ids(service, user, 100, only=[]) == []
    if service.version.ranker is not None:
        assert set(ids(service, user, 100, categories=["music", "none"])) == {i for i in unseen if int(i[1:]) % 3 == 1}
        assert ids(service, user, 100, categories=["none"]) == []


def test_a_new_item_is_found_and_ranked_at_once(made: Made) -> None:
    service = made()
    service.feedback([bought("fan", f"i{n}") for n in (1, 4, 7)])
    assert "hit" not in ids(service, "fan", 100)
    service._candidates = 4
    assert service.announce([{"item_id": "hit", "category": "music", "title": "A Hit"}]).added == 1
    answer = service.recommend("fan", 5)
    assert "hit" in [one.item_id for one in answer.items] and answer.ranked == 5
    told = service.explain("fan", "hit")
    assert (told["title"], told["category"], told["kind"], told["users"]) == ("A Hit", "music", "ranker", 0)
    assert {row["what"] for row in told["reasons"]} >= {"books", "music", "games"}
    assert service.similar("hit", 3).items and service.rank("fan", ["hit", "i2"]).ranked == 2
    service.feedback([bought("u1", "hit")])
    assert "hit" not in ids(service, "u1", 100) and service.explain("fan", "hit")["users"] == 1


def test_items_that_nobody_announced_count_when_somebody_does(made: Made) -> None:
    service = made()
    service.feedback([bought("u1", "late")])
    assert service.health()["state"]["unknown_items"] == 1
    with pytest.raises(UnknownItem, match="late"):
        service.explain("u1", "late")
    service.announce([ItemAnnounced("late", "books")])
    assert service.health()["state"]["unknown_items"] == 0
    assert service.explain("u1", "late")["users"] == 1 and service.explain("u1", "late")["seen"]
    view = view_of(service, "u1")
    assert view is not None and view.events == 1  # each once
    assert view.groups_Q is not None and service.version.state.counts is not None
    assert view.groups_Q.sum() == 2 + sum_of("u1")


def sum_of(user: str) -> float:
    """The weight of all that a user of the fit has done and that a macro graph counts."""
    log = interactions()
    own = (log.user == int(user[1:])) & (log.behavior != 1)
    return float(np.array([behavior.weight for behavior in BEHAVIORS])[log.behavior[own]].sum())


def test_reasons_add_up_and_name_no_other_user(made: Made) -> None:
    service = made()
    service.feedback([bought("secret-user", "i5"), bought("u1", "i5")])
    told = service.explain("u2", "i5")
    total = told["base"] + told["user"] + told["item"] + sum(row["contribution"] for row in told["reasons"])
    assert told["exact"] and total == pytest.approx(told["score"], abs=1e-5)
    assert "secret-user" not in str(told) and "u1" not in {row["what"] for row in told["reasons"]}
    assert {"recent users"} <= {row["what"] for row in told["reasons"]}
    answer = service.recommend("u2", 2, reasons=True)
    assert all(one.reasons is not None and len(one.reasons) == 3 for one in answer.items)
    assert answer.items[0].score == pytest.approx(service.explain("u2", answer.items[0].item_id)["score"], abs=1e-5)


def test_reasons_without_a_ranker_are_the_users_items(made: Made) -> None:
    service = made("ease", ranker=False)
    told = service.explain("u1", "i7")
    assert told["exact"] and sum(row["weight"] for row in told["reasons"]) == pytest.approx(told["score"], abs=1e-4)
    told = made("bpr", ranker=False).explain("u1", "i7")
    assert not told["exact"] and {row["via"] for row in told["reasons"]} == {"history"}
    assert service.explain("nobody", "i7")["reasons"] == []


def test_rank_orders_what_it_is_given_each_once(made: Made) -> None:
    service = made()
    answer = service.rank("u1", ["i3", "i1", "nope", "i3", "i2"])
    assert sorted(one.item_id for one in answer.items) == ["i1", "i2", "i3"] and answer.ranked == 3
    assert service.rank("u1", []).items == () and service.rank("u1", ["nope"]).items == ()
    plain = made("bpr", ranker=False)
    assert sorted(one.item_id for one in plain.rank("u1", ["i3", "i1", "i2"]).items) == ["i1", "i2", "i3"]
    assert sorted(one.item_id for one in plain.rank("nobody", ["i3", "i1", "i2"]).items) == ["i1", "i2", "i3"]


@pytest.mark.parametrize("name", ["bpr", "ease", "userknn"])
def test_alike_items_are_never_the_item_itself(name: str, made: Made) -> None:
    service = made(name, ranker=False)
    found = service.similar("i4", 50)
    assert "i4" not in [one.item_id for one in found.items] and len(found.items) >= 3
    scores = [one.score for one in found.items]
    assert scores == sorted(scores, reverse=True)
    with pytest.raises(UnknownItem):
        service.similar("i_unknown")


def test_a_map_has_a_place_and_a_cluster_for_each_item(made: Made) -> None:
    for name, ranker in (("bpr", True), ("ease", True), ("ease", False), ("macgnn", False)):
        told = made(name, ranker=ranker).item_map(10)
        assert len(told["items"]) == 10 and all(abs(one["x"]) <= 1 and abs(one["y"]) <= 1 for one in told["items"])
        assert {one["cluster"] for one in told["items"]} - {-1} == {one["cluster"] for one in told["clusters"]}


# --- deadlines ---


def test_under_pressure_stages_are_left_out_and_told(made: Made) -> None:
    service = made()
    assert service.recommend("u1", 5, deadline=time.monotonic() + 60).degraded == ()
    service.version.pace.update(retrieve=0.001, rank=10.0)
    answer = service.recommend("u1", 5, deadline=time.monotonic() + 5)
    assert (answer.degraded, answer.path, answer.ranked, len(answer.items)) == (("rank",), "model", 0, 5)
    answer = service.recommend("u1", 5, deadline=time.monotonic() - 1)
    assert answer.degraded == ("retrieve", "rank") and answer.path == "macro_fallback" and len(answer.items) == 5
    answer = service.recommend("u1", 2, deadline=time.monotonic() - 1, reasons=True)
    assert answer.degraded == ("retrieve", "rank", "reasons") and answer.items[0].reasons is None
    assert service.rank("u1", ["i1", "i2"], deadline=time.monotonic() - 1).degraded == ("rank",)
    for _ in range(100):  # what is left out is tried again, once the average has sunk
        service.recommend("u1", 5, deadline=time.monotonic() + 5)
    assert service.recommend("u1", 5, deadline=time.monotonic() + 5).degraded == ()


# --- removal ---


def test_who_is_forgotten_is_nowhere_not_even_after_restarts(made: Made, tmp_path: Path) -> None:
    log = MemoryLog()
    service = made(log=log, data="data")
    place = service.version.deployment.folder
    service.feedback([bought("u3", "i1"), bought("secret-person", "i2"), bought("u4", "i2")])
    service.snapshot()
    service.feedback([bought("secret-person", "i4")])
    assert service.forget("secret-person") == 2  # the log has dropped what the snapshot covers, yet it counts
    everything = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert b"secret-person" not in everything and b"u4" in everything
    assert service.forget("u3") == 1 and service.forget("u3") == 0 and service.forget("stranger") == 0
    for _ in range(3):
        assert view_of(service, "u3") is None and view_of(service, "secret-person") is None
        assert service.recommend("u3", 3).path == "popular"
        everything = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
        assert b"secret-person" not in everything and "secret-person" not in str(log.entries)
        frames = snapshots.latest(tmp_path / "data").frames  # type: ignore[union-attr]
        assert "u3" not in frames["users"]["id"].to_list()
        service.close()
        service = made(log=log, data="data", bundle=place)
    service.feedback([bought("u3", "i9")])
    for _ in range(2):
        view = view_of(service, "u3")
        assert view is not None and view.fitted == -1 and view.items.tolist() == [9]
        service.snapshot()
        service.close()
        service = made(log=log, data="data", bundle=place)
    service.reload()
    view = view_of(service, "u3")
    assert view is not None and view.fitted == -1 and view.items.tolist() == [9]
    service.rollback()
    view = view_of(service, "u3")
    assert view is not None and view.items.tolist() == [9]


def test_a_removal_by_another_worker_is_followed(made: Made) -> None:
    log = MemoryLog()
    service = made(log=log, data="data")
    service.feedback([bought("gone", "i1"), bought("u5", "i1")])
    service.snapshot()
    log.append([bought("gone", "i2"), Forgotten(hidden("gone", log.secret)), bought("gone", "i7"), bought("u5", "i7")])
    view, other = view_of(service, "gone"), view_of(service, "u5")
    assert view is not None and view.items.tolist() == [7] and other is not None and other.events == 2
    log.append([Forgotten(hidden("u5", log.secret))])
    assert view_of(service, "u5") is None
    for _ in range(100):
        if service.health()["snapshot"]["position"] == log.last():
            break
        time.sleep(0.05)
    assert service.health()["snapshot"]["position"] == log.last()


def test_a_batch_is_cut_behind_removals() -> None:
    entries = [
        bought("a", "i1"),
        Forgotten("x"),
        bought("a", "i2"),
        ItemAnnounced("z"),
        Forgotten("y"),
        bought("b", "i1"),
    ]
    whole = Batch(range(11, 17), entries)
    for batch in (whole, Batch(whole.positions, events=whole.events, others=whole.others)):
        cut = list(memory.parts(batch))
        assert [part.positions.tolist() for part in cut] == [[11, 12], [13, 14, 15], [16]]
        assert [list(map(type, part.entries)) for part in cut] == [
            [Event, Forgotten], [Event, ItemAnnounced, Forgotten], [Event]
        ]  # fmt: skip


# --- restarts and swaps ---


def test_a_restart_finds_everything_again(made: Made) -> None:
    log = MemoryLog()
    service = made(log=log, data="data")
    place = service.version.deployment.folder
    service.announce([{"item_id": "x", "category": "music"}])
    service.feedback([bought("a", "x"), bought("u1", "i3")])
    assert service.snapshot() == 3 and log.compacted == 4
    service.feedback([bought("a", "i5"), bought("b", "i5", "view")])
    users = ("a", "b", "u1", "u2", "nobody")
    before = {user: service.recommend(user, 40) for user in users}
    service.close()
    with pytest.raises(NotReady):
        service.recommend("a")
    again = made(log=log, data="data", bundle=place)
    for user in users:
        answer = again.recommend(user, 40)
        assert (answer.items, answer.path, answer.position) == (before[user].items, before[user].path, 5)


def test_a_snapshot_of_another_log_is_refused(made: Made) -> None:
    service = made(data="data")
    service.feedback([bought("a", "i1")])
    service.snapshot()
    with pytest.raises(DataError, match="not of this log"):
        made(data="data")


def test_without_a_folder_there_are_no_snapshots(made: Made) -> None:
    service = made()
    with pytest.raises(UserError, match="--data"):
        service.snapshot()
    assert service.health()["snapshot"]["position"] is None


def test_a_swap_keeps_events_and_can_be_taken_back(made: Made, tmp_path: Path) -> None:
    service = made()
    old = service.model()["version"]
    with pytest.raises(UserError, match="no model to go back to"):
        service.rollback()
    service.feedback([bought("a", "i5")])
    other = write(tmp_path / "other", "ease", seed=3)
    new = service.reload(other)
    assert new != old and service.model() | {"version": new, "rollback": old} == service.model()
    assert service.recommend("a", 3).version == new and "i5" not in ids(service, "a")
    service.feedback([bought("a", "i6")])
    assert service.rollback() == old and service.model()["rollback"] == new
    assert not {"i5", "i6"} & set(ids(service, "a"))
    assert service.rollback() == new
    assert service.forget("a") == 2
    for _ in range(2):  # neither the model that answers nor the other knows who has left
        assert view_of(service, "a") is None
        service.rollback()
    (other / "users.parquet").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="damaged"):
        service.reload(other)
    assert service.model()["version"] == new


def test_no_answer_mixes_versions_and_no_event_is_lost_while_models_swap(made: Made, tmp_path: Path) -> None:
    """Items of the two bundles have scores that tell which model made them."""
    service = made(ranker=False)
    other = write(tmp_path / "other", "bpr", ranker=False, seed=7)
    both = {service.model()["version"]: service}
    both[made(ranker=False, bundle=other).model()["version"]] = made(ranker=False, bundle=other)
    wanted = {name: [(one.item_id, one.score) for one in own.recommend("u2", 30).items] for name, own in both.items()}
    stop, faults, sent = threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            answer = service.recommend("u2", 30)
            if [(one.item_id, one.score) for one in answer.items] != wanted[answer.version]:
                faults.append(answer)

    def write_events() -> None:
        number = 0
        while not stop.is_set():
            service.feedback([bought(f"n{number % 50}", f"i{number % N_ITEMS}")])
            sent.append((f"n{number % 50}", number % N_ITEMS))
            number += 1

    wanted = {name: [(one.item_id, one.score) for one in own.recommend("u2", 30).items] for name, own in both.items()}
    threads = [threading.Thread(target=read) for _ in range(2)] + [threading.Thread(target=write_events)]
    for thread in threads:
        thread.start()
    versions = {service.reload(other)}
    for _ in range(4):
        versions.add(service.rollback())
    end = time.monotonic() + 20
    while len(sent) <= 10 and time.monotonic() < end:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not faults and versions == set(both) and len(sent) > 10
    for user, item in set(sent):
        view = view_of(service, user)
        assert view is not None and item in view.items


def test_an_answer_is_of_one_version_though_another_takes_over_meanwhile(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other's items have other numbers: an answer that looked there would name the wrong ones."""
    service, alone = made(ranker=False), made(ranker=False)
    bundle = service.version.deployment.retriever_bundle
    items = Vocab([f"i{(n + 7) % N_ITEMS}" for n in range(N_ITEMS)])
    other = Bundle.save(tmp_path / "turned", bundle.model, bundle.graph, bundle.users, items, bundle.config)
    former = service.version
    some = [f"i{n}" for n in (3, 14, 15, 9)]
    for ask in (
        lambda one: one.recommend("u2", 9, reasons=True),
        lambda one: one.recommend("nobody", 9),
        lambda one: one.rank("u2", some),
        lambda one: one.similar("i4", 5),
        lambda one: one.explain("u2", "i4"),
    ):
        wanted = ask(alone)
        swap_in(service, monkeypatch, other)
        found = ask(service)
        assert service.version is not former, "the other has taken over"
        if not isinstance(found, dict):
            assert (found.version, found.path, found.items) == (former.name, wanted.path, wanted.items)
        else:
            assert found == wanted
        service.rollback()
        assert service.version is former


def swap_in(service: Service, monkeypatch: pytest.MonkeyPatch, other: Path) -> None:
    """Have another bundle take over as soon as a request has looked for the version."""
    version = type(service).version.fget(service)  # type: ignore[attr-defined]
    patch = pytest.MonkeyPatch()

    def looked(self: Service) -> object:
        patch.undo()
        self.reload(other)
        return version

    patch.setattr(Service, "version", property(looked))


def test_what_is_taken_while_an_answer_is_made_is_not_in_it(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    service = made()
    version, best = service.version, ids(service, "u2", 3)
    candidates = version.candidates

    def while_made(*given: object, **how: object) -> object:
        found = candidates(*given, **how)  # type: ignore[arg-type]
        service.feedback([bought("u2", best[0])])
        return found

    with monkeypatch.context() as patch:
        patch.setattr(version, "candidates", while_made)
        assert best[0] not in ids(service, "u2", 3)


def test_a_bundle_that_was_updated_before_it_was_saved_is_served_with_its_updates(made: Made, tmp_path: Path) -> None:
    recommender = macrorec.load(write(tmp_path / "first", "ease", ranker=False))
    new = {"user_id": ["late", "u1", "late"], "item_id": ["i9", "i4", "i3"], "behavior": ["buy", "hide", "buy"]}
    recommender.update(new)
    folder = recommender.save(tmp_path / "updated")
    service = made(bundle=folder)
    view = view_of(service, "late")
    assert view is not None and view.items.tolist() == [9, 3] and service.recommend("late", 3).path == "fold_in"
    wanted = recommender.recommend(["late", "u1"], 5)
    for user in ("late", "u1"):
        assert ids(service, user, 5) == wanted.filter(pl.col("user_id") == user)["item_id"].to_list()
    service.feedback([bought("late", "i5")])
    view = view_of(service, "late")
    assert view is not None and view.items.tolist() == [9, 3, 5]
    assert service.recommend("nobody", 1).position == 1


def test_events_that_a_model_was_fitted_to_are_not_counted_again(made: Made, tmp_path: Path) -> None:
    log = MemoryLog()
    service = made(log=log, ranker=False)
    service.announce([{"item_id": "x"}])
    service.feedback([bought("a", "i1"), bought("a", "x"), bought("b", "i2")])
    bundle = service.version.deployment.retriever_bundle
    fit = bundle.model, bundle.graph, bundle.users, bundle.items
    folder = Bundle.save(tmp_path / "later", *fit, {**bundle.config, "serve": {"position": 3}})
    service.reload(folder)
    assert view_of(service, "a") is None and view_of(service, "b") is not None
    assert service.rank("b", ["x"]).items
    service.feedback([bought("a", "i3")])
    view = view_of(service, "a")
    assert view is not None and view.items.tolist() == [3]


def test_who_leaves_while_a_model_is_loaded_is_not_in_it(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first try has counted the user's rows, and is thrown away."""
    service, tried = made(), list[Version]()
    service.feedback([bought("quitter", "i1"), bought("u5", "i29"), bought("a", "i2")])
    warm_up = Version.warm_up

    def leaving(version: Version) -> None:
        warm_up(version)
        tried.append(version)
        if len(tried) == 1:
            assert version.state.user("quitter") is not None
            assert service.forget("quitter") == 1 and service.forget("u5") == 1

    monkeypatch.setattr(Version, "warm_up", leaving)
    monkeypatch.setattr("macrorec.serve.service._STEP", 0)
    service.reload()
    assert len(tried) == 2 and service.version is tried[1]
    assert view_of(service, "quitter") is None and view_of(service, "u5") is None and view_of(service, "a") is not None
    assert service.explain("a", "i29")["users"] == 0


# --- writing ---


def test_only_what_the_model_knows_is_taken(made: Made) -> None:
    service = made()
    (event,) = service.check([{"user_id": "a", "item_id": "i1"}])
    assert event.behavior == "buy" and {b["name"] for b in service.model()["behaviors"]} == {b.name for b in BEHAVIORS}
    with pytest.raises(EventError, match="unknown behaviour"):
        service.check([{"user_id": "a", "item_id": "i1"}, {"user_id": "a", "item_id": "i1", "behavior": "like"}])
    with pytest.raises(EventError, match="blank"):
        service.announce([{"item_id": " "}])


def test_readers_see_whole_events_while_one_writes(made: Made) -> None:
    """A buy adds the same weight to the user's row of groups, to the history, and to what is masked."""
    service = made()
    stop, faults = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            view = view_of(service, "w")
            if view is not None and view.groups_Q is not None and view.groups_Q.sum() != 2 * view.events:
                faults.append(view)
            service.recommend("w", 5)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(300):
        service.feedback([bought("w", f"i{number % N_ITEMS}")])
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not faults
