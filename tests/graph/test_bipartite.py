import tracemalloc
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from macrorec.data.log import Behavior, Interactions, Split
from macrorec.data.vocab import Vocab
from macrorec.graph.bipartite import build, edges_of, from_split

VIEW = Behavior(name="view", role="auxiliary", weight=0.5, mask=False)
BUY = Behavior(name="buy", weight=2.0)


def log_of(rows, behaviors=(VIEW, BUY), n_users=4, n_items=5, weighted=True):
    """A log from (user, item, behaviour, weight) rows."""
    user, item, behavior, weight = (np.array(column) for column in zip(*rows, strict=True))
    return Interactions(
        Vocab(range(n_users)),
        Vocab(range(n_items)),
        behaviors,
        user.astype(np.int32),
        item.astype(np.int32),
        behavior.astype(np.int8),
        weight=weight.astype(np.float32) if weighted else None,
    )


ROWS = [(2, 4, 1, 1), (0, 3, 1, 2), (0, 1, 0, 1), (0, 3, 1, 4), (2, 0, 1, 0.5), (0, 1, 0, 3), (3, 3, 0, 1)]


@pytest.mark.parametrize("weighted", [True, False])
def test_events_of_a_pair_become_one_edge_sorted_by_user_then_item(weighted):
    log = log_of(ROWS, weighted=weighted)
    graph = build(log)
    for number, (behavior, edges) in enumerate(zip(log.behaviors, graph.edges, strict=True)):
        count, weight = Counter(), defaultdict(float)
        for user, item, kind, size in ROWS:
            if kind == number:
                count[user, item] += 1
                weight[user, item] += behavior.weight * (size if weighted else 1)
        pairs = sorted(count)
        assert list(zip(edges.user_E.tolist(), edges.item_E.tolist(), strict=True)) == pairs
        assert edges.count_E.tolist() == [count[pair] for pair in pairs]
        assert edges.weight_E.tolist() == [weight[pair] for pair in pairs]
        assert edges.start_U.tolist() == [sum(user < u for user, _ in pairs) for u in range(5)]
        assert len(edges) == len(pairs)
    assert graph.target is graph.edges[-1]
    assert (graph.n_users, graph.n_items, graph.n_nodes) == (4, 5, 9)


def test_order_of_rows_does_not_matter():
    graph, other = build(log_of(ROWS)), build(log_of(ROWS[::-1]))
    for a, b in zip(graph.edges, other.edges, strict=True):
        assert torch.equal(a.item_E, b.item_E)
        assert torch.equal(a.weight_E, b.weight_E)


def test_matrix_and_degrees():
    edges = build(log_of(ROWS)).target
    assert edges.csr(5).toarray().tolist() == [[0, 0, 0, 1, 0], [0] * 5, [1, 0, 0, 0, 1], [0] * 5]
    assert edges.csr(5, weighted=True).toarray().tolist() == [[0, 0, 0, 12, 0], [0] * 5, [1, 0, 0, 0, 2], [0] * 5]
    users, items = edges.degrees(5)
    assert users.tolist() == [1, 0, 2, 0]
    assert items.tolist() == [1, 0, 0, 1, 1]


def test_mask_leaves_out_behaviours_that_do_not_mask():
    assert np.argwhere(build(log_of(ROWS)).masked().toarray()).tolist() == [[0, 3], [2, 0], [2, 4]]
    masking = Behavior(name="view", role="auxiliary")
    everything = build(log_of(ROWS, behaviors=(masking, BUY))).masked()
    assert np.argwhere(everything.toarray()).tolist() == [[0, 1], [0, 3], [2, 0], [2, 4], [3, 3]]
    assert everything.has_sorted_indices


def test_the_union_holds_each_pair_once():
    graph = build(log_of(ROWS))
    union = graph.union()
    pairs = sorted({(user, item) for user, item, _, _ in ROWS})
    assert list(zip(union.user_E.tolist(), union.item_E.tolist(), strict=True)) == pairs
    scale = {0: VIEW.weight, 1: BUY.weight}
    weights = [sum(w * scale[b] for u, i, b, w in ROWS if (u, i) == pair) for pair in pairs]
    assert union.weight_E.tolist() == pytest.approx(weights)
    assert union.count_E.tolist() == [len({b for u, i, b, _ in ROWS if (u, i) == pair}) for pair in pairs]
    assert union.start_U.tolist() == [0, 2, 2, 4, 5]


def test_only_train_is_looked_at():
    train = log_of(ROWS[:3])
    rest = train.take(np.array([0]))
    graph = from_split(Split(train=train.take(np.array([1, 2])), valid=rest, test=rest, protocol={}))
    assert graph.target.user_E.tolist() == [0]
    assert graph.edges[0].item_E.tolist() == [1]


@pytest.mark.parametrize(("n_users", "n_items"), [(3, 4), (3, 0), (0, 4), (0, 0)])
def test_no_events(n_users, n_items):
    edges = edges_of(np.empty(0, np.int32), np.empty(0, np.int32), n_users, n_items)
    assert len(edges) == 0
    assert edges.start_U.tolist() == [0] * (n_users + 1)
    assert edges.csr(n_items).shape == (n_users, n_items)


def test_numbers_of_a_large_market_do_not_overflow():
    edges = edges_of(np.array([2_999_999], np.int32), np.array([1_999_999], np.int32), 3_000_000, 2_000_000)
    assert (edges.user_E.item(), edges.item_E.item()) == (2_999_999, 1_999_999)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_no_weights_and_weights_of_one_make_the_same_edges(scale):
    rng = np.random.default_rng(0)
    for n, n_users, n_items in ((1, 1, 1), (200, 7, 9), (500, 40, 30), (3, 1, 5)):
        user, item = rng.integers(n_users, size=n, dtype=np.int32), rng.integers(n_items, size=n, dtype=np.int32)
        plain = edges_of(user, item, n_users, n_items, scale=scale)
        ones = edges_of(user, item, n_users, n_items, np.ones(n, np.float32), scale=scale)
        counted = Counter(zip(user.tolist(), item.tolist(), strict=True))
        assert plain.count_E.tolist() == [counted[pair] for pair in sorted(counted)]
        for name in ("user_E", "item_E", "weight_E", "count_E", "start_U"):
            assert torch.equal(getattr(plain, name), getattr(ones, name)), name
            assert getattr(plain, name).dtype == (torch.float32 if name == "weight_E" else torch.int64)


def test_edges_are_made_in_little_more_memory_than_they_keep():
    """Of a million events in int32: 28 bytes per edge are kept."""
    rng = np.random.default_rng(0)
    user, item = (
        rng.integers(20_000, size=1_000_000, dtype=np.int32),
        rng.integers(9000, size=1_000_000, dtype=np.int32),
    )
    tracemalloc.start()
    edges = edges_of(user, item, 20_000, 9000)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(edges) > 990_000 and kept < 29e6 and peak < 33e6
