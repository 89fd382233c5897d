import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from tests.contract.boards import corners, log_of

from macrorec.graph.bipartite import Graph, build, edges_of
from macrorec.ops.evidence import KINDS, Evidence, Rows

PRIOR, SHRINKAGE = 4.0, 2.0


def graph_of(*drawings):
    """A graph from one drawing of zeros and ones per behaviour, target last."""
    n_users, n_items = np.array(drawings[-1]).shape
    return build(log_of(n_users, n_items, *(np.argwhere(np.array(d)) for d in drawings)))


def drawing_of(graph: Graph):
    return [edges.csr(graph.n_items).toarray().astype(int).tolist() for edges in graph.edges]


def cosine(left, right, shrinkage):
    """Of two lists of zeros and ones."""
    return sum(a * b for a, b in zip(left, right, strict=True)) / (math.sqrt(sum(left) * sum(right)) + shrinkage)


def columns_by_loops(drawings, u, i, held):
    """The evidence of one pair, counted from the drawings with the purchase (u, held) erased."""
    *met, bought = [[list(row) for row in drawing] for drawing in drawings]
    if held >= 0:
        bought[u][held] = 0
    n_users, n_items = len(bought), len(bought[0])
    others = [v for v in range(n_users) if v != u]
    union = [[max(rows[v][j] for rows in met) for j in range(n_items)] for v in range(n_users) if met]
    drawn = [*met, union] if met else []
    column = {(r, j): [row[j] for row in rows] for r, rows in enumerate(drawn) for j in range(n_items)}
    buyers = [[row[j] for row in bought] for j in range(n_items)]
    mine = [j for j in range(n_items) if bought[u][j] and j != i]
    full = drawings[-1]
    answer = []

    def near(r, j):
        return cosine(column[r, i], column[r, j], SHRINKAGE)

    def shares(j, them):
        return sum(a * b for a, b in zip(them, buyers[i], strict=True)) / (sum(them) + SHRINKAGE)

    for r, rows in enumerate(met):
        own = [j for j in range(n_items) if rows[u][j]]
        rest = [j for j in own if j != i]
        every = sum(map(sum, rows))
        mean = (sum(rows[v][j] * full[v][j] for v in range(n_users) for j in range(n_items)) + 1) / (every + 10)
        n = sum(rows[v][i] for v in others)
        b = sum(rows[v][i] * bought[v][i] for v in others)
        n_bought = sum(map(int, bought[u]))
        known = sum(bought[u][j] for j in own)
        led = [shares(j, column[r, j]) for j in rest]
        answer += [
            rows[u][i],
            math.log((b + PRIOR * mean) / (n + PRIOR) / mean),
            math.log1p(n),
            (known + 1) / (n_bought + 2),
            math.log1p(len(own) - known),
            math.sqrt(sum(cosine(column[r, j], buyers[i], SHRINKAGE) for j in rest)),
            math.sqrt(sum(led)),
            max(led, default=0),
            sum(near(r, j) for j in rest) / max(len(rest), 1),
            max((near(r, j) for j in rest), default=0),
        ]
    for r in range(len(met) + (len(met) > 1)):
        answer += [sum(near(r, j) for j in mine), max((near(r, j) for j in mine), default=0)]
    purchases = {j: [row[j] for row in full] for j in mine}
    together = [cosine(purchases[j], buyers[i], SHRINKAGE) for j in mine]
    share = [shares(j, purchases[j]) for j in mine]
    answer += [math.log1p(sum(buyers[i])), math.log1p(sum(map(int, bought[u])))]
    answer += [math.sqrt(sum(together)), max(together, default=0)]
    answer += [math.sqrt(sum(share)), max(share, default=0)]
    own = [j for rows in met for j in range(n_items) if rows[u][j]]
    length = math.sqrt(sum(like(union, j, k) for j in own for k in own)) or 1
    return [*answer, sum(like(union, i, j) for j in mine), sum(like(union, i, j) for j in own) / length]


def like(union, i, j):
    """Cosine of two columns of the union, where each user's row is divided by the root of its length."""
    size = [max(sum(row), 1) for row in union]
    both, left, right = (
        sum(row[a] * row[b] / n for row, n in zip(union, size, strict=True)) for a, b in ((i, j), (i, i), (j, j))
    )
    return both / math.sqrt(left * right) if both else 0


