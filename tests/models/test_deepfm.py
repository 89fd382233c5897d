import pytest
import torch
from tests.models.rankers import (
    SEEN,
    batch_of,
    check_alone_as_among_others,
    check_compiled_as_plain,
    check_every_parameter_moves,
    features_of,
    graph_of,
    linear_by_hand,
    model_of,
    pairs_by_hand,
    relu_mlp_by_hand,
    unknown,
    vectors_by_hand,
    written_out,
)

from macrorec.errors import ConfigError
from macrorec.models.deepfm import MODEL


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seen", SEEN)
def test_the_logit_is_the_sum_of_a_factorisation_machine_and_a_network(seen, shared):
    graph = graph_of(typed=True)
    model, features = model_of("deepfm", graph, fields=seen, shared=shared), features_of(graph)
    expected = [
        linear_by_hand(model.weights, row)
        + pairs_by_hand(model.vectors, row)
        + relu_mlp_by_hand(model.mlp, [x for vector in vectors_by_hand(model.vectors, row) for x in vector])
        for row in written_out(features, seen)
    ]
    assert model.logits(features).tolist() == pytest.approx(expected, rel=1e-6)


def test_of_the_unknown_the_network_alone_speaks():
    model = model_of("deepfm").float()
    assert model.logits(unknown()).tolist() == pytest.approx([relu_mlp_by_hand(model.mlp, [0.0] * 18)] * 2)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seen", SEEN)
def test_every_parameter_is_learned_and_no_impression_meets_another(seen, shared, monkeypatch):
    graph = graph_of(typed=True)
    settings = {"fields": seen, "shared": shared, "hidden": (16, 8)}
    check_alone_as_among_others(model_of("deepfm", graph, **settings), graph)
    check_every_parameter_moves(model_of("deepfm", graph, **settings), graph)
    check_compiled_as_plain(model_of("deepfm", graph, **settings), graph, monkeypatch)


def test_dropout_draws_from_the_batch_and_is_off_in_evaluation():
    graph = graph_of()
    model, kept = model_of("deepfm", graph, dropout=0.5), model_of("deepfm", graph)
    features = features_of(graph)
    assert torch.equal(model.logits(features), kept.logits(features))
    model.train()
    first, again = (model.losses(batch_of(features))["bce"] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, kept.losses(batch_of(features))["bce"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dim": 0}, r"dim and hidden must be at least 1, not 0 and \[200, 80\]"),
        ({"hidden": (5, 0)}, r"dim and hidden must be at least 1, not 10 and \[5, 0\]"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, not 1.0"),
    ],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        MODEL.Config(**settings)
