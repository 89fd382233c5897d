"""By which behaviours does a user know what, and what weight does the model give to it? The regions of a Venn diagram.

Every item that the user has stands in exactly one region: that of all behaviours by which the user has it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import polars as pl
from torch import Tensor

from macrorec.data.vocab import Vocab
from macrorec.graph.bipartite import Edges, Graph

TOLD: dict[str, Any] = {
    "behaviors": pl.List(pl.String),
    "items": pl.Int64,
    "events": pl.List(pl.Int64),
    "weight": pl.Float64,
    "weights": pl.List(pl.Float64),
}
"""Columns of ``table``: the behaviours of a region, how many items it has, the events by each of its behaviours, the
mean weight of its edges, and the same by behaviour; weights are null where the model gives none."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One edge of the user."""

    events: int
    """Events behind it."""
    weight: float | None
    """What the model gives it; None where it gives none, or where the edge is younger than the fit."""


@dataclass(frozen=True, slots=True)
class Region:
    """Items that a user has by the same behaviours, numbers ascending."""

    behaviors: tuple[int, ...]
    """Indices into ``graph.behaviors``, ascending."""
    marks: Mapping[int, tuple[Mark, ...]]
    """Item -> its edges, one per behaviour; the item of the largest mean weight first, then that of the most events."""

    def events(self) -> list[int]:
        """Events by each of the behaviours."""
        return [sum(mark.events for mark in column) for column in zip(*self.marks.values(), strict=True)]

    def weights(self) -> list[float | None]:
        """Mean weight of the edges of each of the behaviours."""
        return [_mean(column) for column in zip(*self.marks.values(), strict=True)]

    def weight(self) -> float | None:
        """Mean weight of all edges."""
        return _mean([mark for marks in self.marks.values() for mark in marks])


def regions(graph: Graph, fitted: Graph, weights: Sequence[Tensor] | None, user: int) -> list[Region]:
    """The regions of ``user`` in ``graph`` that hold an item: those of more behaviours first.

    ``weights`` are a model's ``edge_weights``, which belong to the edges of ``fitted``: ``graph`` as it was at the fit.
    """
    known: dict[int, dict[int, Mark]] = defaultdict(dict)
    for number, edges in enumerate(graph.edges):
        given = {} if weights is None else dict(_own(fitted.edges[number], user, weights[number]))
        for item, count in _own(edges, user, edges.count_E):
            known[item][number] = Mark(int(count), given.get(item))
    found: dict[tuple[int, ...], dict[int, tuple[Mark, ...]]] = defaultdict(dict)
    for item, marks in sorted(known.items(), key=lambda entry: _strength(entry[0], list(entry[1].values()))):
        found[tuple(marks)][item] = tuple(marks.values())
    return [Region(own, found[own]) for own in sorted(found, key=lambda own: (-len(own), own))]


def table(found: Sequence[Region], graph: Graph, items: Vocab, titles: pl.Series | None) -> pl.DataFrame:
    """``TOLD``, ``item_ids`` and, where there are any, ``titles``: a row per region."""
    columns = {
        "behaviors": [[graph.behaviors[number].name for number in region.behaviors] for region in found],
        "items": [len(region.marks) for region in found],
        "events": [region.events() for region in found],
        "weight": [region.weight() for region in found],
        "weights": [region.weights() for region in found],
    }
    members = [pl.Series(list(region.marks), dtype=pl.Int64) for region in found]
    ids = [items.ids.gather(own) for own in members]
    frame = pl.DataFrame(columns, schema=TOLD).with_columns(
        pl.Series("item_ids", ids, dtype=pl.List(items.ids.dtype)),
    )
    if titles is None:
        return frame
    named = [titles.gather(own) for own in members]
    return frame.with_columns(pl.Series("titles", named, dtype=pl.List(pl.String)))


def _own(edges: Edges, user: int, values_E: Tensor) -> Iterator[tuple[int, float]]:
    """(item, value) of each edge of ``user``, who may be younger than the edges."""
    if user >= len(edges.start_U) - 1:
        return
    own = slice(int(edges.start_U[user]), int(edges.start_U[user + 1]))
    yield from zip(edges.item_E[own].tolist(), values_E[own].tolist(), strict=True)


def _mean(marks: Sequence[Mark]) -> float | None:
    weights = [mark.weight for mark in marks if mark.weight is not None]
    return fmean(weights) if weights else None


def _strength(item: int, marks: Sequence[Mark]) -> tuple[float, int, int]:
    """What items are ordered by."""
    return -(_mean(marks) or 0.0), -sum(mark.events for mark in marks), item