def tables(graph, *, held):
    """The table of every user with every item, each user's purchase ``held[u]`` undone, and that of the loops."""
    evidence = Evidence(graph, prior=PRIOR, shrinkage=SHRINKAGE, n_neighbors=graph.n_items, dim=99)
    n_users, n_items = graph.n_users, graph.n_items
    got = evidence.table(
        Rows.of(graph.edges),
        torch.arange(n_users),
        torch.tensor(held),
        torch.arange(n_users + 1) * n_items,
        torch.arange(n_items).repeat(n_users),
    ).view(n_users, n_items, -1)
    drawings = drawing_of(graph)
    expected = [[columns_by_loops(drawings, u, i, held[u]) for i in range(n_items)] for u in range(n_users)]
    return got, torch.tensor(expected, dtype=torch.float32)


VIEW = [[1, 1, 0, 1], [0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
CART = [[0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
BUY = [[0, 1, 0, 1], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]


def test_every_column_of_every_pair_is_what_loops_count():
    for behaviors in ([BUY], [VIEW, BUY], [VIEW, CART, BUY]):
        got, expected = tables(graph_of(*behaviors), held=[-1] * 4)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("held", [[1, 1, 0, 2], [3, -1, 1, -1]])
def test_a_held_purchase_is_counted_nowhere(held):
    # Cosines of the item asked for have its buyers without the purchase; those of other items keep the matrix of train.
    got, expected = tables(graph_of(VIEW, CART, BUY), held=held)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_by_hand():
    # User 0 viewed 0 and 1 and bought 1; user 1 viewed both and bought both.
    graph = graph_of([[1, 1], [1, 1]], [[0, 1], [1, 1]])
    evidence = Evidence(graph, prior=1.0, shrinkage=1.0, n_neighbors=1, dim=9)
    table = evidence.table(
        Rows.of(graph.edges), torch.tensor([0]), torch.tensor([-1]), torch.tensor([0, 1]), torch.tensor([0])
    )
    mean = (3 + 1) / (4 + 10)
    expected = {
        "edge": [1],
        "rate": [math.log((1 + mean) / 2 / mean)],  # of the one other viewer of item 0, all bought it
        "degree": [math.log(2)],
        "habit": [2 / 3],  # its one purchase had been viewed
        "choice": [math.log(2)],  # item 0
        "led": [math.sqrt(1 / (math.sqrt(2) + 1))],  # item 1, two viewers, of whom one is the buyer of item 0
        "led-share": [math.sqrt(1 / 3), 1 / 3],
        "alike": [2 / 3, 2 / 3],
        "alike-bought": [2 / 3, 2 / 3],
        "bought": [math.log(2)],
        "purchases": [math.log(2)],
        "together": [math.sqrt(1 / (math.sqrt(2) + 1)), 1 / (math.sqrt(2) + 1)],
        "together-share": [math.sqrt(1 / 3), 1 / 3],
        "profile": [1, 1],  # item 0 and the purchase have the same viewers
    }
    assert list(expected) == list(KINDS)
    assert table[0].tolist() == pytest.approx([x for values in expected.values() for x in values], rel=1e-6)


def test_random_graphs_equal_the_loops():
    log = corners()
    graph = build(log)
    first = [int(graph.target.item_E[s]) if s < e else -1 for s, e in zip(*bounds(graph), strict=True)]
    for held in ([-1] * graph.n_users, first):
        got, expected = tables(graph, held=held)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_tables_of_one_user_do_not_depend_on_each_other():
    graph = build(corners())
    evidence = Evidence(graph, prior=PRIOR, shrinkage=SHRINKAGE, n_neighbors=5, dim=4)
    edges, n = graph.target, graph.n_items
    users, held = edges.user_E.repeat_interleave(2), edges.item_E.repeat_interleave(2)
    held[::5] = -1
    lists = [torch.arange(n)[k % 3 :: 1 + k % 4] for k in range(len(users))]
    start = torch.tensor([0, *map(len, lists)]).cumsum(0)
    together = evidence.table(Rows.of(graph.edges), users, held, start, torch.cat(lists))
    for k, (begin, end) in enumerate(pairwise(start.tolist())):
        one = (users[k : k + 1], held[k : k + 1], torch.tensor([0, len(lists[k])]), lists[k])
        assert torch.equal(together[begin:end], evidence.table(Rows.of(graph.edges), *one)), k


def bounds(graph):
    start = graph.target.start_U.tolist()
    return start[:-1], start[1:]


def test_a_held_purchase_leaves_what_a_graph_without_it_has():
    # The columns of the pair itself are those of a graph that never had the purchase, but for the mean rate.
    graph = graph_of(VIEW, CART, BUY)
    erased = [list(row) for row in BUY]
    erased[0][3] = 0
    without = graph_of(VIEW, CART, erased)
    pair = (torch.tensor([0]), torch.tensor([-1]), torch.tensor([0, 1]), torch.tensor([3]))
    settings = {"prior": PRIOR, "shrinkage": SHRINKAGE, "n_neighbors": 4, "dim": 3}
    evidence, evidence_without = Evidence(graph, **settings), Evidence(without, **settings)
    evidence_without.mean = evidence.mean
    held = evidence.table(Rows.of(graph.edges), pair[0], torch.tensor([3]), *pair[2:])
    never = evidence_without.table(Rows.of(without.edges), *pair)
    torch.testing.assert_close(held, never)


def test_new_edges_of_a_user_count_and_statistics_stay():
    graph = graph_of(VIEW, CART, BUY)
    evidence = Evidence(graph, prior=PRIOR, shrinkage=SHRINKAGE, n_neighbors=4, dim=3)
    more = [list(row) for row in VIEW]
    more[3][1] = 1
    later = graph_of(more, CART, BUY)
    pair = (torch.tensor([3]), torch.tensor([-1]), torch.tensor([0, 1]), torch.tensor([1]))
    before, after = (evidence.table(Rows.of(g.edges), *pair)[0] for g in (graph, later))
    names = evidence.kinds
    assert (names[0], before[0], after[0]) == ("edge", 0, 1)
    assert after[4].item() == pytest.approx(math.log(2))


def test_users_of_whom_only_purchases_are_known():
    graph = graph_of(VIEW, CART, BUY)
    evidence = Evidence(graph, prior=PRIOR, shrinkage=SHRINKAGE, n_neighbors=4, dim=3)
    empty = edges_of(np.empty(0, np.int64), np.empty(0, np.int64), 4, 4)
    alone = dataclasses.replace(graph, edges=(empty, empty, graph.target))
    ask = (torch.arange(4), torch.full((4,), -1), torch.arange(5) * 4, torch.arange(4).repeat(4))
    expected = evidence.table(Rows.of(alone.edges), *ask)
    assert torch.equal(evidence.table(Rows.of_target(graph.target, 3), *ask), expected)


def test_pairs_in_any_order_and_blocks_hold_the_rows_of_the_table(monkeypatch):
    monkeypatch.setattr("macrorec.ops.evidence.PAIRS_AT_ONCE", 17)
    graph = build(corners())
    evidence = Evidence(graph, prior=PRIOR, shrinkage=SHRINKAGE, n_neighbors=3, dim=3)
    rows, n = Rows.of(graph.edges), graph.n_items
    users = torch.arange(graph.n_users)
    ask = (users, None, torch.arange(len(users) + 1) * n, torch.arange(n).repeat(len(users)))
    expected = evidence.table(rows, *ask)
    assert torch.equal(torch.cat([*evidence.of_blocks(rows, users, torch.arange(n))]), expected)
    some = torch.randint(graph.n_users * n, (60,), generator=torch.Generator().manual_seed(0))
    got = torch.full((60, expected.shape[1]), torch.nan)
    for place, x_CF in evidence.of_pairs(rows, some // n, some % n):
        assert len(place) <= 17
        got[place] = x_CF
    assert torch.equal(got, expected[some])


def test_moments_are_over_the_pairs_with_an_edge(monkeypatch):
    monkeypatch.setattr("macrorec.ops.evidence.PAIRS_AT_ONCE", 5)
    graph = graph_of(VIEW, CART, BUY)
    evidence = Evidence(graph, prior=PRIOR, shrinkage=SHRINKAGE, n_neighbors=4, dim=3)
    pairs = [(u, i) for u in range(4) for i in range(4) if VIEW[u][i] or CART[u][i] or BUY[u][i]]
    users, items = torch.tensor(pairs).T
    table = evidence.table(Rows.of(graph.edges), users, None, torch.arange(len(pairs) + 1), items.contiguous())
    deviation = table.double().std(0, unbiased=False)
    mean, scale = evidence.moments(graph)
    torch.testing.assert_close(mean, table.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scale, torch.where(deviation > 1e-4, deviation, 1).float(), rtol=1e-4, atol=1e-5)


def test_the_number_of_threads_does_not_matter():
    graph = build(corners())
    evidence = Evidence(graph, prior=PRIOR, shrinkage=SHRINKAGE, n_neighbors=3, dim=3)
    users = torch.arange(14).repeat(30)
    ask = (users, torch.full_like(users, -1), torch.arange(len(users) + 1) * 11, torch.arange(11).repeat(len(users)))
    answers, before = [], torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            answers.append(evidence.table(Rows.of(graph.edges), *ask))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*answers)


def test_the_estimate_of_memory_covers_the_arrays():
    graph = build(corners())
    evidence = Evidence(graph, prior=PRIOR, shrinkage=SHRINKAGE, n_neighbors=5, dim=4)
    arrays = [value for value in vars(evidence).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) <= Evidence.n_bytes(graph, 5, 4)
