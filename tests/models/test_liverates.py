"""Live rates against fractions by hand, before and after an event."""

import math

import numpy as np
import pytest
import torch

from macrorec.data.log import Behavior
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph, edges_of
from macrorec.graph.groups import Groups
from macrorec.graph.typed import TypedMacroGraph
from macrorec.models.liverates import MODEL


def graph() -> Graph:
    """Three users, two items: user 0 likes both, user 1 likes item 0 and dislikes item 1; user 2 has nothing."""
    groups = Groups(np.zeros(3, dtype=np.int32), 1), Groups(np.zeros(2, dtype=np.int32), 1)
    user, item, kind = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([0, 0, 0, 1])
    macro = TypedMacroGraph(*groups, user, item, type_E=kind, types=("positive", "negative"))
    edges = edges_of(user[:3], item[:3], 3, 2)
    return Graph(3, 2, (Behavior(name="buy"),), (edges,), macro=macro)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def by_hand(user: tuple[int, int], item: tuple[int, int], mean: float) -> float:
    """From (likes, dislikes) of user and item, with priors of 2 and 4."""
    rates = ((user[0] + 2 * mean) / (sum(user) + 2), (item[0] + 4 * mean) / (sum(item) + 4))
    return sum(map(logit, rates)) - logit(mean)


def test_odds_multiply_and_an_event_counts_at_once():
    where = graph()
    model = MODEL.from_graph(MODEL.Config(user_prior=2, item_prior=4), where, torch.Generator())
    model.solve(where, torch.Generator())
    mean = (3 + 1) / (4 + 2)
    assert model.mean.item() == pytest.approx(mean)
    users, items = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1])
    expected = [by_hand((2, 0), (2, 0), mean), by_hand((1, 1), (1, 1), mean), by_hand((0, 0), (1, 1), mean)]
    assert model.score(users, items).tolist() == pytest.approx(expected, abs=1e-5)
    where.macro.add(np.array([2]), np.array([1]), type_E=np.array([1]))
    assert model.score(users[2:], items[2:]).item() == pytest.approx(by_hand((0, 1), (1, 2), mean), abs=1e-5)


@pytest.mark.parametrize("prior", [0.0, -1.0, math.inf])
def test_a_prior_is_above_zero_and_finite(prior):
    with pytest.raises(ConfigError, match="user_prior must be finite and above 0"):
        MODEL.Config(user_prior=prior)
