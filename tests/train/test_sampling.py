import tracemalloc
from collections import Counter
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from tests.train.toys import graph_of, log_of

from macrorec.api import Labelled, Pairwise, PointBatch, Pointwise, UserRows
from macrorec.data.log import Behavior
from macrorec.errors import ConfigError, DataError
from macrorec.graph.bipartite import Graph, build, edges_of
from macrorec.train.sampling import NonEdges, Purpose, Sampler, sampler, stream, torch_stream

KINDS = [
    Pairwise(n=3),
    Pairwise(n=2, true_negatives=True),
    Pairwise(n=2, by="user"),
    Pairwise(by="user", true_negatives=True),
    Pointwise(n=2),
    Pointwise(n=2, true_negatives=True),
    Pointwise(n=2, every_behavior=True),
    Pointwise(n=2, true_negatives=True, every_behavior=True),
    UserRows(),
    UserRows(every_behavior=True),
    Labelled(),
]
LOG = log_of(np.arange(100) % 7, np.arange(100) % 11, 7, 11, np.where(np.arange(100) % 9, np.arange(100) % 2, np.nan))


def made(kind: Any, graph: Graph, batch_size: int = 32, seed: int = 5) -> Sampler:
    return sampler(kind, graph, batch_size, seed=seed, labelled=LOG)


def pairs(graph: Graph) -> list[tuple[int, int]]:
    return list(zip(graph.target.user_E.tolist(), graph.target.item_E.tolist(), strict=True))


def plain(batch: Any) -> dict[str, Any]:
    """A batch as lists, its generator as a few draws."""
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    generator = values.pop("generator")
    draws = torch.rand(3, generator=generator.clone_state()).tolist()
    lists = {name: value.tolist() for name, value in values.items() if isinstance(value, torch.Tensor)}
    rows = {f"rows {n}": [x.tolist() for x in row] for n, row in enumerate(values.get("rows", ()))}
    return lists | rows | {"generator": draws}


