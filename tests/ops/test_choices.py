import math

import numpy as np
import pytest
import torch
from tests.contract.boards import log_of

from macrorec.graph.bipartite import build
from macrorec.ops.choices import Near, choices, log_sum_exp, open_pairs, pointers, rows_of

SHARE = [0.4, 0.3, 0.2, 0.1]
NEAR = [[1, 2], [0, 0], [0, 2], [3, 3]]
ALIKE = [[0.5, 0.25], [0.5, 0.0], [0.25, 0.0], [0.0, 0.0]]  # filled up with zeros


def drawn(row, items, n_users, n, c=0.5):
    near = Near(torch.tensor(SHARE), torch.tensor(NEAR), torch.tensor(ALIKE), c)
    return near.draw(torch.tensor(row), torch.tensor(items), n_users, n, torch.Generator().manual_seed(0))


def test_rows_and_pointers_are_inverse():
    start = torch.tensor([0, 2, 2, 5])
    assert rows_of(start).tolist() == [0, 0, 2, 2, 2]
    assert pointers(rows_of(start), 3).tolist() == start.tolist()
    assert pointers(torch.zeros(0, dtype=torch.int64), 0).tolist() == [0]


def test_log_sum_exp_of_rows_neither_overflows_nor_mixes_them():
    got = log_sum_exp(torch.tensor([1000.0, 1000.0, -3.0, 2.0]), torch.tensor([1, 1, 0, 0]), 2)
    assert got.tolist() == pytest.approx([math.log(math.exp(-3) + math.exp(2)), 1000 + math.log(2)], rel=1e-6)


def test_open_pairs_were_met_by_any_behaviour_and_not_bought():
    view, cart, buy = [[1, 1, 0], [0, 0, 0]], [[0, 1, 1], [0, 0, 0]], [[1, 0, 0], [0, 1, 0]]
    graph = build(log_of(2, 3, *(np.argwhere(np.array(d)) for d in (view, cart, buy))))
    start, item = open_pairs(graph)
    assert (start.tolist(), item.tolist()) == ([0, 2, 2], [1, 2])


@pytest.mark.parametrize("c", [0.0, 0.5, 0.8])
def test_items_are_drawn_as_often_as_they_are_said_to_be(c):
    # User 0 bought 0 and 1: similar are 1 (.5) and 2 (.25) by the one, and 0 (.5) by the other. User 1 bought 3, alone.
    expected = [[(1 - c) * s + c * a for s, a in zip(SHARE, (0.4, 0.4, 0.2, 0), strict=True)], SHARE]
    for users in ((0, 1), (1, 0), (0,), (1,)):
        bought = {0: [0, 1], 1: [3]}
        row = [b for b, u in enumerate(users) for _ in bought[u]]
        pairs, times = drawn(row, [i for u in users for i in bought[u]], len(users), 20000, c)
        for b, u in enumerate(users):
            assert (pairs // 4 == b).sum() == 20000
            for i, q in enumerate(expected[u]):
                here = pairs == 4 * b + i
                assert here.sum().item() / 20000 == pytest.approx(q, abs=0.015), (users, u, i)
                assert times[here].tolist() == pytest.approx([20000 * q] * int(here.sum()), rel=1e-5)


def test_similar_items_of_many_users_are_drawn_by_their_own_purchases():
    pairs, times = drawn([0, 1, 2, 3], [2, 0, 3, 1], 4, 4000)
    for b, alike in enumerate(([1, 0, 0, 0], [0, 2 / 3, 1 / 3, 0], None, [1, 0, 0, 0])):
        for i in range(4):
            q = SHARE[i] if alike is None else (SHARE[i] + alike[i]) / 2
            assert (pairs == 4 * b + i).sum().item() / 4000 == pytest.approx(q, abs=0.03), (b, i)
            assert times[pairs == 4 * b + i].tolist()[:1] == pytest.approx([4000 * q], rel=1e-5)


def test_the_choices_of_a_purchase_by_hand():
    # User 0 bought 0 and 5, and has 2 and 3 of its own; user 1 bought 1, and has none. Drawn is what follows the slash.
    row, items = torch.tensor([0, 0, 1]), torch.tensor([0, 5, 1])
    own = (torch.tensor([0, 2, 2]), torch.tensor([2, 3]))
    pairs, times = torch.tensor([4, 2, 5, 4, 6 + 1, 6 + 5]), torch.tensor([0.5, 9, 9, 0.5, 9, 4])
    got = choices(row, items, own, pairs, times, 6)
    assert got.start_P.tolist() == [0, 5, 10, 12]
    assert got.item_C.tolist() == [0, 2, 3, 4, 4, 5, 2, 3, 4, 4, 1, 5]
    expected = [1, 1, 1, 2, 2, 1, 1, 1, 2, 2, 1, 0.25]
    assert got.weight_C.exp().tolist() == pytest.approx(expected, rel=1e-6)


def test_a_sum_over_choices_is_exact_on_average():
    # Of 1 / t per draw: the sum of any value over the items not known.
    value = torch.tensor([3.0, 1.0, 4.0, 1.5])
    row, items = torch.tensor([0, 0]), torch.tensor([0, 1])
    own = (torch.tensor([0, 0]), torch.zeros(0, dtype=torch.int64))
    got = choices(row, items, own, *drawn([0, 0], [0, 1], 1, 50000), 4)
    total = torch.zeros(2).index_add(0, rows_of(got.start_P), value[got.item_C] * got.weight_C.exp())
    assert total.tolist() == pytest.approx([3 + 4 + 1.5, 1 + 4 + 1.5], rel=0.03)
