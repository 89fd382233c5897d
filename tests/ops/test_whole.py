"""All pairs that are no edge, by a Gram matrix: against plain loops over the pairs."""

import pytest
import torch

from macrorec.graph.bipartite import edges_of
from macrorec.ops.whole import OtherPairs

ROWS = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]])
SETTINGS = [
    {"by_user": 1.0, "by_item": 0.0, "apart": True},
    {"by_user": 1.0, "by_item": 0.0, "apart": False},
    {"by_user": 0.0, "by_item": 0.3, "apart": True},
    {"by_user": 0.4, "by_item": 1.0, "apart": True},
    {"by_user": 0.4, "by_item": 0.5, "apart": False},
]


def pairs_of(**settings):
    return OtherPairs(edges_of(*ROWS.numpy().nonzero(), *ROWS.shape), 4, 3.0, **settings).double()


def weights_by_loops(by_user, by_item, apart):
    """w_u a_i of every pair that counts as another than an edge."""
    n_users, n_items = ROWS.shape
    a = [(1 + sum(int(ROWS[u, i]) for u in range(n_users))) ** by_item for i in range(n_items)]
    held = [sum(row) for row in ROWS.tolist()]
    there = [[0.0 if apart and ROWS[u, i] else a[i] for i in range(n_items)] for u in range(n_users)]
    mean = sum(held) / sum(sum(there[u]) for u in range(n_users) if held[u])
    return [
        [3.0 * mean * (held[u] / sum(row) / mean) ** by_user * x if x else 0.0 for x in row]
        for u, row in enumerate(there)
    ]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_squares_and_gradients_are_those_of_all_pairs_one_by_one(settings):
    users = torch.tensor([3, 0, 2, 1])  # in any order; one has every item, one has none
    draw = torch.Generator().manual_seed(0)
    p_BZ = torch.randn(4, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    q_IZ = torch.randn(4, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    rows = ROWS[users]
    start_B = torch.cat([torch.zeros(1, dtype=torch.int64), rows.sum(1).cumsum(0)])
    got = pairs_of(**settings).squares(p_BZ, q_IZ, start_B, rows.nonzero()[:, 1])

    weights, expected = weights_by_loops(**settings), torch.zeros((), dtype=torch.float64)
    for b, user in enumerate(users.tolist()):
        for item in range(4):
            y = p_BZ[b] @ q_IZ[item]
            expected = expected + int(ROWS[user, item]) * (1 - y) ** 2 + weights[user][item] * y**2
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-12)  # weights are single
    for one, other in zip(*(torch.autograd.grad(loss, [p_BZ, q_IZ]) for loss in (got, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_what_a_user_weighs():
    """With ``by_user`` of 1, N for each edge of a user who lacks an item; with 0, each pair the same."""
    edges = edges_of(*ROWS.numpy().nonzero(), *ROWS.shape)
    for by_item in (0.0, 0.5):
        pairs = pairs_of(by_user=1.0, by_item=by_item, apart=True)
        weight_U, row_E = pairs.weights(edges.start_U, edges.item_E)
        lacking_U = (1 - ROWS).double() @ pairs.weight_I
        assert (weight_U * lacking_U).tolist() == pytest.approx([6, 6, 0, 0, 3])
        assert row_E.tolist() == edges.user_E.tolist()
    weight_U, _ = pairs_of(by_user=0.0, by_item=0.0, apart=True).weights(edges.start_U, edges.item_E)
    assert weight_U.tolist() == pytest.approx([3 * 9 / 7, 3 * 9 / 7, 3 * 9 / 7, 0, 3 * 9 / 7])


def test_a_graph_without_edges_has_no_other_pairs_either():
    none = torch.zeros(0, dtype=torch.int64).numpy()
    pairs = OtherPairs(edges_of(none, none, 2, 3), 3, 1.0, by_user=0.5, by_item=0.0, apart=True)
    weight_B, row_E = pairs.weights(torch.tensor([0, 2]), torch.tensor([0, 1]))
    assert weight_B.tolist() == [0.0] and row_E.tolist() == [0, 0]