def graph_of_three(n_users: int = 20, n_items: int = 12) -> Graph:
    """Many views, few carts of the first half of the users, purchases; user 0 has bought everything."""
    random = np.random.default_rng(4)
    density = [0.6, 0.15 * (np.arange(n_users) < n_users // 2)[:, None], 0.4]
    grids = [random.random((n_users, n_items)) < d for d in density]
    grids[-1][0] = True
    edges = tuple(edges_of(*grid.nonzero(), n_users, n_items) for grid in grids)
    roles = [Behavior(name="view", role="auxiliary"), Behavior(name="cart", role="auxiliary"), Behavior(name="buy")]
    return Graph(n_users, n_items, tuple(roles), edges)


def edges_by_behavior(graph: Graph) -> list[tuple[int, int, int]]:
    return [
        (r, u, i)
        for r, edges in enumerate(graph.edges)
        for u, i in zip(edges.user_E.tolist(), edges.item_E.tolist(), strict=True)
    ]


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_epoch_from_a_step_is_the_rest_of_the_epoch(kind: Any) -> None:
    batches = [plain(b) for b in made(kind, graph_of(), 8).epoch(3)]
    assert len(batches) == made(kind, graph_of(), 8).n_steps > 2
    for first in range(len(batches) + 1):
        assert [plain(b) for b in made(kind, graph_of(), 8).epoch(3, first)] == batches[first:]


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_epochs_and_seeds_differ(kind: Any) -> None:
    graph = graph_of()
    first = plain(next(iter(made(kind, graph).epoch(0))))
    assert plain(next(iter(made(kind, graph).epoch(0)))) == first
    for other in (made(kind, graph).epoch(1), made(kind, graph, seed=6).epoch(0)):
        batch = plain(next(iter(other)))
        drawn = first.keys() - ({"behavior_B"} if isinstance(kind, Labelled) else {"behavior_B", "labels_B"})
        assert all(batch[name] != first[name] for name in drawn)


@pytest.mark.parametrize("kind", [Pairwise(n=3), Pairwise(n=3, by="user"), Pointwise(n=3)], ids=repr)
def test_steps_differ(kind: Any) -> None:
    first, second = (plain(b) for _, b in zip(range(2), made(kind, graph_of(), 8).epoch(0), strict=False))
    drawn = "negatives_BN" if isinstance(kind, Pairwise) else "items_B"
    assert first[drawn][-8:] != second[drawn][-8:] and first["generator"] != second["generator"]


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_global_random_states_are_left_alone(kind: Any) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    list(made(kind, graph_of()).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


@pytest.mark.parametrize("true_negatives", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 10_000])
def test_pairwise_holds_every_edge_once(batch_size: int, true_negatives: bool) -> None:
    graph = graph_of()
    drawn = sampler(Pairwise(n=2, true_negatives=true_negatives), graph, batch_size, seed=0)
    batches = list(drawn.epoch(0))
    assert len(batches) == drawn.n_steps == -(-len(graph.target) // batch_size)
    assert all(len(b.users_B) == batch_size for b in batches[:-1])
    rows = [row for b in batches for row in zip(b.users_B.tolist(), b.items_B.tolist(), strict=True)]
    assert sorted(rows) == pairs(graph)
    assert len(rows) < 8 or rows != pairs(graph)
    for b in batches:
        assert b.negatives_BN.shape == (len(b.users_B), 2)
        assert b.users_B.dtype == b.items_B.dtype == b.negatives_BN.dtype == torch.int64


@pytest.mark.parametrize("kind", [Pairwise(n=4, true_negatives=True), Pairwise(n=4, true_negatives=True, by="user")])
def test_true_negatives_are_no_edges(kind: Any) -> None:
    graph = graph_of(n_users=20, n_items=12, n_events=300)
    edges = set(pairs(graph))
    density = len(edges) / 240
    assert density > 0.6
    drawn = [
        (user, item)
        for epoch in range(5)
        for b in sampler(kind, graph, 32, seed=0).epoch(epoch)
        for user, items in zip(b.users_B.tolist(), b.negatives_BN.tolist(), strict=True)
        for item in items
    ]
    assert len(drawn) > 1000 and not edges & set(drawn)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=40))
def test_missing_items_by_rank_equal_a_set_difference(edges: list[tuple[int, int]]) -> None:
    log = log_of([u for u, _ in edges], [i for _, i in edges], 6, 7)
    non_edges = NonEdges(build(log).target, 7)
    expected = [sorted(set(range(7)) - {i for v, i in edges if v == u}) for u in range(6)]
    users = np.array([u for u in range(6) for _ in expected[u]], dtype=np.int64)
    ranks = np.array([r for u in range(6) for r in range(len(expected[u]))], dtype=np.int64)
    assert non_edges.select(users, ranks).tolist() == [i for row in expected for i in row]


@pytest.mark.parametrize("true_negatives", [False, True])
def test_negatives_are_uniform(true_negatives: bool) -> None:
    items = [0, 3, 4, 9, 11]
    graph = build(log_of([0] * 5 + [1], [*items, 2], 2, 12))
    drawn: Counter[int] = Counter()
    for epoch in range(200):
        for b in sampler(Pairwise(n=20, true_negatives=true_negatives), graph, 4, seed=9).epoch(epoch):
            drawn.update(b.negatives_BN[b.users_B == 0].flatten().tolist())
    allowed = sorted(set(range(12)) - set(items)) if true_negatives else list(range(12))
    assert sorted(drawn) == allowed
    assert chisquare([drawn[i] for i in allowed]).pvalue > 0.001


def test_uniform_users_then_their_items() -> None:
    """User 2 has no item, user 3 has nine of ten: users come equally often, and items equally within a user."""
    items = {0: [1], 1: [0, 5], 3: list(range(9))}
    user = [u for u, row in items.items() for _ in row]
    graph = build(log_of(user, [i for row in items.values() for i in row], 4, 10))
    drawn = sampler(Pairwise(by="user"), graph, 5, seed=2)
    assert drawn.n_steps == 3
    batches = [b for epoch in range(600) for b in drawn.epoch(epoch)]
    assert sum(len(b.users_B) for b in batches) == 600 * 12
    rows = Counter(row for b in batches for row in zip(b.users_B.tolist(), b.items_B.tolist(), strict=True))
    assert set(rows) == set(pairs(graph))
    by_user = Counter({u: sum(n for (v, _), n in rows.items() if v == u) for u in items})
    assert chisquare(list(by_user.values())).pvalue > 0.001
    for u, row in items.items():
        assert len(row) == 1 or chisquare([rows[u, i] for i in row]).pvalue > 0.001


def test_order_is_a_uniform_permutation() -> None:
    graph = build(log_of([0, 0, 1, 1], [0, 1, 0, 1], 2, 2))
    drawn = sampler(Pairwise(), graph, 4, seed=3)
    orders = Counter(tuple((2 * b.users_B + b.items_B).tolist()) for e in range(2400) for b in drawn.epoch(e))
    assert len(orders) == 24 and chisquare(list(orders.values())).pvalue > 0.001


def test_pointwise_is_positives_then_their_negatives() -> None:
    graph = graph_of()
    edges = set(pairs(graph))
    positives = []
    for b in sampler(Pointwise(n=3, true_negatives=True), graph, 16, seed=1).epoch(0):
        n = len(b.users_B) // 4
        rows = list(zip(b.users_B.tolist(), b.items_B.tolist(), strict=True))
        assert b.labels_B.dtype == torch.float32 and b.labels_B.tolist() == [1.0] * n + [0.0] * 3 * n
        assert b.users_B[n:].view(n, 3).tolist() == [[u] * 3 for u in b.users_B[:n].tolist()]
        assert not edges & set(rows[n:])
        positives += rows[:n]
    assert sorted(positives) == pairs(graph)


@pytest.mark.parametrize("true_negatives", [False, True])
def test_pointwise_of_every_behavior(true_negatives: bool) -> None:
    """Every edge of every behaviour once, each row with its behaviour; a true negative is no edge of just that one."""
    graph = graph_of_three()
    edges = set(edges_by_behavior(graph))
    free = {(r, u) for r in range(3) for u in range(20)} - {(2, 0)} if true_negatives else set()
    expected = sorted(edge for edge in edges if not true_negatives or edge[:2] in free)
    drawn: Any = sampler(Pointwise(n=3, true_negatives=true_negatives, every_behavior=True), graph, 16, seed=1)
    assert drawn.n_skipped == len(edges) - len(expected) == (12 if true_negatives else 0)
    negatives: Counter[tuple[int, int, int]] = Counter()
    for epoch in range(60):
        positives, sizes = [], []
        for b in drawn.epoch(epoch):
            n = len(b.users_B) // 4
            sizes.append(n)
            assert b.behavior_B.dtype == torch.int64 and b.labels_B.tolist() == [1.0] * n + [0.0] * 3 * n
            rows = list(zip(b.behavior_B.tolist(), b.users_B.tolist(), b.items_B.tolist(), strict=True))
            assert [row[:2] for row in rows[n:]] == [row[:2] for row in rows[:n] for _ in range(3)]
            positives += rows[:n]
            negatives.update(rows[n:])
        assert sorted(positives) == expected and positives != expected
        assert sizes == [16] * (len(expected) // 16) + [len(expected) % 16]
    assert not true_negatives or not edges & set(negatives)
    for r, u in [(0, 3), (1, 3), (2, 3), (0, 0)]:
        allowed = [i for i in range(12) if not true_negatives or (r, u, i) not in edges]
        found = [negatives[r, u, i] for i in allowed]
        assert sum(found) == sum(n for row, n in negatives.items() if row[:2] == (r, u)) > 0
        assert chisquare(found).pvalue > 0.001


@pytest.mark.parametrize("kind", [Pairwise(), Pairwise(by="user"), Pointwise(n=0)], ids=repr)
def test_edges_of_the_target_alone_unless_asked_for(kind: Any) -> None:
    graph = graph_of_three()
    rows = {
        row
        for epoch in range(1 if kind == Pointwise(n=0) else 20)
        for b in sampler(kind, graph, 999, seed=0).epoch(epoch)
        for row in zip(b.users_B.tolist(), b.items_B.tolist(), strict=True)
    }
    assert rows == set(pairs(graph))


def test_one_behavior_is_every_behavior() -> None:
    graph = graph_of()
    for one, every in zip(
        sampler(Pointwise(n=2, true_negatives=True), graph, 32, seed=5).epoch(1),
        sampler(Pointwise(n=2, true_negatives=True, every_behavior=True), graph, 32, seed=5).epoch(1),
        strict=True,
    ):
        rows = plain(every)
        assert set(rows.pop("behavior_B")) == {0} and rows == plain(one)


def test_an_empty_behavior_is_skipped_and_an_empty_target_refused() -> None:
    graph = graph_of_three()
    nothing = edges_of(np.zeros(0, np.int64), np.zeros(0, np.int64), 20, 12)
    kind = Pointwise(n=1, every_behavior=True)
    (batch,) = sampler(kind, replace(graph, edges=(graph.edges[0], nothing, graph.edges[2])), 999, seed=0).epoch(0)
    assert isinstance(batch, PointBatch) and batch.behavior_B is not None and set(batch.behavior_B.tolist()) == {0, 2}
    with pytest.raises(DataError, match="nothing to train on: no 'buy' event"):
        sampler(kind, replace(graph, edges=(*graph.edges[:2], nothing)), 8, seed=0)


def test_user_rows_hold_every_active_user_once() -> None:
    graph = graph_of()
    found: dict[int, list[int]] = {}
    for b in sampler(UserRows(), graph, 7, seed=1).epoch(4):
        assert b.start_B[0] == 0 and b.start_B[-1] == len(b.items_E)
        for place, user in enumerate(b.users_B.tolist()):
            assert user not in found
            found[user] = b.items_E[b.start_B[place] : b.start_B[place + 1]].tolist()
    expected: dict[int, list[int]] = {}
    for user, item in pairs(graph):
        expected.setdefault(user, []).append(item)
    assert found == expected and len(found) < graph.n_users


def test_user_rows_of_every_behavior_hold_each_user_of_any_once() -> None:
    graph = graph_of_three()
    late = graph.target.user_E >= 3
    bought = edges_of(graph.target.user_E[late].numpy(), graph.target.item_E[late].numpy(), 20, 12)
    graph = replace(graph, edges=(*graph.edges[:-1], bought))
    missing = [edges.start_U.diff() == 0 for edges in graph.edges]
    assert (missing[1] & ~missing[0]).any(), "some have viewed, and not carted"
    assert (missing[2] & ~missing[0]).any(), "some have viewed, and not bought"
    found: list[dict[int, list[int]]] = [{}, {}, {}]
    for b in sampler(UserRows(every_behavior=True), graph, 7, seed=1).epoch(2):
        assert len(b.rows) == 3 and b.rows[-1][0] is b.start_B and b.rows[-1][1] is b.items_E
        for (start_B, items_E), of_behavior in zip(b.rows, found, strict=True):
            for place, user in enumerate(b.users_B.tolist()):
                assert user not in of_behavior
                of_behavior[user] = items_E[start_B[place] : start_B[place + 1]].tolist()
    for edges, of_behavior in zip(graph.edges, found, strict=True):
        for user in range(graph.n_users):
            own = edges.item_E[edges.start_U[user] : edges.start_U[user + 1]].tolist()
            assert of_behavior.get(user, []) == own
    assert set(found[0]) == set(torch.cat([edges.user_E for edges in graph.edges]).tolist())


def test_labelled_holds_every_labelled_row_once() -> None:
    assert LOG.label is not None
    expected = sorted(
        (u, i, y) for u, i, y in zip(LOG.user, LOG.item, LOG.label.tolist(), strict=True) if not np.isnan(y)
    )
    rows = [
        row
        for b in sampler(Labelled(), graph_of(), 8, seed=1, labelled=LOG).epoch(0)
        for row in zip(b.users_B.tolist(), b.items_B.tolist(), b.labels_B.tolist(), strict=True)
    ]
    assert len(rows) == 88 and sorted(rows) == expected


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (None, "has no column 'label'"),
        (log_of([0], [0], 1, 1), "has no column 'label'"),
        (log_of([0], [0], 1, 1, [np.nan]), "no row of the train part carries a label"),
        (log_of([0, 0], [0, 0], 1, 1, [1, 5]), r"labels must lie in \[0, 1\], and run from 1 to 5"),
        (log_of([0, 0], [0, 0], 1, 1, [-1, 1]), r"run from -1 to 1"),
    ],
)
def test_labels_that_cannot_be_trained_on(log: Any, line: str) -> None:
    with pytest.raises(DataError, match=line):
        sampler(Labelled(), graph_of(), 8, seed=1, labelled=log)


