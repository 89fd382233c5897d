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
    pairs_by_hand,
    unknown,
    written_out,
)

from macrorec.errors import ConfigError
from macrorec.models.fm import MODEL


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("seen", SEEN)
def test_linear_time_is_the_double_sum_over_pairs_of_features(seen, typed, shared):
    graph = graph_of(typed=typed)
    model, features = model_of("fm", graph, fields=seen, shared=shared), features_of(graph)
    expected = [
        float(model.bias) + linear_by_hand(model.weights, row) + pairs_by_hand(model.vectors, row)
        for row in written_out(features, seen)
    ]
    assert model.logits(features).tolist() == pytest.approx(expected, rel=1e-6)


def test_one_pair_by_hand():
    graph = graph_of()
    model = MODEL(MODEL.Config(fields="history", dim=2), graph)
    with torch.no_grad():
        model.bias.fill_(0.25)
        model.vectors.table("item")[3] = torch.tensor([1.0, 2.0])
        model.vectors.table("user_recent")[0] = torch.tensor([3.0, -1.0])
        model.vectors.table("user_recent")[1] = torch.tensor([1.0, 1.0])
    # user 0 met item 0 twice and item 1 once: x = 2/3 and 1/3; nobody met item 3
    expected = 0.25 + 2 / 3 * (1 * 3 - 2 * 1) + 1 / 3 * (1 + 2) + 2 / 3 * 1 / 3 * (3 - 1)
    assert model.logits(graph.macro.features(*torch.tensor([[0], [3]]).numpy())).tolist() == pytest.approx([expected])


@pytest.mark.parametrize("seen", ["ids", "history", "macro"])
def test_what_is_unknown_adds_nothing(seen):
    model = model_of("fm", fields=seen).float()
    assert model.logits(unknown()).tolist() == pytest.approx([float(model.bias)] * 2)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seen", SEEN)
def test_every_vector_is_learned_and_no_impression_meets_another(seen, shared, monkeypatch):
    graph = graph_of(typed=True)
    settings = {"fields": seen, "shared": shared}
    check_alone_as_among_others(model_of("fm", graph, **settings), graph)
    check_every_parameter_moves(model_of("fm", graph, **settings), graph)
    check_compiled_as_plain(model_of("fm", graph, **settings), graph, monkeypatch)


def test_a_feature_that_training_never_met_hardly_counts():
    graph = graph_of()
    model = MODEL.from_graph(MODEL.Config(), graph, torch.Generator().manual_seed(0))
    assert model.logits(features_of(graph).take(torch.tensor([0, 1, 2]))).abs().max() < 0.01


def test_shared_tables_are_fewer():
    own, shared = model_of("fm", fields="macro"), model_of("fm", fields="macro", shared=True)
    assert len(own.vectors.tables) == 10
    assert set(shared.vectors.tables) == {"user", "item", "user_group", "item_group", "user_column", "item_column"}
    assert len(shared.weights.tables) == 10


def test_a_wrong_size_is_refused():
    with pytest.raises(ConfigError, match="dim must be at least 1, not 0"):
        MODEL.Config(dim=0)
