import math

import pytest
import torch
from tests.models.slopes import assert_gradients

from macrorec.api import PairBatch
from macrorec.models.bpr import MODEL

ROWS = [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def model_of(graph, **settings):
    model = MODEL.from_graph(MODEL.Config(dim=2, **settings), graph, torch.Generator().manual_seed(0))
    return model.double()


def losses_by_loops(users, items, l2, triples):
    """Mean of -ln sigmoid(x_ui - x_uj), and l2 / (2 B) of the squared rows, over (u, i, negatives) triples."""
    bpr = squares = 0.0
    for u, i, negatives in triples:
        squares += sum(x * x for x in users[u] + items[i])
        for j in negatives:
            difference = sum(a * (b - c) for a, b, c in zip(users[u], items[i], items[j], strict=True))
            bpr -= math.log(1 / (1 + math.exp(-difference))) / len(triples) / len(negatives)
            squares += sum(x * x for x in items[j])
    return {"bpr": bpr, "l2": l2 * squares / 2 / len(triples)}


def test_loss_by_hand(drawn):
    # x_ui = 1 * 3 + 2 * 1 = 5, x_uj = 1 * 0 + 2 * 2 = 4: -ln sigmoid(1); squares 5 + 10 + 4 = 19, halved, times l2.
    model = model_of(drawn(ROWS), l2=0.1)
    with torch.no_grad():
        model.users_UD[0] = torch.tensor([1.0, 2.0])
        model.items_ID[0] = torch.tensor([3.0, 1.0])
        model.items_ID[2] = torch.tensor([0.0, 2.0])
    batch = PairBatch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[2]]), torch.Generator())
    terms = {name: term.item() for name, term in model.losses(batch).items()}
    assert terms == pytest.approx({"bpr": math.log(1 + math.exp(-1)), "l2": 0.95})


@pytest.mark.parametrize("negatives", [[[2], [0], [1], [0]], [[2, 1], [0, 2], [1, 0], [0, 0]]])
def test_losses_and_gradients_equal_the_literal_loss(drawn, negatives):
    model = model_of(drawn(ROWS), l2=0.3, n_negatives=len(negatives[0]))
    triples = list(zip([0, 1, 2, 0], [0, 1, 2, 1], negatives, strict=True))
    batch = PairBatch(
        torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 2, 1]), torch.tensor(negatives), torch.Generator()
    )
    terms = model.losses(batch)

    def literal():
        return losses_by_loops(model.users_UD.tolist(), model.items_ID.tolist(), 0.3, triples)

    assert {name: term.item() for name, term in terms.items()} == pytest.approx(literal(), rel=1e-12)
    assert_gradients(model, terms, literal, abs=1e-8)


def test_score_is_the_inner_product(drawn):
    model = model_of(drawn(ROWS))
    expected = [
        [sum(a * b for a, b in zip(u, i, strict=True)) for i in model.items_ID.tolist()]
        for u in model.users_UD.tolist()
    ]
    assert model.score_all(torch.tensor([2, 0])).tolist() == [pytest.approx(expected[2]), pytest.approx(expected[0])]
    assert model.score(torch.tensor([1]), torch.tensor([2])).item() == pytest.approx(expected[1][2])


def test_tables_start_normal(drawn):
    model = MODEL.from_graph(MODEL.Config(dim=4096), drawn(ROWS), torch.Generator().manual_seed(0))
    for table in (model.users_UD, model.items_ID):
        assert table.std().item() == pytest.approx(0.1, rel=0.05)
        assert table.mean().item() == pytest.approx(0, abs=0.005)