@pytest.mark.parametrize("kind", [Pairwise(), Pairwise(by="user"), Pointwise(), UserRows()], ids=repr)
def test_nothing_to_train_on(kind: Any) -> None:
    with pytest.raises(DataError, match="nothing to train on: no 'buy' event"):
        sampler(kind, build(log_of([], [], 3, 3)), 8, seed=1)


@pytest.mark.parametrize("kind", [Pairwise(n=2, true_negatives=True), Pointwise(true_negatives=True)], ids=repr)
def test_users_who_have_every_item_are_skipped(kind: Any) -> None:
    graph = build(log_of([0, 0, 1, 2, 2], [0, 1, 1, 0, 1], 3, 2))
    drawn: Any = sampler(kind, graph, 10, seed=0)
    (batch,) = drawn.epoch(0)
    assert set(batch.users_B.tolist()) == {1} and drawn.n_skipped == 4 and drawn.n_steps == 1
    with pytest.raises(DataError, match="every user has every item"):
        sampler(kind, build(log_of([0, 0], [0, 1], 1, 2)), 10, seed=0)


def test_uniform_users_skip_those_who_have_every_item() -> None:
    graph = build(log_of([0, 0, 1, 2, 2], [0, 1, 1, 0, 1], 3, 2))
    for epoch in range(20):
        (batch,) = sampler(Pairwise(by="user", true_negatives=True), graph, 10, seed=0).epoch(epoch)
        assert batch.users_B.tolist() == [1] and batch.negatives_BN.tolist() == [[0]]


