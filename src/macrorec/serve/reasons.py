"""Why does an item score as it does for a user, and which items are like it? In words that a person can read.

Other users are never named: a neighbour that is a user is told as one of so many.

Shape letters: H items of a user, K clusters, Q groups of items, P groups of users, D embedding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from macrorec.api import ItemLinear, Reason, Reasons
from macrorec.eval.ranking import evaluating
from macrorec.graph.groups import distinctive
from macrorec.graph.typed import types_of
from macrorec.ops.linear import cosine_neighbors
from macrorec.serve.ranking import Version
from macrorec.serve.state import UserView

Ints = npt.NDArray[np.int64]
Row = dict[str, Any]

TYPICAL = 3
"""Items that stand for a group without a name."""
LOOKED_AT = 2_000
"""Most popular items among which those are chosen."""


def explain(version: Version, view: UserView | None, item: int, k: int | None = None) -> Row:
    """What carries the score of an item: the k strongest reasons, all by default, and how its score came to be."""
    ids, path = version.state.catalogue, version.path(view)
    told: Row = {
        "item_id": ids.ids.id_of(item),
        "title": ids.title(item),
        "category": ids.category(item),
        "path": path,
        "version": version.name,
        "users": int(version.state.count(np.array([item]))[0]),
        "seen": bool(view is not None and item in view.masked),
    }
    why = None if view is None or version.ranker is None else _why(version, view, item)
    if why is not None and view is not None:
        rows = _neighbours(version, view, why)
        told |= {"kind": "ranker", "score": why.logit, "base": why.base, "user": why.user, "item": why.item}
        told |= {"exact": True, "reasons": rows[:k]}
        return told
    rows, score, exact = _of_history(version, view, item)
    return told | {"kind": "history", "score": score, "exact": exact, "reasons": rows[:k]}


def _why(version: Version, view: UserView, item: int) -> Reasons | None:
    assert version.ranker is not None
    features = version.state.features(view.ranker, np.array([item]))
    with torch.no_grad():
        return version.ranker.reasons(features)


def _neighbours(version: Version, view: UserView, why: Reasons) -> list[Row]:
    """A row per macro neighbour and recent item, and one for all recent users; the strongest first."""
    called: Names = version.kept("names", lambda: Names(version))
    recent = called.items([reason.number for reason in why.neighbours if reason.kind == "item"])
    rows: dict[tuple[str, str, str], Row] = {}
    for reason in why.neighbours:
        what = called.of(reason, recent)
        row = rows.setdefault(
            (reason.side, reason.via, what),
            {"side": reason.side, "via": reason.via, "kind": reason.kind, "what": what}
            | {"count": 0.0, "weight": 0.0, "attention": 0.0, "contribution": 0.0},
        )
        for name in ("count", "weight", "attention", "contribution"):
            row[name] += getattr(reason, name)
    return sorted(rows.values(), key=lambda row: -abs(row["contribution"]))


class Names:
    """What groups are called: by their own names, or by items that are typical of them."""

    def __init__(self, version: Version) -> None:
        counts = version.state.counts
        assert counts is not None
        self._version, macro = version, counts.macro
        self._types = types_of(macro)
        self.item_groups = list(macro.items.names) or [self._typical(group) for group in range(macro.items.n)]
        self._user_groups = list(macro.users.names)
        if not self._user_groups:
            items = version.state.popular(LOOKED_AT)[0][:LOOKED_AT]
            met_BP = version.state.met_by(items)
            place, group = np.nonzero(met_BP)
            own = distinctive(group, place, met_BP[place, group], macro.users.n, TYPICAL)
            self._user_groups = [self._called(items[np.array(few, dtype=np.int64)]) for few in own]

    def of(self, reason: Reason, recent: dict[int, str]) -> str:
        """The name of a neighbour; ``recent`` names items."""
        if reason.kind == "user":
            return "recent users"
        if reason.kind == "item":
            return recent.get(reason.number, "(an item)")
        name = (self.item_groups if reason.kind == "item group" else self._user_groups)[reason.number]
        return f"{name} ({self._types[reason.type]})" if self._types else name

    def items(self, numbers: list[int]) -> dict[int, str]:
        """Titles, or ids, of items by the ranker's numbers."""
        counts = self._version.state.counts
        assert counts is not None
        return {ranker: self._called(np.array([own])) for ranker, own in counts.items_of(numbers).items()}

    def _typical(self, group: int) -> str:
        return self._called(self._version.state.popular(TYPICAL, group)[0][:TYPICAL])

    def _called(self, items: Ints) -> str:
        own = self._version.state.catalogue
        return "; ".join(own.title(item) or own.ids.id_of(item) for item in items.tolist()) or "(empty)"


def _of_history(version: Version, view: UserView | None, item: int) -> tuple[list[Row], float, bool]:
    """The user's items with what each adds to the score, or how like it is; the score; whether rows add up to it."""
    state, deployment = version.state, version.deployment
    path, model = version.path(view), deployment.retriever_bundle.model
    n_fitted = state.catalogue.n_fitted
    if view is None or path not in ("model", "fold_in"):
        return [], float(state.count(np.array([item]))[0]), False
    own_H = view.items[view.items < n_fitted]
    score, weight_H, exact = float("nan"), np.zeros(len(own_H)), False
    vector_D = version.vector(view)
    if vector_D is not None and deployment.retriever is not None and state.catalogue.placed_I[item]:
        score = float(deployment.retriever.score(vector_D[None], np.array([[item]]))[0, 0])
        items_ID = deployment.items_ID
        if items_ID is not None and item < n_fitted:
            weight_H = _cosine(items_ID[own_H], items_ID[item])
    elif item < n_fitted and deployment.scores is not None:
        found = deployment.retrieve(view.fitted, view.items, 1, changed=view.changed, only=np.array([item]))
        score = float(found.scores[0]) if found is not None and len(found.scores) else score
        with evaluating(model):
            told_H = model.contributions(torch.from_numpy(own_H), item)
        if told_H is not None:
            weight_H, exact = told_H.numpy().astype(np.float64), True
    order = np.argsort(-np.abs(weight_H), kind="stable")
    rows = [
        {
            "side": "user",
            "via": "history",
            "kind": "item",
            "what": state.catalogue.title(h) or state.catalogue.ids.id_of(h),
        }
        | {"item_id": state.catalogue.ids.id_of(h), "weight": weight, "contribution": weight if exact else None}
        for h, weight in zip(own_H[order].tolist(), weight_H[order].tolist(), strict=True)
        if weight
    ]
    return rows, score, exact


