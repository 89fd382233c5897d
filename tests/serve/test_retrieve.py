import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from macrorec import models
from macrorec.errors import DataError
from macrorec.graph.bipartite import edges_of
from macrorec.serve.retrieve import DEEPEST, Exact, Retriever, ScoreRetriever, nearest

Array = npt.NDArray[np.float32]


def whole(seed: int, *shape: int) -> Array:
    """Small whole numbers: their inner products are exact in any order of adding, and often tie."""
    return np.random.default_rng(seed).integers(-2, 3, size=shape).astype(np.float32)


def oracle(vectors_BD: Array, items_ID: Array, k: int) -> tuple[list[list[int]], list[list[float]]]:
    """Every score, one after the other, sorted by (-score, number)."""
    numbers, scores = [], []
    for vector_D in vectors_BD.tolist():
        row = [sum(a * b for a, b in zip(vector_D, item_D, strict=True)) for item_D in items_ID.tolist()]
        order = sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]
        numbers.append(order + [-1] * (k - len(order)))
        scores.append([row[i] for i in order] + [-np.inf] * (k - len(order)))
    return numbers, scores


@settings(max_examples=60)
@given(st.integers(0, 99), st.integers(1, 5), st.integers(0, 40), st.integers(0, 30), st.integers(1, 9), st.data())
def test_exact_equals_every_score_sorted_ties_by_number_wherever_vectors_came_from(
    seed: int, n: int, n_items: int, n_later: int, dim: int, data: st.DataObject
) -> None:
    queries, items = whole(seed, n, dim), whole(seed + 1, n_items + n_later, dim)
    exact = Exact(items[:n_items])
    cuts = sorted(data.draw(st.lists(st.integers(n_items, n_items + n_later), max_size=3)))
    for start, stop in zip([n_items, *cuts], [*cuts, n_items + n_later], strict=True):
        exact.append(items[start:stop])
    k = data.draw(st.integers(1, n_items + n_later + 2))
    numbers, scores = exact.search(queries, k)
    assert exact.n_items == n_items + n_later
    assert (numbers.tolist(), scores.tolist()) == oracle(queries, items, k)


def test_thousands_announced_one_by_one_and_at_once_are_found() -> None:
    items, queries = whole(0, 5_000, 8), whole(1, 3, 8)
    one, all_at_once = Exact(items[:100]), Exact(items)
    for row in items[100:3_000]:
        one.append(row[None])
    one.append(items[3_000:])
    for mine, theirs in zip(one.search(queries, 300), all_at_once.search(queries, 300), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_scores_of_given_items_are_the_bits_that_a_search_gives() -> None:
    random = np.random.default_rng(0)
    items = random.standard_normal((2_000, 50), dtype=np.float32)
    queries = random.standard_normal((4, 50), dtype=np.float32)
    exact = Exact(items[:1_500])
    exact.append(items[1_500:])
    numbers, scores = exact.search(queries, 2_000)
    np.testing.assert_array_equal(exact.score(queries, numbers), scores)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ items.T, numbers, 1), rtol=1e-4, atol=1e-5)
    none = np.full((4, 2), -1)
    assert exact.score(queries, none).tolist() == [[-np.inf, -np.inf]] * 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_refused(bad: float) -> None:
    good, strange = np.ones((3, 2), dtype=np.float32), np.full((1, 2), bad, dtype=np.float32)
    exact = Exact(good)
    for call in (
        lambda: Exact(strange),
        lambda: exact.append(strange),
        lambda: exact.search(strange, 1),
        lambda: exact.score(strange, np.zeros((1, 1), dtype=np.int64)),
    ):
        with pytest.raises(DataError, match="NaN"):
            call()
    assert exact.n_items == 3


@settings(max_examples=60)
@given(st.integers(0, 99), st.integers(0, 30), st.integers(0, 200), st.integers(0, 12), st.data())
def test_filters_leave_the_best_of_what_they_allow_and_never_too_few(
    seed: int, n: int, n_items: int, expected: int, data: st.DataObject
) -> None:
    exact, vector = Exact(whole(seed, n_items, 3)), whole(seed + 1, 3)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=n_items, max_size=n_items)), dtype=bool)
    pool = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=n_items, max_size=n_items)))
    numbers, scores = (found[0] for found in exact.search(vector[None], max(n_items, 1)))
    for only in (None, pool, pool[::-1]):
        keep = np.array([i >= 0 and allowed[i] and (only is None or i in only) for i in numbers], dtype=bool)
        found = nearest(exact, vector, n, lambda numbers: ~allowed[numbers], only=only, expected=expected)
        assert (found[0].tolist(), found[1].tolist()) == (numbers[keep][:n].tolist(), scores[keep][:n].tolist())


def test_the_few_that_filters_leave_in_a_large_catalogue_are_all_found_without_searching_it_whole() -> None:
    random = np.random.default_rng(0)
    items, vector = random.standard_normal((20_000, 8), dtype=np.float32), np.ones(8, dtype=np.float32)
    exact, depths = Exact(items), []

    class Watched(Exact):
        def search(self, vectors_BD: Array, k: int) -> tuple[npt.NDArray[np.int64], Array]:
            depths.append(k)
            return exact.search(vectors_BD, k)

    worst = exact.search(vector[None], 20_000)[0][0][-3:]
    found = nearest(Watched(items), vector, 10, lambda numbers: ~np.isin(numbers, worst))
    assert found[0].tolist() == worst.tolist()
    assert depths == [10, 40, 160, 640, 2_560] and max(depths) <= DEEPEST


def test_a_model_without_vectors_gives_its_rows_and_folds_in() -> None:
    from tests.test_bundle import log  # six users, five items

    from macrorec.graph.bipartite import build

    graph = build(log())
    model = models.load("ease").from_graph(models.load("ease").Config(), graph, torch.Generator())
    model.solve(graph, torch.Generator())
    retriever = ScoreRetriever(model.eval())
    row = model.score_all(torch.tensor([2]))[0]
    order = torch.argsort(-row, stable=True)
    numbers, scores = nearest(retriever.of_user(2), None, 5)
    assert (numbers.tolist(), scores.tolist()) == (order.tolist(), row[order].tolist())
    history = np.array([0, 3])
    folded = model.fold_in(edges_of(np.zeros(2, dtype=np.int64), history, 1, 5))[0]
    found = nearest(retriever.of_history(edges_of(np.zeros(2, dtype=np.int64), history, 1, 5)), None, 5, only=history)
    assert found[1].tolist() == sorted(folded[history].tolist(), reverse=True)


def test_the_protocol_is_kept() -> None:
    kept: Retriever = Exact(np.zeros((1, 1), dtype=np.float32))
    assert kept.exact and kept.kind == "exact"
