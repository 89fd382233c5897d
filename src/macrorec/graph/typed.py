"""What if events differ in kind, such as liked and disliked? One macro graph per type, side by side.

(5) sums r_ab over all micro edges alike. Here r_ab is typed: A_u1 becomes [R_1 C_i | R_2 C_i | ...], and so on for
every row, so that a user's dislikes of a group stand beside its likes of it. Second hops are of one type throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from macrorec.errors import DataError
from macrorec.graph.columns import Features
from macrorec.graph.events import checked
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph
from macrorec.graph.slabs import Events

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]

COUNTED = (
    "user_hop1_BQ",
    "user_hop2_BP",
    "item_hop1_BP",
    "item_hop2_BQ",
    "user_volume_BC",
    "item_volume_BC",
)
"""The features that every type has its own columns of; the others are those of the first type."""


class TypedMacroGraph:
    """A ``MacroGraph`` per type of event under the same groups; the first type is what a recommender hopes for.

    Rows have C x P and C x Q columns, type by type. Groups, recents and cold nodes go by the first type. Methods take
    ``type_E``, the type of each event, 0 to C - 1, and otherwise do what those of ``MacroGraph`` do.
    """

    def __init__(
        self,
        users: Groups,
        items: Groups,
        user_E: Numbers,
        item_E: Numbers,
        weight_E: Numbers | None = None,
        time_E: Numbers | None = None,
        type_E: Numbers | None = None,
        *,
        types: tuple[str, ...],
        **settings: Any,
    ) -> None:
        """The graph of E events of ``types``, by name. ``settings`` are those of ``MacroGraph``."""
        assert types
        self.types = types
        self.latest = 0 if time_E is None else int(np.max(time_E, initial=0))
        columns = (user_E, item_E, weight_E, time_E)
        self.graphs = tuple(
            MacroGraph(users, items, *own, **settings) for _, own in _by_type(columns, type_E, len(types))
        )

    # --- events ---

    def add(
        self,
        user_E: Numbers,
        item_E: Numbers,
        weight_E: Numbers | None = None,
        time_E: Numbers | None = None,
        type_E: Numbers | None = None,
    ) -> None:
        """Count these events, too; without ``type_E`` all are of the first type."""
        events = self._checked(user_E, item_E, weight_E, time_E)
        for graph, own in self._each(events, type_E):
            graph.add(*own)
        self.latest = max(self.latest, int(events.time_E.max(initial=self.latest)))

    def extend(
        self,
        user_E: Numbers,
        item_E: Numbers,
        weight_E: Numbers | None = None,
        time_E: Numbers | None = None,
        type_E: Numbers | None = None,
    ) -> None:
        """``add`` for very many events."""
        events = self._checked(user_E, item_E, weight_E, time_E)
        for graph, own in self._each(events, type_E):
            graph.extend(*own)
        self.latest = max(self.latest, int(events.time_E.max(initial=self.latest)))

    def remove(
        self,
        user_E: Numbers,
        item_E: Numbers,
        weight_E: Numbers | None = None,
        time_E: Numbers | None = None,
        type_E: Numbers | None = None,
    ) -> None:
        """Take events back. Raises DataError, with nothing changed, if one of them is not there."""
        parts = list(self._each((user_E, item_E, weight_E, time_E), type_E))
        for graph, own in parts:
            graph.require(*own)
        for graph, own in parts:
            graph.remove(*own)

    def replay(
        self,
        user_E: Numbers,
        item_E: Numbers,
        weight_E: Numbers | None,
        time_E: Numbers | None,
        type_E: Numbers | None,
        user_S: Numbers,
        item_S: Numbers,
        before_S: Numbers,
    ) -> Features:
        """Add events one by one; impression s sees the state after the first before_S[s] of them (never falling)."""
        type_E = np.zeros(len(user_E), dtype=np.int8) if type_E is None else np.asarray(type_E)
        events = self._checked(user_E, item_E, weight_E, time_E)
        seen = []
        for number, (graph, own) in enumerate(self._each(events, type_E)):
            before_own = np.append(0, np.cumsum(type_E == number))[before_S]
            user, item, weight, time = own
            seen.append(graph.replay(user, item, weight, time, user_S, item_S, before_own))
        self.latest = max(self.latest, int(events.time_E.max(initial=self.latest)))
        return _beside(seen)

    def regroup(self, users: Groups, items: Groups) -> None:
        """Other groups for the same events."""
        for graph in self.graphs:
            graph.regroup(users, items)

    def refresh(self) -> None:
        """Count all rows anew from the events; nothing is missed afterwards."""
        for graph in self.graphs:
            graph.refresh()

    def grow(
        self, n_users: int, n_items: int, user_group: Numbers | None = None, item_group: Numbers | None = None
    ) -> None:
        """Tables for new nodes, of these groups or unknown."""
        for graph in self.graphs:
            graph.grow(n_users, n_items, user_group, item_group)

    def _each(
        self, columns: tuple[Numbers | None, ...], type_E: Numbers | None
    ) -> Iterator[tuple[MacroGraph, tuple[Any, ...]]]:
        return zip(self.graphs, (own for _, own in _by_type(columns, type_E, len(self.types))), strict=True)

    def _checked(self, user_E: Numbers, item_E: Numbers, weight_E: Numbers | None, time_E: Numbers | None) -> Events:
        """The events of all types, before any of them counts; without times, they come at the latest so far."""
        sizes = {"n_users": len(self.users), "n_items": len(self.items)}
        return checked(user_E, item_E, weight_E, time_E, latest=self.latest, **sizes)

    # --- reading ---

    @property
    def users(self) -> Groups:
        return self.graphs[0].users

    @property
    def items(self) -> Groups:
        return self.graphs[0].items

    @property
    def recents(self) -> int:
        return self.graphs[0].recents

    @property
    def n_columns(self) -> tuple[int, int]:
        """Numbers in a row over groups of users, and over groups of items: C x P and C x Q."""
        return len(self.types) * self.users.n, len(self.types) * self.items.n

    @property
    def n_events(self) -> int:
        """Events that count, of all types."""
        return sum(graph.n_events for graph in self.graphs)

    @property
    def missed(self) -> float:
        """Weight of the paths that A_i2 lacks, over all types."""
        return sum(graph.missed for graph in self.graphs)

    @property
    def nbytes(self) -> int:
        """Bytes that the state takes."""
        return sum(graph.nbytes for graph in self.graphs)

    def features(self, user_B: Numbers, item_B: Numbers) -> Features:
        """The state now, as seen by the impressions (user_B[b], item_B[b]); -1 or beyond the tables: a new node."""
        return _beside([graph.features(user_B, item_B) for graph in self.graphs])

    def candidates(self, user: int, item_B: Numbers) -> Features:
        """The same of one user with B items."""
        return _beside([graph.candidates(user, item_B) for graph in self.graphs])

    def visitor(self, item_H: Numbers, weight_H: Numbers) -> dict[str, Tensor]:
        """As ``MacroGraph.visitor``; the items are events of the first type."""
        first = self.graphs[0].visitor(item_H, weight_H)
        empty = [graph.visitor(item_H[:0], weight_H[:0]) for graph in self.graphs[1:]]
        return {
            name: torch.cat([value, *(other[name] for other in empty)]) if name in COUNTED else value
            for name, value in first.items()
        }

    def user_events(self, users_B: Numbers) -> Ints:
        """How many events of the first type each user has, int64, shape (B,)."""
        return self.graphs[0].user_events(users_B)

    def item_events(self, items_B: Numbers) -> Ints:
        """How many events of the first type each item has, int64, shape (B,)."""
        return self.graphs[0].item_events(items_B)

    # --- storing ---

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, for ``from_tensors``."""
        return {f"{t}.{name}": value for t, graph in enumerate(self.graphs) for name, value in graph.tensors().items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], types: tuple[str, ...]) -> TypedMacroGraph:
        """The graph that ``tensors`` was taken from."""
        graph = cls.__new__(cls)
        graph.types = types
        own = [
            {name.removeprefix(f"{t}."): value for name, value in tensors.items() if name.startswith(f"{t}.")}
            for t in range(len(types))
        ]
        graph.graphs = tuple(MacroGraph.from_tensors(part) for part in own)
        graph.latest = max(int(part["settings"][-1]) for part in own)
        return graph


