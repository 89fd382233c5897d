import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from tests.models.rankers import SEEN, features_of, graph_of, written_out
from torch.autograd import gradcheck

from macrorec.ops import fields
from macrorec.ops.fields import Field, FieldTables, names, pool, pool_squares, read, row_values, shares, sizes, volume


def numbers(*shape, low=-2, high=8, seed=0):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("counted", [shares, fields._shares])
def test_a_share_is_how_often_over_how_many(counted):
    number_BR, size = numbers(40, 6), 5
    found = counted(number_BR, size)
    for row, share in zip(number_BR.tolist(), found.tolist(), strict=True):
        inside = [n for n in row if 0 <= n < size]
        by_number = {}
        for r, n in enumerate(row):
            if share[r]:
                assert n not in by_number, "a number has one share"
                assert row.index(n) == r, "at its first place"
                by_number[n] = share[r]
        assert by_number == pytest.approx({n: times / len(inside) for n, times in Counter(inside).items()})


def test_shares_of_rows_that_are_not_laid_out_in_order():
    one = torch.tensor([[3, 3, -1, 0]])
    assert shares(one.expand(3, -1), 5).tolist() == shares(one, 5).tolist() * 3
    assert shares(numbers(6, 40).T, 5).equal(shares(numbers(6, 40).T.contiguous(), 5))
    assert shares(torch.zeros(0, 4, dtype=torch.int64), 5).shape == (0, 4)
    assert shares(torch.zeros(2, 0, dtype=torch.int64), 5).shape == (2, 0)


def kinds(size: int) -> dict[str, Field]:
    number_BR = numbers(7, 5)
    return {
        "one": Field(numbers(7), None),
        "bag": Field(number_BR, shares(number_BR, size)),
        "row": Field(None, random(7, size).abs()),
    }


def written(field: Field, size: int) -> list[list[float]]:
    """x of every feature, (B, N)."""
    if field.number is None:
        return field.value.tolist()
    rows = []
    for b, row in enumerate(field.number.reshape(len(field.number), -1).tolist()):
        x = [0.0] * size
        for r, n in enumerate(row):
            if 0 <= n < size:
                x[n] += 1.0 if field.value is None else float(field.value[b, r])
        rows.append(x)
    return rows


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("kind", ["one", "bag", "row"])
def test_pooling_is_a_sum_over_all_features(kind, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(fields, "compiled", lambda _: False)
    table = random(6, 3)
    field = kinds(6)[kind]
    x = torch.tensor(written(field, 6), dtype=torch.float64)
    torch.testing.assert_close(pool(table, field), x @ table, rtol=1e-6, atol=1e-8)
    total, squares = pool_squares(table, field)
    torch.testing.assert_close(total, x @ table, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(squares, (x[:, :, None] * table).square().sum(1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["one", "bag", "row"])
def test_gradients_of_pooling(kind):
    field, table = kinds(6)[kind], random(6, 3).requires_grad_()
    assert gradcheck(lambda t: pool(t, field), table)
    assert gradcheck(lambda t: pool_squares(t, field), table)
    assert gradcheck(lambda t: pool_squares(t, field)[1], table)


def test_rows_are_shares_of_logarithms():
    found = row_values(torch.tensor([[0.0, math.e - 1, math.e**3 - 1], [0.0, 0.0, 0.0], [-1.0, 5.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[0, 0.25, 0.75], [0, 0, 0], [0, 1, 0]]))


def test_volumes_count_in_powers_of_two_per_type():
    found = volume(torch.tensor([[0.0, 1.0], [2.0, 3.0], [1022.0, 1023.0], [1e9, -1.0]]))
    assert found.number.tolist() == [[0, 24 + 1], [1, 24 + 2], [9, 24 + 10], [23, 24]]
    assert found.value.tolist() == [[1, 1]] * 4


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("seen", SEEN)
def test_fields_of_impressions(seen, typed):
    graph = graph_of(typed=typed)
    size, features = sizes(4, 5, graph.macro), features_of(graph)
    found = read(features, seen, size)
    assert tuple(found) == names(seen)
    x = {name: written(field, size[fields.OF[name]]) for name, field in found.items()}
    for b, row in enumerate(written_out(features, seen, typed=typed)):
        for name, expected in row.items():
            assert {j: value for j, value in enumerate(x[name][b]) if value} == pytest.approx(expected), (name, b)


def test_each_kind_of_fields_sees_what_the_one_before_does():
    assert [len(names(seen)) for seen in SEEN] == [4, 6, 10, 12]
    assert all(names(more)[: len(names(less))] == names(less) for less, more in pairwise(SEEN))


def test_sizes_of_typed_edges():
    assert sizes(4, 5, graph_of().macro) == {
        "user": 4, "item": 5, "user_group": 2, "item_group": 3, "user_column": 2, "item_column": 3,
        "user_volume": 24, "item_volume": 24,
    }  # fmt: skip
    typed = sizes(4, 5, graph_of(typed=True).macro)
    assert (typed["user_column"], typed["item_column"], typed["user_volume"]) == (4, 6, 48)
    assert (typed["user_group"], typed["item_group"]) == (2, 3)


@pytest.mark.parametrize("seen", SEEN)
def test_features_are_counted(seen):
    graph = graph_of(typed=True)
    held = sum(t.numel() for t in FieldTables(seen, sizes(4, 5, graph.macro), 1).parameters())
    assert fields.n_features(seen, graph) == held
    assert fields.n_features(seen, replace(graph, macro=None)) >= held


def test_a_shared_table_learns_from_all_its_fields():
    graph = graph_of()
    tables = FieldTables("history", sizes(4, 5, graph.macro), 2, shared=True).double()
    read_fields = read(features_of(graph).take(torch.tensor([0])), "history", sizes(4, 5, graph.macro))
    torch.cat(tables.sums(read_fields)).sum().backward()
    # item 1 with user 0, who met items 0, 0, 1; item 1 was met by users 0 and 1
    np.testing.assert_allclose(tables.table("item").grad[:, 0], [2 / 3, 1 + 1 / 3, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(tables.table("user_recent").grad, tables.table("item").grad)
    np.testing.assert_allclose(tables.table("user").grad[:, 0], [1 + 1 / 2, 1 / 2, 0, 0], rtol=1e-6)


def test_initial_vectors_are_small_and_come_from_the_generator():
    tables = FieldTables("ids", {"user": 3000, "item": 10, "user_group": 2, "item_group": 2}, 4)
    tables.initialise(torch.Generator().manual_seed(3), 0.01)
    first = tables.table("user").detach().clone()
    assert float(first.std()) == pytest.approx(0.01, rel=0.03)
    tables.initialise(torch.Generator().manual_seed(3), 0.01)
    assert torch.equal(tables.table("user"), first)
