from dataclasses import replace

import numpy as np
from tests.train.toys import Toy, log_of, made

from macrorec.graph.bipartite import build
from macrorec.train.config import TrainConfig
from macrorec.train.resume import differences, identity_of

USER, ITEM = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])
LABEL = np.array([0.0, 1.0, 1.0, 0.0])


def test_identity_is_that_of_settings_and_data() -> None:
    log = log_of(USER, ITEM, 3, 3, LABEL)
    graph, config = build(log), TrainConfig()
    model = made(Toy, graph)
    first = identity_of(model, graph, config, 1, log)
    assert first == identity_of(made(Toy, graph, seed=9), build(log.take(np.array([3, 1, 0, 2]))), config, 1, log)
    others = [
        identity_of(model, build(log_of(USER, 2 - ITEM, 3, 3)), config, 1, log),
        identity_of(model, build(log_of([0, 1, 1, 2], ITEM, 3, 3)), config, 1, log),
        identity_of(model, build(log_of(USER, ITEM, 3, 4)), config, 1, log),
        identity_of(model, graph, config, 1, replace(log, label=1 - LABEL.astype(np.float32))),
        identity_of(model, graph, config, 1, None),
    ]
    assert all(list(differences(first, other)) == ["other train data"] for other in others)
    assert list(differences(first, identity_of(model, graph, replace(config, lr=0.5), 2, log))) == [
        "seed was 1, is 2",
        "train.lr was 0.001, is 0.5",
    ]


def test_differences_of_nested_values() -> None:
    then, now = {"a": {"b": 1, "c": [1]}, "d": None}, {"a": {"b": 1, "c": [2]}, "e": 0}
    assert list(differences(then, now)) == ["a.c was [1], is [2]", "e was None, is 0"]
    assert list(differences(then, then)) == []
