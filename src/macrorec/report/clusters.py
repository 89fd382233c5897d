"""What are a model's clusters made of? Sizes, what they agree with, the items that stand for them, who prefers them.

Shape letters: N items, K clusters, C labels, U users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec import configs, models
from macrorec.api import Model
from macrorec.bundle import MANIFEST, Bundle
from macrorec.clusters import Clusters, clusters_of
from macrorec.data.catalog import Catalog, read_catalog
from macrorec.data.sources.home import locate
from macrorec.data.sources.source import Source
from macrorec.data.synthetic import read_truth
from macrorec.data.vocab import Vocab
from macrorec.errors import ConfigError, DataError
from macrorec.graph.groups import Groups, agreement
from macrorec.inputs import Synthetic, on_disk
from macrorec.restore import config_of, restore
from macrorec.run import RunConfig
from macrorec.store import Run

Ints = npt.NDArray[np.int64]
Order = Literal["strength", "events"]

LIKED = 0.5
"""A preference above this counts as liking a cluster: a user may like several, or none."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What clusters are held against."""

    of_N: Ints
    """Label of each item, -1 where it has none."""
    names: Sequence[str]
    what: str
    """One phrase that says where they come from."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The clusters of a run or a bundle, with what is known of the items besides."""

    clusters: Clusters
    labels: Labels | None
    titles: pl.Series | None
    """A name per item, null where it has none."""
    missing: str
    """Why there are no labels; empty where there are."""
    planted_users: Ints | None = None
    """The planted group of each user, of a synthetic market."""


def found_in(
    place: Path,
    *,
    items: str | None = None,
    category: str | None = None,
    title: str | None = None,
    pick: str = "first",
    truth: str | None = None,
) -> Found:
    """The clusters of the run or bundle in ``place``, held against what its source says, or against what is given.

    ``items``, ``category`` and ``title`` stand in for the source's item file and columns; ``truth`` is the folder of a
    synthetic market. Raises ConfigError for a model without clusters.
    """
    clusters, source, titles = _opened(place)
    ids = clusters.users.nodes, clusters.items.nodes
    if truth is None and items is None and category is None and isinstance(source, Synthetic):
        truth = str(Path(on_disk(source).path).parent)
    if truth is not None:
        planted_users, planted = read_truth(truth, *ids)
        called = [f"cluster {number}" for number in range(int(planted.max(initial=-1)) + 1)]
        return Found(clusters, Labels(planted, called, "planted clusters of the market"), titles, "", planted_users)
    catalog = _catalog(source, ids[1], items, category, title)
    if isinstance(catalog, str):
        return Found(clusters, None, titles, catalog)
    if catalog.titles is not None:
        titles = catalog.titles
    if not catalog.names:
        return Found(clusters, None, titles, f"{catalog.path} has a category for none of these items")
    of_N, names = catalog.groups(pick)
    several = {"all": "all of several as one"}.get(pick, f"the {pick} of several")
    what = f"categories {catalog.category!r} of {catalog.path.name}, {several}"
    return Found(clusters, Labels(of_N.astype(np.int64), names, what), titles, "")


def counts(group_N: npt.NDArray[Any], label_N: npt.NDArray[Any], k: int) -> Ints:
    """How many items of each of k clusters have which label, shape (K, C); those without either do not count."""
    both = (group_N >= 0) & (label_N >= 0)
    n_labels = int(label_N.max(initial=-1)) + 1
    flat = np.bincount(group_N[both].astype(np.int64) * n_labels + label_N[both], minlength=k * n_labels)
    return flat.reshape(k, n_labels)


def purity(counts_KC: Ints) -> float:
    """sum_k max_c n_kc / sum_kc n_kc: the share of items whose cluster is named by their label; NaN without items."""
    total = int(counts_KC.sum())
    return float(counts_KC.max(1).sum() / total) if total else float("nan")


