"""Is everything that an event needs compiled and loaded before the first one comes? A tiny shop takes some events.

The shop has the kinds of the real one: its behaviours, a search where it has one, its ranker's kind of macro graph.
What happens in it runs the same kernels on arrays of the same types, and leaves no trace in any log or state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from macrorec.api import Ranker
from macrorec.bundle import Bundle
from macrorec.data.log import Behavior
from macrorec.data.vocab import Vocab
from macrorec.graph.bipartite import Graph, edges_of
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph
from macrorec.graph.typed import AnyMacroGraph, TypedMacroGraph
from macrorec.serve.deployment import Deployment
from macrorec.serve.events import Entry, Event, ItemAnnounced
from macrorec.serve.ledger import FEW, Ledger
from macrorec.serve.log import Batch
from macrorec.serve.retrieve import Exact
from macrorec.serve.state import State

_KNOWN = 2
"""Users, and items, of the fit."""
_MANY = FEW + FEW // 4
"""Events that come at once: by columns, and more than any table has room for from the start."""


def rehearse(deployment: Deployment) -> None:
    """Count, read and remove events as the state of ``deployment`` would: known and new users, each behaviour, few at
    a time and many, an item that is announced."""
    ledger, state = Ledger(), State(_shop(deployment))
    names = [behavior.name for behavior in state.deployment.retriever_bundle.graph.behaviors]
    few: list[Entry] = [Event(user, "i0", name, 1) for user in ("u0", "new") for name in names]
    few += [ItemAnnounced("fresh", "c0", "title"), Event("new", "fresh", names[-1], 2, 1.0, 0.0)]
    many = [Event(f"m{n % FEW}", f"i{n % _KNOWN}", names[-1], n) for n in range(_MANY)]
    for entries in ([few[0]], few, many):
        positions = np.arange(len(entries)) + ledger.position + 1
        ledger.append(Batch(positions, entries))
        state.extend(ledger)
    items = state.numbers(["i0", "fresh"])
    for user in ("u0", "new"):
        view = state.user(user)
        assert view is not None and view.events
        state.masked_since(replace(view, events=0))
        if state.counts is not None:
            state.features(view.ranker, items)
            state.candidates(view.ranker, items)
            state.met_by(items)
            state.popular(1, 0)
        ledger.forget(user)
        state.forget(user)
    ledger.mark()


def _shop(deployment: Deployment) -> Deployment:
    """A deployment of a few users and items, of the same kinds."""
    retriever, ranker = _few(deployment.retriever_bundle), deployment.ranker_bundle
    same = np.arange(_KNOWN)
    dim = 1 if deployment.items_ID is None else deployment.items_ID.shape[1]
    return replace(
        deployment,
        retriever_bundle=retriever,
        ranker_bundle=None if ranker is None else _few(ranker),
        retriever=None if deployment.retriever is None else Exact(np.ones((_KNOWN, dim), np.float32)),
        ranker_users_U=same,
        ranker_items_I=same if ranker is not None else np.full(_KNOWN, -1),
    )


def _few(bundle: Bundle) -> Bundle:
    """A bundle of a few users and items with these behaviours; a ranker has the same kind of macro graph."""
    users, items = (Vocab([f"{side}{n}" for n in range(_KNOWN)]) for side in "ui")
    model = bundle.model
    graph = _graph(bundle.graph.behaviors, model.macro if isinstance(model, Ranker) else None)
    if isinstance(model, Ranker):
        model = type(model).from_graph(model.config, graph, torch.Generator().manual_seed(0)).eval()
    return replace(bundle, model=model, graph=graph, users=users, items=items, config={}, titles=None, clusters=None)


def _graph(behaviors: Sequence[Behavior], macro: AnyMacroGraph | None) -> Graph:
    one, both = np.zeros(1, np.int32), np.arange(_KNOWN, dtype=np.int32)
    edges = tuple(edges_of(one, one, _KNOWN, _KNOWN) for _ in behaviors)
    if macro is None:
        return Graph(_KNOWN, _KNOWN, tuple(behaviors), edges)
    users, items = Groups(both, _KNOWN), Groups(both, _KNOWN, ("c0", "c1") if macro.items.names else ())
    own = macro.graphs[0] if isinstance(macro, TypedMacroGraph) else macro
    settings: dict[str, Any] = {"recents": own.recents, "pull": own.pull, "push": own.push, "dense": own.dense}
    columns = one, one, np.ones(1, np.float32), np.ones(1, np.int64)
    if isinstance(macro, TypedMacroGraph):
        few: AnyMacroGraph = TypedMacroGraph(users, items, *columns, None, types=macro.types, **settings)
    else:
        few = MacroGraph(users, items, *columns, **settings)
    return Graph(_KNOWN, _KNOWN, tuple(behaviors), edges, few)
