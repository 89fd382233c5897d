import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tests.serve.test_index import market

from macrorec.eval.vectors import Ranking
from macrorec.serve.canary import Canary, CanaryConfig
from macrorec.serve.index import FaissIndex, IndexConfig
from macrorec.serve.retrieve import Exact

Array = npt.NDArray[np.float32]
EAGER = CanaryConfig(every=1, window=10, least=4, k=50)


class Failing(FaissIndex):
    """An index that forgets a share of what it finds."""

    lost = 0.0

    def search(self, vectors_BD: Array, k: int) -> Ranking:
        numbers, scores = super().search(vectors_BD, k)
        numbers[:, : int(self.lost * k)] = -1
        return numbers, scores


@pytest.fixture(scope="module")
def made() -> tuple[Failing, Array]:
    items, users = market(0, n_items=2_000)
    index = FaissIndex.build(Exact(items), users, IndexConfig(head=32, cells=16))
    return Failing(index.oracle, index._cells, index._head_H, index.about), users


def until(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Wait for it, at most so long."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.002)
    return true()


def test_exact_search_answers_until_the_index_is_there(made: tuple[Failing, Array]) -> None:
    import threading

    index, users = made
    may = threading.Event()

    def build() -> tuple[FaissIndex, str]:
        assert may.wait(20)
        return index, "built in no time"

    canary = Canary(index.oracle, build, EAGER)
    try:
        assert (canary.kind, canary.exact, canary.health().state) == ("exact", True, "building")
        right = index.oracle.search(users[:3], 9)
        np.testing.assert_array_equal(canary.search(users[:3], 9)[0], right[0])
        assert not canary.wait(0.01)
        may.set()
        assert canary.wait(20)
        health = canary.health()
        assert (canary.kind, canary.exact, health.state, health.checks) == ("ivf-sq8", False, "index", 0)
        assert health.reason == "built in no time" and health.recall is None
    finally:
        canary.close()
    assert canary.health().state == "closed" and canary.kind == "exact"


def test_one_query_in_so_many_is_checked_and_a_sound_index_stays(made: tuple[Failing, Array]) -> None:
    index, users = made
    canary = Canary(index.oracle, lambda: (index, ""), CanaryConfig(every=5, window=10, least=4, k=50))
    try:
        assert canary.wait(20)
        for row in users[:4]:
            canary.search(row[None], 9)
        time.sleep(0.05)
        assert canary.health().checks == 0
        canary.search(users[4:5], 9)
        assert until(lambda: canary.health().checks == 1)
        for n in range(50):
            canary.search(users[n : n + 1], 9)
            time.sleep(0.001)
        health = canary.health()
        assert 1 < health.checks <= 11 and health.state == "index"
        assert health.recall is not None and health.recall > 0.97
    finally:
        canary.close()


def test_an_index_that_loses_items_is_left_until_it_has_recovered(made: tuple[Failing, Array]) -> None:
    index, users = made
    canary = Canary(index.oracle, lambda: (index, ""), EAGER)
    right = index.oracle.search(users[:1], 50)[0]

    def ask() -> None:
        canary.search(users[:1], 50)

    try:
        assert canary.wait(20)
        index.lost = 0.5
        assert until(lambda: (ask(), canary.health().state)[1] == "fallen back")
        health = canary.health()
        assert (health.kind, canary.exact, canary.kind) == ("exact", True, "exact")
        assert "recall at 50 was 0.5" in health.reason and "below 0.95" in health.reason
        np.testing.assert_array_equal(canary.search(users[:1], 50)[0], right)
        assert until(lambda: (ask(), canary.health().checks)[1] > 30) and canary.health().state == "fallen back"
        index.lost = 0.0
        assert until(lambda: (ask(), canary.health().state)[1] == "index")
        assert "again" in canary.health().reason
    finally:
        index.lost = 0.0
        canary.close()


def test_a_few_unlucky_checks_prove_nothing(made: tuple[Failing, Array]) -> None:
    index, users = made
    canary = Canary(index.oracle, lambda: (index, ""), EAGER)
    try:
        assert canary.wait(20)
        index.lost = 0.5
        for n in range(3):
            canary.check(users[n : n + 1])
        assert canary.health().state == "index" and canary.health().recall == pytest.approx(0.5, abs=0.03)
        canary.check(users[:1])
        assert canary.health().state == "fallen back"
    finally:
        index.lost = 0.0
        canary.close()


def test_a_check_is_of_the_best_of_a_search_as_deep_as_the_one_that_was_asked(
    made: tuple[Failing, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    index, users = made
    canary, depths = Canary(index.oracle, lambda: (index, ""), EAGER), list[int]()

    def search(vectors_BD: Array, k: int) -> Ranking:
        depths.append(k)
        return Failing.search(index, vectors_BD, k)

    monkeypatch.setattr(index, "search", search)
    try:
        assert canary.wait(20)
        for depth in (9, 80):
            before = canary.health().checks
            canary.search(users[:1], depth)
            assert until(lambda before=before: canary.health().checks == before + 1)  # type: ignore[misc]
        assert depths == [9, 50, 80, 80], "asked, then checked"
        recall = canary.health().recall
        assert recall is not None and 0.9 < recall <= 1
    finally:
        canary.close()


@pytest.mark.parametrize("error", [RuntimeError("no more\nmemory"), MemoryError()])
def test_exact_search_goes_on_where_the_index_cannot_be_made(error: Exception, made: tuple[Failing, Array]) -> None:
    index, users = made

    def build() -> tuple[FaissIndex, str]:
        raise error

    canary = Canary(index.oracle, build, EAGER)
    assert canary.wait(20)
    health = canary.health()
    assert (health.state, health.kind) == ("failed", "exact") and "\n" not in health.reason
    assert type(error).__name__ in health.reason
    assert canary.search(users[:1], 3)[0].shape == (1, 3)
    canary.close()


def test_without_faiss_the_reason_names_what_to_install(
    made: tuple[Failing, Array], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    from macrorec.serve.index import cached

    index, users = made
    monkeypatch.setitem(sys.modules, "faiss", None)
    canary = Canary(index.oracle, lambda: cached(index.oracle, users, tmp_path, "key"))
    assert canary.wait(20)
    assert canary.health().state == "failed" and "pip install 'macrorec[serve]'" in canary.health().reason
    canary.close()


def test_items_announced_are_found_by_the_index_and_by_exact_search(made: tuple[Failing, Array]) -> None:
    items, users = market(9, n_items=500)
    exact = Exact(items)
    canary = Canary(exact, lambda: (FaissIndex.build(exact, users, IndexConfig(head=16, cells=8)), ""), EAGER)
    canary.append(100 * users[:1])
    assert canary.search(users[:1], 1)[0].tolist() == [[500]]
    assert canary.wait(30)
    canary.append(200 * users[1:2])
    assert canary.n_items == 502 and canary.search(users[1:2], 1)[0].tolist() == [[501]]
    assert canary.score(users[:1], np.array([[500, -1]]))[0, 1] == -np.inf
    canary.close()
