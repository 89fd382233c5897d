import math

import pytest
import torch
from torch.autograd import gradcheck

from macrorec.ops import attend as module
from macrorec.ops.attend import attend, attention, masked_softmax, rows_or_zero

NUMBERS = torch.tensor([[2, 0, -1], [1, 1, 4], [-1, 5, -7], [3, -1, -1]])
"""Of a table of 5 rows: with padding, repeats, and a row of nothing but numbers outside."""


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attend_by_hand(table, numbers, query):
    rows = [table[n] for n in numbers if 0 <= n < len(table)]
    logits = [sum(a * b for a, b in zip(row, query, strict=True)) for row in rows] if query else None
    weights = [math.exp(x) / sum(map(math.exp, logits)) for x in logits] if query else [1.0] * len(rows)
    return [sum(w * row[d] for w, row in zip(weights, rows, strict=True)) for d in range(len(table[0]))]


@pytest.fixture(params=["compiled", "torch"])
def way(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(module, "compiled", lambda x: False)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("asks", [True, False])
def test_attend_is_the_weighted_sum_of_rows(asks):
    table, query = random(5, 3), random(4, 3, seed=1)
    expected = [
        attend_by_hand(table.tolist(), numbers, q if asks else None)
        for numbers, q in zip(NUMBERS.tolist(), query.tolist(), strict=True)
    ]
    found = attend(table, NUMBERS, query if asks else None)
    assert found.tolist() == [pytest.approx(row) for row in expected]
    assert found[2].tolist() == [0, 0, 0]


@pytest.mark.usefixtures("way")
def test_gradients():
    table, query = random(5, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    assert gradcheck(lambda t, q: attend(t, NUMBERS, q), (table, query))
    assert gradcheck(lambda t: attend(t, NUMBERS, None), (table,))
    assert gradcheck(lambda t: rows_or_zero(t, NUMBERS[:, 1]), (table,))


@pytest.mark.usefixtures("way")
def test_rows_outside_the_table_are_zero():
    table = random(5, 3)
    found = rows_or_zero(table, torch.tensor([4, -1, 5, 0, 4]))
    assert torch.equal(found, torch.stack([table[4], 0 * table[0], 0 * table[0], table[0], table[4]]))


def test_rows_may_be_expanded_or_strided():
    table, query = random(5, 3), random(4, 3, seed=1)
    one = NUMBERS[:1].expand(4, -1)
    torch.testing.assert_close(attend(table, one, query), attend(table, one.clone(), query))
    torch.testing.assert_close(attend(table, NUMBERS, query[:1].expand(4, -1))[0], attend(table, NUMBERS, query)[0])
    torch.testing.assert_close(rows_or_zero(table, torch.tensor([3]).expand(6)), table[[3] * 6])


def test_far_logits_stay_finite():
    table = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    query = torch.tensor([[1e4]], requires_grad=True)
    found = attend(table, torch.tensor([[0, 1]]), query)
    found.sum().backward()
    assert found.item() == 1e4
    assert table.grad.isfinite().all()
    assert query.grad.isfinite().all()


def test_attention_sums_to_one_where_there_are_rows():
    found = attention(random(5, 3), NUMBERS, random(4, 3, seed=1))
    assert found.sum(1).tolist() == pytest.approx([1, 1, 0, 1])
    assert not found[NUMBERS < 0].count_nonzero()
    assert attention(random(5, 3), NUMBERS, None).sum(1).tolist() == [2, 3, 0, 1]


def test_masked_softmax_of_nothing_is_zero():
    logits = torch.tensor([[0.0, math.log(3), 50.0], [1.0, 2.0, 3.0]])
    keep = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_softmax(logits, keep).tolist() == [pytest.approx([0.25, 0.75, 0]), [0, 0, 0]]