def test_ranges() -> None:
    with pytest.raises(ConfigError, match="batch_size must be at least 1, not 0"):
        sampler(Pairwise(), graph_of(), 0, seed=1)
    with pytest.raises(ConfigError, match="seed must be at least 0, not -1"):
        sampler(Pairwise(), graph_of(), 1, seed=-1)
    with pytest.raises(ConfigError, match="negatives must be at least 1, not 0"):
        sampler(Pairwise(n=0), graph_of(), 1, seed=1)
    (batch,) = sampler(Pointwise(n=0), graph_of(), 10_000, seed=1).epoch(0)
    assert bool((batch.labels_B == 1).all())


def test_streams_of_neighbouring_counters_are_unrelated() -> None:
    """First draws over seeds, purposes, epochs and steps: all different, uniform, and without serial correlation."""
    keys = [(s, p, e, n) for s in range(5) for p in Purpose for e in range(10) for n in range(50)]
    first = np.array([stream(s, p, e, n).random() for s, p, e, n in keys])
    assert len(np.unique(first)) == len(keys) == 10_000
    assert chisquare(np.histogram(first, bins=50, range=(0, 1))[0]).pvalue > 0.001
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.04
    assert stream(1, Purpose.DRAW, 2, 3).random() == stream(1, Purpose.DRAW, 2, 3).random()


