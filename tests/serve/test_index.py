import json
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from macrorec.errors import DataError
from macrorec.serve.index import FaissIndex, IndexConfig, cached, recall
from macrorec.serve.retrieve import Exact, Retriever, nearest

faiss = pytest.importorskip("faiss")

Array = npt.NDArray[np.float32]
N_ITEMS, DIM = 6_000, 24
SMALL = IndexConfig(head=64, cells=64, queries=64, iterations=4)


def market(seed: int, n_items: int = N_ITEMS, skew: float = 0.3) -> tuple[Array, Array]:
    """Items in 40 clusters, with norms of a power law; users who mix some items."""
    random = np.random.default_rng(seed)
    centre = random.standard_normal((40, DIM))
    items = centre[random.integers(0, 40, n_items)] + 0.6 * random.standard_normal((n_items, DIM))
    items *= ((random.pareto(1.2, n_items) + 1) ** skew)[:, None] / np.linalg.norm(items, axis=1, keepdims=True)
    users = items[random.integers(0, n_items, (300, 5))].sum(1) + 0.1 * random.standard_normal((300, DIM))
    return items.astype(np.float32), users.astype(np.float32)


@pytest.fixture(scope="module")
def built() -> tuple[FaissIndex, Array]:
    items, users = market(0)
    return FaissIndex.build(Exact(items), users[:200], SMALL, threads=2), users[200:]


@pytest.mark.parametrize("skew", [0.0, 0.3, 0.5])
def test_calibrated_recall_holds_for_other_users_whether_norms_are_even_or_skewed(skew: float) -> None:
    items, users = market(1, skew=skew)
    exact = Exact(items)
    index = FaissIndex.build(exact, users[:200], SMALL)
    assert index.about["recall"] >= SMALL.recall and 1 < index.about["probes"] < 48
    right = exact.search(users[200:], 100)[0]
    for k in (100, 300):
        assert recall(index.search(users[200:], k)[0][:, :100], right) > 0.98


def test_what_is_found_has_the_bits_and_the_order_of_an_exact_search(built: tuple[FaissIndex, Array]) -> None:
    index, users = built
    numbers, scores = index.search(users, 50)
    right, best = index.oracle.search(users, 50)
    assert (index.kind, index.exact, index.n_items) == ("ivf-sq8", False, N_ITEMS)
    for b in range(len(users)):
        known = dict(zip(right[b].tolist(), best[b].tolist(), strict=True))
        assert all(known.get(n, s) == s for n, s in zip(numbers[b].tolist(), scores[b].tolist(), strict=True))
        pairs = list(zip((-scores[b]).tolist(), numbers[b].tolist(), strict=True))
        assert pairs == sorted(pairs) and len(set(numbers[b].tolist())) == 50
    np.testing.assert_array_equal(index.score(users, numbers), scores)
    one = [index.search(row[None], 50)[0][0] for row in users]
    np.testing.assert_array_equal(np.stack(one), numbers)


def test_scanning_every_cell_is_exact_up_to_the_rounding_of_codes() -> None:
    items, users = market(2, n_items=500)
    whole = IndexConfig(head=16, cells=8, recall=2.0)
    exact = Exact(items)
    index = FaissIndex.build(exact, users, whole)
    assert index.about["probes"] == 8
    assert recall(index.search(users, 100)[0], exact.search(users, 100)[0]) > 0.999


def test_deep_searches_and_filters_that_leave_few_are_exact(built: tuple[FaissIndex, Array]) -> None:
    index, users = built
    for k in (N_ITEMS, 5_000):
        for mine, right in zip(index.search(users[:3], k), index.oracle.search(users[:3], k), strict=True):
            np.testing.assert_array_equal(mine, right)
    worst = index.oracle.search(users[:1], N_ITEMS)[0][0][-7:]
    found = nearest(index, users[0], 10, lambda numbers: ~np.isin(numbers, worst))
    assert found[0].tolist() == worst.tolist()


def test_a_row_for_which_the_cells_hold_too_few_is_searched_exactly() -> None:
    items, users = market(3, n_items=400)
    exact = Exact(items)
    index = FaissIndex.build(exact, users, IndexConfig(head=1, cells=100, recall=0.0))
    assert index.about["probes"] == 2  # of about four items each
    for mine, right in zip(index.search(users[:9], 200), exact.search(users[:9], 200), strict=True):
        np.testing.assert_array_equal(mine, right)


