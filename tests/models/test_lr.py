import pytest
import torch
from tests.models.rankers import (
    SEEN,
    check_alone_as_among_others,
    check_compiled_as_plain,
    check_every_parameter_moves,
    features_of,
    graph_of,
    linear_by_hand,
    model_of,
    unknown,
    written_out,
)

from macrorec.models.lr import MODEL


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("seen", SEEN)
def test_the_logit_is_a_sum_of_weights(seen, typed):
    graph = graph_of(typed=typed)
    model, features = model_of("lr", graph, fields=seen), features_of(graph)
    expected = [float(model.bias) + linear_by_hand(model.weights, row) for row in written_out(features, seen)]
    assert model.logits(features).tolist() == pytest.approx(expected, rel=1e-6)


def test_two_users_by_hand():
    graph = graph_of()
    model = MODEL(MODEL.Config(fields="history"), graph)
    with torch.no_grad():
        model.bias.fill_(0.5)
        for name, value in {
            "user": 1.0,
            "item": 2.0,
            "user_group": 4.0,
            "item_group": 8.0,
            "user_recent": 16.0,
        }.items():
            model.weights.table(name).fill_(value)
        model.weights.table("user_recent")[1] = 32.0
    # user 0 met items 0, 0 and 1, user 3 nothing, and has no group; the weights of the items' recent users are 0
    user_0 = 0.5 + 1 + 2 + 4 + 8 + (2 * 16 + 32) / 3
    user_3 = 0.5 + 1 + 2 + 8
    logits = model.logits(graph.macro.features(*torch.tensor([[0, 3], [1, 3]]).numpy()))
    assert logits.tolist() == pytest.approx([user_0, user_3])


@pytest.mark.parametrize("seen", SEEN)
def test_what_is_unknown_adds_nothing(seen):
    model = model_of("lr", fields=seen).float()
    expected = float(model.bias)
    if seen == "volumes":
        expected += float(model.weights.table("user_volume")[0] + model.weights.table("item_volume")[0])
    assert model.logits(unknown()).tolist() == pytest.approx([expected] * 2)


@pytest.mark.parametrize("seen", SEEN)
def test_every_weight_is_learned_and_no_impression_meets_another(seen, monkeypatch):
    graph = graph_of(typed=True)
    check_alone_as_among_others(model_of("lr", graph, fields=seen), graph)
    check_every_parameter_moves(model_of("lr", graph, fields=seen), graph)
    check_compiled_as_plain(model_of("lr", graph, fields=seen), graph, monkeypatch)
