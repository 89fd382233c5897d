"""What must hold for every model with any number of behaviours, however they are called and whoever shows them."""

import numpy as np
import pytest
import torch
from tests.contract.boards import fitted, scores

from macrorec.api import Model
from macrorec.data.log import Behavior, Interactions
from macrorec.data.vocab import Vocab
from macrorec.graph.bipartite import Graph, build
from macrorec.train.config import TrainConfig
from macrorec.train.history import History

BRIEF = TrainConfig(epochs=2, batch_size=64, lr=0.02)
N_USERS, N_ITEMS = 12, 9
ODD = ("Wunschzettel ♥", "añadir/al carrito", "buy", " ", "target")
"""Names that say something else, nothing, or what another behaviour is."""
PLAIN = ("view", "cart", "share", "like", "buy")


def funnel(names: tuple[str, ...]) -> Interactions:
    """A log with as many behaviours as names: many, fewer and fewer of one pattern; with five, corners among them.

    User 11 has but target events, user 10 but auxiliary ones, user 9 nothing, item 8 nothing. Of five behaviours the
    second has no event, the third a single user, the fourth an item of its own.
    """
    random = np.random.default_rng(5)
    pairs = np.argwhere(random.random((9, 8)) < 0.6)
    n = len(names)
    events = [pairs[random.random(len(pairs)) < 0.9 - 0.1 * r] for r in range(n)]
    if n == 5:
        events[1], events[2], events[3] = np.empty((0, 2), int), np.array([[4, 1], [4, 6]]), np.array([[2, 7], [3, 7]])
    for r in range(n - 1):
        events[r] = np.concatenate([events[r], [[10, 3]]]) if r in (0, n - 2) else events[r]
    events[-1] = np.concatenate([events[-1], [[11, 2], [11, 5]]])
    rows = np.concatenate(events).astype(np.int32)
    behavior = np.repeat(np.arange(n), [len(own) for own in events]).astype(np.int8)
    auxiliary = (Behavior(name=name, role="auxiliary", mask=False) for name in names[:-1])
    schema = (*auxiliary, Behavior(name=names[-1]))
    return Interactions(Vocab(np.arange(N_USERS)), Vocab(np.arange(N_ITEMS)), schema, *rows.T, behavior)


def learned(kind: type[Model], names: tuple[str, ...]) -> tuple[Model, Graph, History]:
    """The model after two epochs on ``funnel(names)``."""
    return fitted(kind, funnel(names), config=BRIEF)


def test_the_log_has_the_corners_that_it_promises():
    graph = build(funnel(ODD))
    users = [set(edges.user_E.tolist()) for edges in graph.edges]
    assert users[1] == set() and users[2] == {4} and 8 not in torch.cat([e.item_E for e in graph.edges])
    assert all(11 not in own for own in users[:-1]) and 11 in users[-1]
    assert 10 in users[0] and 10 not in users[-1]
    assert not any(9 in own for own in users)
    assert [len(build(funnel(ODD[:n])).edges) for n in (1, 2)] == [1, 2]


@pytest.mark.parametrize("n", [1, 2])
def test_one_behaviour_or_two(kind, n):
    model, graph, history = learned(kind, ODD[-n:])
    sound(model, graph, history)


def test_five_behaviours_whatever_they_are_called(kind):
    model, graph, history = learned(kind, ODD)
    sound(model, graph, history)
    other, _, history_other = learned(kind, PLAIN)
    assert history.without_times() == history_other.without_times()
    assert torch.equal(scores(model), scores(other)), "a name decides nothing"


def sound(model: Model, graph: Graph, history: History) -> None:
    """Losses, state and scores are finite; so are edge weights, which belong to the edges."""
    assert all(np.isfinite(loss) for record in history.epochs for loss in record["losses"].values())
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    value = scores(model)
    assert value.shape == (N_USERS, N_ITEMS)
    assert value.isfinite().all()
    with torch.no_grad():
        weights = model.edge_weights()
    if weights is not None:
        assert [own.shape for own in weights] == [edges.user_E.shape for edges in graph.edges]
        assert all(own.isfinite().all() for own in weights)