def test_torch_streams_of_an_epoch_differ() -> None:
    draws = {
        float(torch.rand(1, generator=torch_stream(0, Purpose.DROPOUT, e, n))) for e in range(4) for n in range(99)
    }
    assert len(draws) > 390


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_device_does_not_change_batches(kind: Any) -> None:
    graph = graph_of()
    for here, there in zip(
        made(kind, graph).epoch(0), sampler(kind, graph, 32, seed=5, labelled=LOG, device="cuda").epoch(0), strict=True
    ):
        a, b = plain(here), plain(there)
        assert there.users_B.is_cuda and there.generator.device.type == "cuda"
        assert {k: v for k, v in a.items() if k != "generator"} == {k: v for k, v in b.items() if k != "generator"}


def test_an_epoch_holds_four_bytes_per_edge_and_no_more() -> None:
    """Its order; negatives that are no edges are found in the rows of the graph itself."""
    rng = np.random.default_rng(0)
    edges = edges_of(rng.integers(20_000, size=500_000), rng.integers(9000, size=500_000), 20_000, 9000)
    graph = Graph(20_000, 9000, (Behavior(name="buy"),), (edges,))
    next(sampler(Pairwise(n=4, true_negatives=True), graph, 256, seed=0).epoch(0))
    tracemalloc.start()
    batches = sampler(Pairwise(n=4, true_negatives=True), graph, 256, seed=0).epoch(0)
    next(batches)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(edges) + 1e6


def test_an_order_of_numbers_of_four_bytes_is_that_of_eight() -> None:
    graph = graph_of()
    drawn = sampler(Pairwise(), graph, 1000, seed=7)
    (batch,) = drawn.epoch(3)
    order = stream(7, Purpose.ORDER, 3).permutation(len(graph.target))
    assert torch.equal(batch.items_B, graph.target.item_E[torch.from_numpy(order)])