AnyMacroGraph = MacroGraph | TypedMacroGraph


def types_of(macro: AnyMacroGraph) -> tuple[str, ...]:
    """The names of the types of events; () where there is one without a name."""
    return macro.types if isinstance(macro, TypedMacroGraph) else ()


def restored(tensors: Mapping[str, Tensor], types: Sequence[str]) -> AnyMacroGraph:
    """The macro graph, with these ``types_of``, that ``tensors`` was taken from."""
    return TypedMacroGraph.from_tensors(tensors, tuple(types)) if types else MacroGraph.from_tensors(tensors)


def _by_type(
    columns: tuple[Numbers | None, ...], type_E: Numbers | None, n_types: int
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The events of each type in turn."""
    if type_E is None:
        type_E = np.zeros(0 if columns[0] is None else len(columns[0]), dtype=np.int8)
    type_E = np.asarray(type_E)
    if len(type_E) and not 0 <= type_E.min() <= type_E.max() < n_types:
        raise DataError(f"event types must lie in 0 to {n_types - 1}, and run from {type_E.min()} to {type_E.max()}")
    for number in range(n_types):
        own = type_E == number
        yield number, tuple(None if column is None else np.asarray(column)[own] for column in columns)


def _beside(seen: list[Features]) -> Features:
    """Features of the same impressions by each type, as one."""
    if len(seen) == 1:
        return seen[0]
    return replace(seen[0], **{name: torch.cat([getattr(part, name) for part in seen], 1) for name in COUNTED})