def similar(version: Version, item: int, n: int) -> tuple[Ints, npt.NDArray[np.float32]]:
    """The n items most like an item: by cosine of vectors, by item-to-item weights, else by common users; of a new item
    without any, the most popular of its group."""
    deployment, state = version.deployment, version.state
    bundle, items_ID = deployment.retriever_bundle, deployment.items_ID
    if items_ID is not None and (item < len(items_ID) or state.catalogue.placed_I[item]):
        vector_D = state.catalogue.vector(item) if item >= len(items_ID) else items_ID[item]
        norms_I = version.kept("norms", lambda: np.maximum(np.linalg.norm(items_ID, axis=1), 1e-30), forever=True)
        score_I = (items_ID @ vector_D) / (norms_I * max(float(np.linalg.norm(vector_D)), 1e-30))
    elif item < state.catalogue.n_fitted and isinstance(bundle.model, ItemLinear):
        everything = torch.arange(bundle.model.n_items)
        with evaluating(bundle.model):
            score_I = bundle.model.similar(torch.tensor([item]), everything)[0].numpy()
    elif item < state.catalogue.n_fitted:
        columns = version.kept("columns", lambda: bundle.graph.target.csr(len(bundle.items)).T.tocsr(), forever=True)
        numbers, likeness = cosine_neighbors(columns[[item]], columns, n + 1, 0.0, same=False)
        keep = ((numbers[0] != item) & (likeness[0] > 0)).numpy()
        return numbers[0].numpy()[keep][:n], likeness[0].numpy()[keep][:n].astype(np.float32)
    else:
        return _of_its_group(version, item, n)
    if item < len(score_I):
        score_I[item] = -np.inf
    few = np.argpartition(-score_I, min(n, len(score_I) - 1))[: n + 1]
    best = few[np.lexsort((few, -score_I[few]))][:n]
    best = best[score_I[best] > -np.inf]
    return best.astype(np.int64), score_I[best].astype(np.float32)


def _of_its_group(version: Version, item: int, n: int) -> tuple[Ints, npt.NDArray[np.float32]]:
    group = version.state.counts.groups(np.array([item]))[0] if version.state.counts is not None else -1
    if group < 0:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    items, count = version.state.popular(n + 1, int(group))
    keep = items != item
    return items[keep][:n], count[keep][:n].astype(np.float32)


def item_map(version: Version, n: int) -> Row:
    """A place in the plane, the two first principal components, for the n most popular items of the fit."""
    state, bundle = version.state, version.deployment.retriever_bundle
    items = state.popular(n)[0]
    items = items[items < state.catalogue.n_fitted][:n]
    items_ID = version.deployment.items_ID
    if items_ID is not None:
        rows = items_ID[items].astype(np.float64)
    elif bundle.clusters is not None:
        rows = bundle.clusters.items.strength_NK[items].astype(np.float64)
    elif state.counts is not None:
        features = state.features(-1, items)
        rows = np.log1p(torch.cat([features.item_hop1_BP, features.item_hop2_BQ], 1).double().numpy())
    else:
        rows = bundle.graph.target.csr(len(bundle.items))[:, items].T.toarray()[:, :512].astype(np.float64)
    places = _plane(rows)
    cluster = bundle.clusters.items.group_N[items] if bundle.clusters is not None else None
    if cluster is None:
        cluster = state.counts.groups(items) if state.counts is not None else state.catalogue.category_I[items]
    names: dict[int, str] = {}
    if bundle.clusters is None and state.counts is not None:
        called: Names = version.kept("names", lambda: Names(version))
        names = dict(enumerate(called.item_groups))
    count = state.count(items)
    return {
        "version": version.name,
        "items": [
            {"item_id": state.catalogue.ids.id_of(number), "title": state.catalogue.title(number), "x": x, "y": y}
            | {"cluster": kind, "popularity": users}
            for number, (x, y), kind, users in zip(
                items.tolist(), places.tolist(), cluster.tolist(), count.tolist(), strict=True
            )
        ],
        "clusters": [{"cluster": k, "name": names.get(k, str(k))} for k in sorted(set(cluster.tolist())) if k >= 0],
    }


def _plane(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The two first principal components, each scaled to -1 to 1; which end is which, the largest entry decides."""
    places = np.zeros((len(rows), 2))
    if not rows.size:
        return places
    centred = rows - rows.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    for side, axis in enumerate(axes.T[::-1][:2]):
        axis = axis * np.sign(axis[np.abs(axis).argmax()] or 1)
        along = centred @ axis
        places[:, side] = along / max(float(np.abs(along).max()), 1e-30)
    return places


def _cosine(rows_HD: npt.NDArray[np.float32], vector_D: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    norms = np.maximum(np.linalg.norm(rows_HD, axis=1) * np.linalg.norm(vector_D), 1e-30)
    cosine: npt.NDArray[np.float64] = ((rows_HD @ vector_D) / norms).astype(np.float64)
    return cosine
