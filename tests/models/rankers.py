"""Small impressions for rankers of fields, and their features x_j written out one by one."""

import math
from collections import Counter
from dataclasses import fields

import numpy as np
import torch

from macrorec import models
from macrorec.api import ImpressionBatch
from macrorec.data.log import Behavior
from macrorec.graph.bipartite import Graph, edges_of
from macrorec.graph.columns import Features
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph
from macrorec.graph.typed import TypedMacroGraph

SEEN = ("ids", "history", "macro", "volumes")
N_USERS, N_ITEMS = 4, 5
USERS, ITEMS = Groups(np.array([0, 0, 1, -1], np.int32), 2), Groups(np.array([0, 1, 0, 2, -1], np.int32), 3)
EVENTS = ([0, 0, 1, 1, 2, 0, 2], [0, 1, 1, 2, 2, 0, 4])
"""User 0 met item 0 twice; item 4 and user 3 have no group; nobody met item 3, and user 3 met nothing."""
TYPES = [0, 1, 0, 0, 1, 0, 0]
PAIRS = ([0, 1, 2, 3, 0, -1, 9, 3], [1, 2, 4, 3, 0, 2, 9, -1])


def graph_of(*, typed: bool = False) -> Graph:
    events = [np.array(column) for column in EVENTS]
    if typed:
        macro = TypedMacroGraph(USERS, ITEMS, *events, type_E=np.array(TYPES), types=("liked", "not"), recents=3)
    else:
        macro = MacroGraph(USERS, ITEMS, *events, recents=3)
    return Graph(N_USERS, N_ITEMS, (Behavior(name="buy"),), (edges_of(*events, N_USERS, N_ITEMS),), macro)


def features_of(graph: Graph) -> Features:
    """Of ``PAIRS``, in double precision."""
    found = graph.macro.features(*(np.array(column) for column in PAIRS))
    columns = {f.name: getattr(found, f.name) for f in fields(found)}
    return Features(**{name: c.double() if c.is_floating_point() else c for name, c in columns.items()})


def unknown(n: int = 2) -> Features:
    """Impressions of a user and an item of whom nothing is known."""
    return graph_of().macro.features(np.full(n, -1), np.full(n, -1))


def model_of(name: str, graph: Graph | None = None, **settings):
    """A model of double precision with parameters of all signs, in evaluation mode, without gradients."""
    kind = models.load(name)
    generator = torch.Generator().manual_seed(0)
    sizes = {} if name == "lr" else {"dim": 3}
    if name in ("widedeep", "deepfm", "din"):
        sizes["hidden"] = (5, 4)
    model = kind.from_graph(kind.Config(**{**sizes, **settings}), graph or graph_of(), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.7)
        for buffer in model.buffers():
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.2)
    return model.double().eval().requires_grad_(False)


def batch_of(features: Features) -> ImpressionBatch:
    labels_B = (torch.arange(len(features)) % 2).double()
    return ImpressionBatch(features, labels_B, torch.Generator().manual_seed(0))


def written_out(features: Features, seen: str, *, typed: bool = False) -> list[dict[str, dict[int, float]]]:
    """The features that are not zero, per impression: {field: {feature: x_j}}."""
    n_fields = {"ids": 4, "history": 6, "macro": 10, "volumes": 12}[seen]
    rows = []
    for b in range(len(features)):
        row = {}
        for name, size in (("user", N_USERS), ("item", N_ITEMS), ("user_group", 2), ("item_group", 3)):
            number = int(getattr(features, f"{name}_B")[b])
            row[name] = {number: 1.0} if 0 <= number < size else {}
        for name, size in (("user_recent", N_ITEMS), ("item_recent", N_USERS)):
            numbers = [n for n in getattr(features, f"{name}_BR")[b].tolist() if 0 <= n < size]
            row[name] = {n: times / len(numbers) for n, times in Counter(numbers).items()}
        for name in ("user_hop1_BQ", "user_hop2_BP", "item_hop1_BP", "item_hop2_BQ"):
            logs = [math.log(count + 1) for count in getattr(features, name)[b].tolist()]
            row[name[:-3]] = {k: log / sum(logs) for k, log in enumerate(logs) if log}
        for name in ("user_volume", "item_volume"):
            counts = getattr(features, f"{name}_BC")[b].tolist()
            row[name] = {24 * c + math.floor(math.log2(n + 1)): 1.0 for c, n in enumerate(counts)}
        rows.append(dict(list(row.items())[:n_fields]))
    return rows


