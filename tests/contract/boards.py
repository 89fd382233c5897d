"""Small logs with a pattern to learn and odd corners, and a budget to fit models to them."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch

from macrorec.api import Model, Ranker
from macrorec.data.log import Behavior, Interactions
from macrorec.data.vocab import Vocab
from macrorec.graph.bipartite import Graph, build
from macrorec.graph.columns import Features
from macrorec.graph.features import Samples, macro_of, samples_at
from macrorec.train.config import TrainConfig
from macrorec.train.history import History
from macrorec.train.trainer import train

BUDGET = TrainConfig(epochs=40, batch_size=64, lr=0.02)


def log_of(n_users: int, n_items: int, *events: np.ndarray, labels: np.ndarray | None = None) -> Interactions:
    """A log from (user, item) arrays, one per behaviour, target last."""
    auxiliary = [Behavior(name=f"view{n}", role="auxiliary", mask=False) for n in range(len(events) - 1)]
    pairs = np.concatenate(events).astype(np.int32)
    behavior = np.repeat(np.arange(len(events)), [len(e) for e in events]).astype(np.int8)
    users, items = Vocab(np.arange(n_users)), Vocab(np.arange(n_items))
    schema = (*auxiliary, Behavior(name="buy"))
    return Interactions(users, items, schema, pairs[:, 0], pairs[:, 1], behavior, label=labels)


def checkerboard(n: int = 16) -> tuple[Interactions, Interactions]:
    """Even users have the even items, odd the odd; (u, u) is held out. Second: all pairs but those, labelled."""
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    known = user != item
    pairs = np.stack([user, item], 1)[known]
    likes = ((user - item) % 2 == 0)[known]
    labelled = log_of(n, n, pairs, labels=likes.astype(np.float32))
    return log_of(n, n, pairs[likes]), labelled


def corners() -> Interactions:
    """14 users, 11 items, two behaviours; user 13 and item 10 have no target event, user 12 has a single one."""
    random = np.random.default_rng(7)
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(12), np.arange(10), indexing="ij"))
    buys = np.stack([user, item], 1)[random.random(120) < 0.35]
    views = np.stack([user, item], 1)[random.random(120) < 0.5]
    return log_of(14, 11, np.concatenate([views, [[13, 3]]]), np.concatenate([buys, [[12, 4]]]))


def fresh(kind: type[Model], graph: Graph, seed: int = 0) -> Model:
    """The model with its default settings, not fitted."""
    return kind.from_graph(kind.Config(), graph, torch.Generator().manual_seed(seed))


def fitted(
    kind: type[Model],
    log: Interactions,
    *,
    seed: int = 0,
    labelled: Interactions | None = None,
    config: TrainConfig = BUDGET,
) -> tuple[Model, Graph, History]:
    """The model fitted to ``log``, its graph and its history; a ranker to impressions that do not see themselves."""
    graph = build(log)
    model = fresh(kind, graph, seed)
    rows = labelled or with_labels(log)
    history = train(model, graph, config, seed=seed, labelled=left_out(log, rows) if issubclass(kind, Ranker) else rows)
    return model, graph, history


def left_out(log: Interactions, rows: Interactions, n_folds: int = 8) -> Samples:
    """Samples of ``rows``: each sees the macro graph of the log without the events of its fold, its own among them."""
    pair_E, pair_B = (log.user.astype(np.int64) * len(log.items) + log.item for log in (log, rows))
    fold_of = np.random.default_rng(1).integers(0, n_folds, int(max(pair_E.max(), pair_B.max())) + 1)
    parts = [
        samples_at(macro_of(build(log.take(fold_of[pair_E] != fold))), rows.take(fold_of[pair_B] == fold))
        for fold in range(n_folds)
    ]
    return Samples(
        Features(**{f.name: torch.cat([getattr(p.features, f.name) for p in parts]) for f in fields(Features)}),
        torch.cat([part.label_B for part in parts]),
        rows.take(np.argsort(fold_of[pair_B], kind="stable")),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("user_history_B", "item_history_B")),
    )


def with_labels(log: Interactions) -> Interactions:
    """The log, each row labelled by whether user and item number have one parity."""
    likes = ((log.user - log.item) % 2 == 0).astype(np.float32)
    return Interactions(log.users, log.items, log.behaviors, log.user, log.item, log.behavior, label=likes)


def scores(model: Model) -> torch.Tensor:
    """All scores (U, I)."""
    with torch.no_grad():
        return model.score_all(torch.arange(model.n_users))


def state(model: Model) -> dict[str, Any]:
    """A copy of the model's state."""
    return {name: value.clone() for name, value in model.state_dict().items()}