def test_items_announced_later_are_found_at_once() -> None:
    items, users = market(4, n_items=1_000)
    exact = Exact(items)
    index = FaissIndex.build(exact, users, IndexConfig(head=32, cells=16))
    index.append(10 * users[:2])
    numbers, scores = index.search(users[:2], 5)
    assert (index.n_items, numbers[0, 0], numbers[1, 0]) == (1_002, 1_000, 1_001)
    np.testing.assert_array_equal(index.score(users[:2], numbers), scores)


def test_the_same_seed_gives_the_same_index_on_any_number_of_threads() -> None:
    items, users = market(5, n_items=1_500)
    one, two = (FaissIndex.build(Exact(items), users, SMALL, threads=n) for n in (1, 2))
    assert faiss.serialize_index(one._cells).tobytes() == faiss.serialize_index(two._cells).tobytes()
    assert {**one.about, "seconds": 0} == {**two.about, "seconds": 0}


def test_an_index_is_kept_under_its_vectors_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items, users = market(6, n_items=1_000)
    exact = Exact(items)
    config = IndexConfig(head=32, cells=16)
    first, how = cached(exact, users, tmp_path, "key", config)
    assert how.startswith("built in")
    monkeypatch.setattr(FaissIndex, "build", lambda *_, **__: pytest.fail("it was built again"))
    again, how = cached(exact, users, tmp_path, "key", config)
    assert how.startswith("read from") and again.about == first.about
    for mine, right in zip(again.search(users, 20), first.search(users, 20), strict=True):
        np.testing.assert_array_equal(mine, right)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    for other in ({"key": "other"}, {"config": IndexConfig(head=32, cells=8)}):
        with pytest.raises(pytest.fail.Exception, match="built again"):
            cached(exact, users, tmp_path, **{"key": "key", "config": config, **other})  # type: ignore[arg-type]


def test_damage_is_told_and_mended_and_never_read(tmp_path: Path) -> None:
    items, users = market(7, n_items=500)
    exact, config = Exact(items), IndexConfig(head=16, cells=8)
    index, _ = cached(exact, users, tmp_path, "key", config)
    folder = next(tmp_path.iterdir())
    path = folder / "index.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"index.safetensors is damaged"):
        FaissIndex.load(folder, exact)
    again, how = cached(exact, users, tmp_path, "key", config)
    assert "built" in how and "is damaged" in how
    assert FaissIndex.load(folder, exact).about["recall"] == again.about["recall"] == index.about["recall"]
    with pytest.raises(DataError, match="the index of other items"):
        FaissIndex.load(folder, Exact(items[:-1]))
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match="cannot be read as an index"):
        FaissIndex.load(folder, exact)
    (folder / "manifest.json").write_text(json.dumps({"format": "zip", "version": 1}))
    with pytest.raises(DataError, match="another format"):
        FaissIndex.load(folder, exact)


def test_a_folder_that_cannot_be_written_costs_only_the_next_start(tmp_path: Path) -> None:
    items, users = market(8, n_items=500)
    (tmp_path / "file").write_text("")
    index, how = cached(Exact(items), users, tmp_path / "file", "key", IndexConfig(head=16, cells=8))
    assert index.n_items == 500 and "not kept: cannot write" in how


def test_requests_keep_to_their_own_thread(built: tuple[FaissIndex, Array]) -> None:
    index, users = built
    limits: list[int] = []

    def request() -> None:
        faiss.omp_set_num_threads(3)
        index.search(users[:1], 10)
        limits.append(faiss.omp_get_max_threads())

    threads = [threading.Thread(target=request) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert limits == [1, 1, 1]


def test_answers_from_many_threads_are_those_of_one(built: tuple[FaissIndex, Array]) -> None:
    index, users = built
    right = index.search(users, 30)[0]
    wrong: list[int] = []

    def ask(start: int) -> None:
        rows = range(start, len(users), 4)
        wrong.extend(b for b in rows if not np.array_equal(index.search(users[b : b + 1], 30)[0][0], right[b]))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_recall_counts_what_is_there_to_find() -> None:
    right = np.array([[1, 2, 3], [4, -1, -1]])
    assert recall(np.array([[3, 9, 1], [4, 5, -1]]), right) == 3 / 4
    assert recall(right, right) == 1.0 and recall(right[:0], right[:0]) == 0.0


def test_the_protocol_is_kept(built: tuple[FaissIndex, Array]) -> None:
    kept: Retriever = built[0]
    assert kept.kind == "ivf-sq8"
