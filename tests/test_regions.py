"""Regions of a user's items, by hand and by a slow count."""

import numpy as np
import polars as pl
import pytest
import torch

import macrorec
from macrorec.data.log import Behavior
from macrorec.data.vocab import Vocab
from macrorec.errors import UserError
from macrorec.graph.bipartite import Graph, edges_of
from macrorec.models.ease import EASE
from macrorec.regions import regions, table

NAMES = ("view", "cart", "buy")
ITEMS = Vocab(pl.Series(["a", "b", "c", "d"]))
EVENTS = {"view": [(0, 0), (0, 0), (0, 1), (0, 2), (1, 3)], "cart": [(0, 0), (1, 3)], "buy": [(0, 0), (0, 3)]}
"""User 0 viewed a twice, b and c once, put a into the cart, and bought a and d. User 1 viewed and put in d."""


def graph_of(events, n_users=2):
    pairs = (np.array(events[name], dtype=np.int64).reshape(-1, 2) for name in NAMES)
    edges = tuple(edges_of(own[:, 0], own[:, 1], n_users, len(ITEMS)) for own in pairs)
    auxiliary = (Behavior(name=name, role="auxiliary", mask=False) for name in NAMES[:-1])
    return Graph(n_users, len(ITEMS), (*auxiliary, Behavior(name="buy")), edges)


WEIGHTS = (torch.tensor([0.5, 0.125, 0.375, 1.0]), torch.tensor([1.0, 1.0]), torch.tensor([0.75, 0.25]))
"""Of views a b c d, carts a d, buys a d."""


def test_regions_of_a_user_by_hand():
    graph = graph_of(EVENTS)
    found = regions(graph, graph, WEIGHTS, 0)
    assert [region.behaviors for region in found] == [(0, 1, 2), (0,), (2,)]
    assert [list(region.marks) for region in found] == [[0], [2, 1], [3]], "c weighs more than b"
    assert [region.events() for region in found] == [[2, 1, 1], [2], [1]]
    assert [region.weights() for region in found] == [[0.5, 1.0, 0.75], [0.25], [0.25]]
    assert [region.weight() for region in found] == [0.75, 0.25, 0.25]
    assert table(found, graph, ITEMS, pl.Series(["Alien", None, "Casablanca", "Dune"])).to_dicts()[1] == {
        "behaviors": ["view"], "items": 2, "events": [2], "weight": 0.25, "weights": [0.25],
        "item_ids": ["c", "b"], "titles": ["Casablanca", None],
    }  # fmt: skip


def test_without_weights_the_item_of_most_events_is_the_first():
    graph = graph_of({**EVENTS, "view": [*EVENTS["view"], (0, 1)]})
    found = regions(graph, graph, None, 0)
    assert [list(region.marks) for region in found] == [[0], [1, 2], [3]]
    assert found[0].weights() == [None, None, None]
    assert found[0].weight() is None


def test_edges_and_users_younger_than_the_fit_have_no_weight():
    then = graph_of(EVENTS)
    now = graph_of({**EVENTS, "buy": [*EVENTS["buy"], (0, 2), (2, 1)]}, n_users=3)
    found = regions(now, then, WEIGHTS, 0)
    assert [region.behaviors for region in found] == [(0, 1, 2), (0, 2), (0,), (2,)]
    assert found[1].weights() == [0.375, None]
    assert found[1].weight() == 0.375
    (newcomer,) = regions(now, then, WEIGHTS, 2)
    assert (newcomer.events(), newcomer.weights()) == ([1], [None])


def test_nobody_s_items():
    graph = graph_of({**EVENTS, "view": EVENTS["view"][:4], "cart": [(0, 0)]})
    found = regions(graph, graph, WEIGHTS, 1)
    assert found == []
    assert len(table(found, graph, ITEMS, None)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_every_edge_stands_in_one_region(seed):
    random = np.random.default_rng(seed)
    events = {name: random.integers((4, 4), size=(12, 2)).tolist() for name in NAMES}
    graph = graph_of(events, n_users=4)
    weights = tuple(torch.from_numpy(random.random(len(edges))) for edges in graph.edges)
    for user in range(4):
        found = regions(graph, graph, weights, user)
        held = {r: {i for u, i in events[name] if u == user} for r, name in enumerate(NAMES)}
        expected = {i: tuple(r for r in held if i in held[r]) for i in set().union(*held.values())}
        assert {item: region.behaviors for region in found for item in region.marks} == expected
        for region in found:
            for r, total, mean in zip(region.behaviors, region.events(), region.weights(), strict=True):
                assert total == sum(u == user and i in region.marks for u, i in events[NAMES[r]])
                rows = [
                    weights[r][n].item()
                    for n, (u, i) in enumerate(zip(graph.edges[r].user_E, graph.edges[r].item_E, strict=True))
                    if u == user and i.item() in region.marks
                ]
                assert mean == pytest.approx(sum(rows) / len(rows))


# --- behind the API --------------------------------------------------------------------------------------------------

LOG = pl.DataFrame(
    [(f"u{u}", item, name) for name, pairs in EVENTS.items() for u, i in pairs for item in "abcd"[i]],
    schema=["user_id", "item_id", "behavior"],
    orient="row",
)


def weigh(self):
    """Each edge's place among those of its behaviour."""
    return tuple(torch.arange(n, dtype=torch.float32) for n in (2, 4, 2))


def test_a_recommender_tells_them_by_external_ids(monkeypatch, tmp_path):
    monkeypatch.setattr(EASE, "edge_weights", weigh)
    fitted = macrorec.fit(LOG, "ease", target="buy")
    assert [behavior.name for behavior in fitted.behaviors] == ["cart", "view", "buy"]
    found = fitted.regions("u0")
    assert found.select("behaviors", "items", "weight").rows() == [
        (["cart", "view", "buy"], 1, 0.0), (["view"], 2, 1.5), (["buy"], 1, 1.0)
    ]  # fmt: skip
    assert found["item_ids"].to_list() == [["a"], ["c", "b"], ["d"]]
    assert macrorec.load(fitted.save(tmp_path / "bundle")).regions("u0").equals(found)
    fitted.update({"user_id": ["u0", "zoe"], "item_id": ["b", "a"], "behavior": ["buy", "view"]})
    assert fitted.regions("u0")["weights"].to_list()[1] == [1.0, None]
    assert fitted.regions("zoe").select("behaviors", "weight").rows() == [(["view"], None)]


def test_of_a_model_without_weights_and_of_an_unknown_user():
    fitted = macrorec.fit(
        LOG.with_columns(item_id=pl.col("item_id").cast(pl.Categorical).to_physical()), "popular", target="buy"
    )
    found = fitted.regions("u0")
    assert found["weight"].null_count() == len(found) == 3
    assert found["item_ids"].dtype == pl.List(pl.Int64)
    with pytest.raises(UserError, match="unknown user id 'zoe'; there are 2 users"):
        fitted.regions("zoe")