def summary(found: Found, *, top: int = 3, by: Order = "strength") -> dict[str, Any]:
    """What is to be said of the clusters, as plain values.

    size: items whose strongest cluster it is; mass: sum over all such items of their strengths; users: whose strongest
    it is; liked: users whose preference exceeds ``LIKED``; top: the strongest of its items, or those of most events.
    """
    clusters = found.clusters
    items, users = clusters.items, clusters.users
    of_items, of_users = items.group_N, users.group_N
    size_K = np.bincount(of_items[of_items >= 0], minlength=clusters.n)
    mass_K = items.strength_NK[of_items >= 0].sum(0, dtype=np.float64)
    users_K = np.bincount(of_users[of_users >= 0], minlength=clusters.n)
    liked_K = (users.strength_NK[of_users >= 0] > LIKED).sum(0)
    rows = [
        {
            "cluster": k,
            "size": int(size_K[k]),
            "mass": float(mass_K[k]),
            "users": int(users_K[k]),
            "liked": int(liked_K[k]),
            "top": [_item(found, number, k) for number in members(clusters, k, by)[:top]],
        }
        for k in range(clusters.n)
    ]
    result: dict[str, Any] = {
        "items": len(items.nodes),
        "users": len(users.nodes),
        "without_cluster": {"items": int((of_items < 0).sum()), "users": int((of_users < 0).sum())},
        "until": clusters.until,
        "against": None,
        "clusters": rows,
    }
    if found.labels is None:
        return result
    counts_KC = counts(of_items, found.labels.of_N, clusters.n)
    for row, counts_C in zip(rows, counts_KC, strict=True):
        labelled, most = int(counts_C.sum()), int(counts_C.argmax()) if counts_C.size else 0
        row["label"] = found.labels.names[most] if labelled else None
        row["purity"] = float(counts_C[most] / labelled) if labelled else None
    total = counts_KC.sum()
    result["against"] = {
        "what": found.labels.what,
        "items": int(total),
        "labels": int((counts_KC.sum(0) > 0).sum()),
        "purity": purity(counts_KC),
        "one_cluster": float(counts_KC.sum(0).max() / total) if total else None,
        "agreement": agreement(Groups(of_items, clusters.n), found.labels.of_N),
    }
    if found.planted_users is not None:
        result["against"]["users_agreement"] = agreement(Groups(of_users, clusters.n), found.planted_users)
    return result


def preferred(found: Found, user: int, *, k: int = 5, top: int = 3, by: Order = "strength") -> list[dict[str, Any]]:
    """The k clusters that the user of this number prefers most, the first of several first, with their top items."""
    strength_K = found.clusters.users.strength_NK[user]
    order = np.argsort(-strength_K, kind="stable")[:k].tolist()
    return [
        {
            "cluster": number,
            "preference": float(strength_K[number]),
            "top": [_item(found, item, number) for item in members(found.clusters, number, by)[:top]],
        }
        for number in order
    ]


def members(clusters: Clusters, k: int, by: Order = "strength") -> Ints:
    """Numbers of the items whose strongest cluster is ``k``: the strongest, or those of most events, first."""
    own = np.flatnonzero(clusters.items.group_N == k)
    value = clusters.items.strength_NK[own, k] if by == "strength" else clusters.items.events_N[own]
    return own[np.argsort(-value, kind="stable")]


def _item(found: Found, number: int, k: int) -> dict[str, Any]:
    items = found.clusters.items
    title = None if found.titles is None else found.titles[int(number)]
    return {
        "item_id": items.nodes.ids[int(number)],
        "title": title,
        "strength": float(items.strength_NK[number, k]),
        "events": int(items.events_N[number]),
    }


def _opened(place: Path) -> tuple[Clusters, Source | Synthetic | None, pl.Series | None]:
    """Clusters, source and titles of a run, or of a bundle."""
    clusters: Clusters | None
    if (place / MANIFEST).is_file():
        bundle = Bundle.load(place)
        clusters = bundle.clusters or Clusters.of(bundle.model, bundle.graph, bundle.users, bundle.items)
        name, titles = models.name_of(type(bundle.model)), bundle.titles
        kept = {key: value for key, value in bundle.config.items() if key != "run"}
        source = configs.parse(RunConfig, kept).source if "source" in kept else None
    else:
        run = Run.open(place)
        name, titles, source = run.config["model"]["name"], None, config_of(run).source
        clusters = run.clusters()
        if clusters is None and name in able():  # a run of before clusters were written
            found = restore(run)
            clusters = clusters_of(found.model, found.parts)
    if clusters is None:
        why = "set as it is, has none" if name in able() else f"has none; {', '.join(able()) or 'no model'} has"
        raise ConfigError(f"{place}: there are no clusters to show: the model {name} {why}")
    return clusters, source, titles


def able() -> list[str]:
    """Names of the models that may have clusters."""
    return [name for name in models.names() if models.load(name).clusters is not Model.clusters]


def _catalog(
    source: Source | Synthetic | None, nodes: Vocab, items: str | None, category: str | None, title: str | None
) -> Catalog | str:
    """The item file that is given, else that of the source; or why there is none."""
    own = source if isinstance(source, Source) and items is None and source.items is not None else None
    if own is None and items is None:
        if category or title:
            raise ConfigError("--category and --title are columns of an item file: name it by --items, too")
        return "the log came without an item file: name one by --items, or a market by --truth"
    if own is not None:
        try:
            locate(str(own.items))
        except DataError as error:  # a bundle may have travelled
            return str(error)
    columns = source.columns if isinstance(source, Source) else {}
    read = own or Source(path="", items=items, columns=columns)
    read = replace(read, category=category or read.category, title=title or read.title)
    return read_catalog(read, nodes) or "the log came without an item file"