def linear_by_hand(tables, row) -> float:
    """sum_j w_j x_j."""
    return sum(float(tables.table(name)[j, 0]) * x for name, field in row.items() for j, x in field.items())


def pairs_by_hand(tables, row) -> float:
    """sum_{j<k} <v_j, v_k> x_j x_k over all features of all fields."""
    features = [(tables.table(name)[j], x) for name, field in row.items() for j, x in field.items()]
    return sum(
        float(v @ w) * x * y for at, (v, x) in enumerate(features) for w, y in features[at + 1 :]
    )  # fmt: skip


def vectors_by_hand(tables, row) -> list[list[float]]:
    """sum_j x_j v_j of each field."""
    dim = next(iter(tables.tables.values())).shape[1]
    return [[sum(float(tables.table(name)[j, d]) * x for j, x in field.items()) for d in range(dim)]
            for name, field in row.items()]  # fmt: skip


def relu_mlp_by_hand(mlp, x: list[float]) -> float:
    """Layers of sums; ReLU between them."""
    *hidden, last = mlp.layers
    for layer in hidden:
        x = [max(0.0, value) for value in _layer(layer, x)]
    return _layer(last, x)[0]


def dice_mlp_by_hand(mlp, x: list[float]) -> float:
    """The same with Dice, by running statistics."""
    *hidden, last = mlp.layers
    for layer, dice in zip(hidden, mlp.gates, strict=True):
        x = dice_by_hand(dice, _layer(layer, x))
    return _layer(last, x)[0]


def dice_by_hand(dice, x: list[float]) -> list[float]:
    mean, variance = (values.tolist() for values in dice.statistics())
    p = [1 / (1 + math.exp(-(v - m) / math.sqrt(s + 1e-8))) for v, m, s in zip(x, mean, variance, strict=True)]
    return [v * (q + (1 - q) * a) for v, q, a in zip(x, p, dice.alpha.tolist(), strict=True)]


def _layer(layer, x: list[float]) -> list[float]:
    rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    return [sum(w * v for w, v in zip(weights, x, strict=True)) + bias for weights, bias in rows]


# --- what holds for all of them --------------------------------------------------------------------------------------


def check_every_parameter_moves(model, graph: Graph) -> None:
    """The loss in training mode reaches each registered parameter."""
    model.train().requires_grad_()
    model.losses(batch_of(features_of(graph)))["bce"].backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9]
    assert not still


def check_alone_as_among_others(model, graph: Graph) -> None:
    """In evaluation an impression's logit does not depend on what stands beside it."""
    features = features_of(graph)
    with torch.no_grad():
        together = model.logits(features)
        alone = torch.cat([model.logits(features.take(torch.tensor([b]))) for b in range(len(features))])
        reverse = model.logits(features.take(torch.arange(len(features)).flip(0)))
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(reverse.flip(0), together, rtol=1e-12, atol=1e-12)
    assert together.unique().numel() > 3


def check_compiled_as_plain(model, graph: Graph, monkeypatch) -> None:
    """The loops that run on the CPU, and what runs on other devices: the same logits and gradients."""
    from macrorec.ops import attend, dice
    from macrorec.ops import fields as ops_fields

    def logits_and_gradients():
        model.zero_grad()
        logit_B = model.train().requires_grad_().logits(features_of(graph))
        (logit_B * torch.arange(1, 1 + len(logit_B))).sum().backward()
        return [logit_B.detach(), *(p.grad.clone() for p in model.parameters())]

    fast = logits_and_gradients()
    for module in (attend, dice, ops_fields):
        monkeypatch.setattr(module, "compiled", lambda _: False)
    monkeypatch.setattr(ops_fields, "shares", ops_fields._shares)
    for one, other in zip(fast, logits_and_gradients(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
