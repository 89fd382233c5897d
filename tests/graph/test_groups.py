"""Groups: k-means against hand-worked and slow answers, vectors against loops, agreement against chance."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from macrorec.errors import ConfigError, DataError
from macrorec.graph import groups as module
from macrorec.graph.groups import (
    UNKNOWN,
    ByKMeans,
    Groups,
    agreement,
    assign,
    by_category,
    by_kmeans,
    distinctive,
    item_vectors,
    objective,
    user_vectors,
)

SIX = np.array([[1.0, 0], [1, 2], [1, 4], [10, 0], [10, 2], [0, 0]])
"""Two columns of points, and a node without history."""


def test_six_points_by_hand() -> None:
    groups = by_kmeans(SIX, 2, seed=0)
    assert groups.of_N.tolist() == [0, 0, 0, 1, 1, UNKNOWN]
    assert groups.centres_KF is not None and groups.centres_KF.tolist() == [[1, 2], [10, 1]]  # (3)
    assert objective(SIX, groups) == 2 + 0 + 2 + 1 + 1  # (4): norms, not their squares
    assert groups.sizes.tolist() == [3, 2] and groups.unknown == 1 and groups.n == 2


def test_one_group_is_the_mean() -> None:
    groups = by_kmeans(SIX, 1, seed=0)
    assert groups.centres_KF is not None and np.allclose(groups.centres_KF, SIX[:5].mean(0))
    assert objective(SIX, groups) == pytest.approx(sum(np.linalg.norm(v - SIX[:5].mean(0)) for v in SIX[:5]))


def test_as_many_groups_as_nodes() -> None:
    groups = by_kmeans(SIX, 5, seed=0)
    assert sorted(groups.of_N[:5]) == [0, 1, 2, 3, 4] and objective(SIX, groups) == 0


def test_more_groups_than_nodes_with_history() -> None:
    with pytest.raises(DataError, match="into 6 groups, but only 5 of 6 nodes have history; allowed are 1 to 5 groups"):
        by_kmeans(SIX, 6, seed=0)
    with pytest.raises(ConfigError, match="into 0 groups"):
        by_kmeans(SIX, 0, seed=0)
    with pytest.raises(ConfigError, match="dim is 0"):
        ByKMeans(dim=0)


def test_what_is_not_finite_is_named() -> None:
    for wrong in (np.nan, np.inf):
        vectors = SIX.copy()
        vectors[3, 1] = wrong
        with pytest.raises(DataError, match="that of node 3 is not"):
            by_kmeans(vectors, 2, seed=0)


def test_fewer_distinct_vectors_than_groups() -> None:
    vectors = np.repeat([[1.0, 0], [0, 1], [0, 0]], [5, 3, 2], axis=0)
    groups = by_kmeans(vectors, 4, seed=0)
    assert groups.of_N.tolist() == [0] * 5 + [1] * 3 + [UNKNOWN] * 2 and groups.n == 2
    assert objective(vectors, groups) == 0


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float64, (12, 2), elements=st.integers(0, 4).map(float)), st.integers(1, 4), st.integers(0, 3))
@example(np.ones((12, 2)), 3, 0)
def test_what_every_grouping_keeps(vectors: np.ndarray, k: int, seed: int) -> None:
    known = vectors.any(1)
    if k > known.sum():
        return
    groups = by_kmeans(vectors, k, seed=seed)
    centres = groups.centres_KF
    assert centres is not None and ((groups.of_N >= 0) == known).all()
    assert groups.n == len(centres) == min(k, len(np.unique(vectors[known], axis=0)))
    assert (np.diff(groups.sizes) <= 0).all() and groups.sizes.min() > 0
    for group in range(groups.n):
        assert np.allclose(centres[group], vectors[groups.of_N == group].mean(0))  # (3)
    distance = cdist(vectors, centres)
    own = distance[np.flatnonzero(known), groups.of_N[known]]
    assert np.allclose(own, distance[known].min(1))  # nobody is nearer to another group's centre
    assert objective(vectors, groups) == pytest.approx(own.sum())
    again = by_kmeans(vectors, k, seed=seed)
    assert (again.of_N == groups.of_N).all()


def test_as_good_as_the_library() -> None:
    vectors = blobs(600, 6, 8)
    best = KMeans(8, n_init=10, random_state=0).fit(vectors)
    ours = by_kmeans(vectors, 8, seed=0)
    assert objective(vectors, ours) <= 1.05 * objective(vectors, Groups(best.labels_, 8))


def test_nobody_wants_to_move() -> None:
    vectors = np.random.default_rng(2).random((2000, 5))  # no clusters at all: many steps to get there
    groups = by_kmeans(vectors, 12, seed=0)
    assert groups.centres_KF is not None
    assert (cdist(vectors, groups.centres_KF).argmin(1) == groups.of_N).all()


def test_seeds_and_threads() -> None:
    vectors = blobs(3000, 18, 40).astype(np.float32)
    with threadpool_limits(4):
        many = by_kmeans(vectors, 20, seed=3)
    with threadpool_limits(1):
        one = by_kmeans(vectors, 20, seed=3)
    assert (many.of_N == one.of_N).all()
    assert (by_kmeans(vectors, 20, seed=4).of_N != one.of_N).any()


def test_sparse_vectors_give_the_groups_of_dense_ones() -> None:
    vectors = blobs(400, 12, 5)
    dense, sparse = by_kmeans(vectors, 5, seed=0), by_kmeans(sp.csr_matrix(vectors), 5, seed=0)
    assert agreement(dense, sparse.of_N) == 1 and (dense.of_N == sparse.of_N).all()
    assert objective(sp.csr_matrix(vectors), sparse) == pytest.approx(objective(vectors, dense))
    late = Groups(np.full(len(vectors), UNKNOWN, dtype=np.int32), 5, centres_KF=dense.centres_KF)
    assert (assign(late, sp.csr_matrix(vectors)).of_N == dense.of_N).all()


def test_a_sample_teaches_the_centres(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = blobs(2000, 6, 8)
    whole = by_kmeans(vectors, 8, seed=0)
    monkeypatch.setattr(module, "SAMPLE", 300)
    groups = by_kmeans(vectors, 8, seed=0)
    assert groups.sizes.sum() == 2000 and agreement(groups, whole.of_N) > 0.95


def test_later_nodes_join_the_nearest() -> None:
    groups = by_kmeans(SIX, 2, seed=0)
    later = np.vstack([SIX[:3], [[2.0, 2], [2, 2], [0, 0]], [[9, 9], [0, 0], [5.5, 1.5]]])
    joined = assign(groups, later)
    # Nodes 3 and 4 moved, but stay where they are; the last lies between both centres and joins the larger group.
    assert joined.of_N.tolist() == [0, 0, 0, 1, 1, UNKNOWN, 1, UNKNOWN, 0]
    assert joined.centres_KF is groups.centres_KF and groups.of_N[5] == UNKNOWN and len(groups) == 6
    assert assign(joined, later).of_N.tolist() == joined.of_N.tolist()
    named = by_category(np.array([0, -1]), ["a"])
    assert assign(named, np.ones((3, 2))).of_N.tolist() == [0, UNKNOWN, UNKNOWN]


def test_groups_from_outside() -> None:
    assert module.given(np.array([1, -7, 0])).of_N.tolist() == [1, UNKNOWN, 0]
    assert module.given(np.array([1, 0]), 5).n == 5 and module.given(np.array([-1])).n == 0
    with pytest.raises(DataError, match="node 1 is in group 3; 3 groups are numbered 0 to 2"):
        module.given(np.array([0, 3]), 3)
    with pytest.raises(DataError, match="one whole number per node; got float64"):
        module.given(np.array([0.5]))


def test_user_vectors_by_hand() -> None:
    items = by_category(np.array([0, 0, 1, -1]), ["a", "b"])
    user, item = np.array([0, 0, 0, 1, 1, 3]), np.array([0, 1, 2, 2, 3, 3])
    vectors = user_vectors(user, item, None, items, 4)
    assert np.allclose(vectors, [[2 / 5**0.5, 1 / 5**0.5], [0, 1], [0, 0], [0, 0]])
    heavy = user_vectors(user, item, np.array([1, 1, 2, 9, 9, 9]), items, 4)
    assert np.allclose(heavy[0], [0.5**0.5, 0.5**0.5])


def test_wide_user_vectors_are_sparse_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    items = by_category(rng.integers(-1, 9, 30), list("abcdefghi"))
    events = rng.integers(20, size=200), rng.integers(30, size=200), rng.random(200).astype(np.float32)
    dense = user_vectors(*events, items, 20)
    slow = np.zeros((20, 9))
    for user, item, weight in zip(*events, strict=True):
        if items.of_N[item] >= 0:
            slow[user, items.of_N[item]] += weight
    slow /= np.linalg.norm(slow, axis=1, keepdims=True)
    assert dense.dtype == np.float32 and np.allclose(dense, slow, atol=1e-6)
    monkeypatch.setattr(module, "WIDE", 8)
    wide = user_vectors(*events, items, 20)
    assert sp.issparse(wide) and wide.dtype == np.float32 and np.allclose(wide.toarray(), slow, atol=1e-6)


def test_item_vectors_are_the_singular_ones() -> None:
    rng = np.random.default_rng(1)
    user, item = rng.integers(40, size=300), rng.integers(25, size=300)
    item[item == 7] = 8
    met = np.zeros((40, 25))
    met[user, item] = 1
    met /= np.maximum(np.linalg.norm(met, axis=1, keepdims=True), 1e-9)
    left, values, _ = np.linalg.svd(met.T)
    vectors = item_vectors(user, item, None, 40, 25, 25, seed=0)
    exact = left * values
    exact /= np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-9)
    assert np.allclose(vectors @ vectors.T, exact @ exact.T, atol=1e-5)  # the same up to a rotation
    assert not vectors[7].any() and np.allclose(np.linalg.norm(np.delete(vectors, 7, 0), axis=1), 1)
    assert item_vectors(user, item, None, 40, 25, 6, seed=0).shape == (25, 6)
    assert np.array_equal(vectors, item_vectors(user, item, None, 40, 25, 99, seed=0))


def test_events_of_weight_zero_and_repeats_do_not_move_items() -> None:
    user, item = np.array([0, 0, 1, 1, 2, 2, 2]), np.array([0, 1, 0, 1, 2, 3, 0])
    once = item_vectors(user, item, np.array([1, 1, 1, 1, 1, 1, 0]), 3, 4, 3, seed=0)
    assert np.allclose(once, item_vectors(user[:6], item[:6], None, 3, 4, 3, seed=0))
    assert np.allclose(
        once, item_vectors(user[[0, 1, 2, 3, 4, 5, 5]], item[[0, 1, 2, 3, 4, 5, 5]], None, 3, 4, 3, seed=0)
    )
    assert by_kmeans(once, 2, seed=0).of_N.tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])


def test_agreement() -> None:
    groups = Groups(np.array([0, 0, 1, 1, UNKNOWN, 1], dtype=np.int32), 2)
    assert agreement(groups, np.array([5, 5, 3, 3, 5, -1])) == 1
    assert np.isnan(agreement(groups, np.full(6, -1)))
    rng = np.random.default_rng(0)
    chance = Groups(rng.integers(8, size=4000).astype(np.int32), 8)
    assert abs(agreement(chance, rng.integers(5, size=4000))) < 0.01


def test_what_sets_a_group_apart() -> None:
    # Item 9 is liked by all alike; item 1 is half of group 0's events, item 2 of group 1's; item 3 is rare.
    group = np.array([0] * 4 + [1] * 5 + [-1] * 3)
    item = np.array([9, 9, 1, 1, 9, 9, 2, 2, 3, 1, 1, 1])
    assert distinctive(group, item, None, 3, top=2) == [[1, 9], [2, 3], []]
    heavy = np.where(item == 3, 10.0, 1.0)
    assert distinctive(group, item, heavy, 2, top=1) == [[1], [3]]
    assert distinctive(np.zeros(0, int), np.zeros(0, int), None, 2) == [[], []]


def blobs(n: int, n_numbers: int, n_blobs: int) -> np.ndarray:
    """Points around ``n_blobs`` places, rows of length 1."""
    rng = np.random.default_rng(5)
    points = rng.standard_normal((n_blobs, n_numbers))[rng.integers(n_blobs, size=n)]
    points += 0.2 * rng.standard_normal((n, n_numbers))
    scaled: np.ndarray = points / np.linalg.norm(points, axis=1, keepdims=True)
    return scaled
