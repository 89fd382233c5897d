"""Which clusters does a fitted model have? Whom each user prefers, and what each item belongs to, as tables on disk.

clusters-users.parquet  user_id, events (edges of the target behaviour in train), group, strengths (K numbers)
clusters-items.parquet  item_id and the same

Row n is number n of the vocabulary of the run or bundle; ``group`` is the strongest of the K clusters, the first of
several, or -1 for a node without an event in train: its vector has never moved. So either file can be a file of groups
of a macro graph (``features.items`` and ``features.users``, kind ``file``). The time of the last event that was learned
from stands in the file itself, so that a history which ends earlier can refuse it.

Shape letters: U users, I items, N nodes of one side, K clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from macrorec import files
from macrorec.api import Model
from macrorec.data.log import Interactions, Split
from macrorec.data.vocab import Vocab
from macrorec.errors import DataError
from macrorec.graph.assignment import UNTIL
from macrorec.graph.bipartite import Graph, from_split
from macrorec.graph.groups import UNKNOWN

Which = Literal["users", "items"]
Strengths = npt.NDArray[np.float32]

SIDES: tuple[Which, Which] = ("users", "items")


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """The users, or the items, and how they stand to the clusters."""

    nodes: Vocab
    events_N: npt.NDArray[np.int64]
    """Edges of the target behaviour in train."""
    strength_NK: Strengths
    """Of users: preferences (P^O of CCBIE); of items: soft assignments (T^V of CCBIE)."""

    @property
    def group_N(self) -> npt.NDArray[np.int32]:
        """The strongest cluster of each node, the first of several; ``UNKNOWN`` for a node without an event."""
        return np.where(self.events_N > 0, self.strength_NK.argmax(1), UNKNOWN).astype(np.int32)

    def frame(self, which: Which) -> pl.DataFrame:
        """user_id or item_id, events, group, strengths; in the order of numbers."""
        strengths = pl.Series(self.strength_NK, dtype=pl.Array(pl.Float32, self.strength_NK.shape[1]))
        columns = {"events": self.events_N, "group": self.group_N, "strengths": strengths}
        return pl.DataFrame({_id(which): self.nodes.ids, **columns})


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """The clusters of a fitted model."""

    users: Side
    items: Side
    until: int | None
    """Time of the last event that was learned from, in the log's unit; None where that is not known."""

    @property
    def n(self) -> int:
        """K, the number of clusters."""
        return int(self.items.strength_NK.shape[1])

    @classmethod
    def of(cls, model: Model, graph: Graph, users: Vocab, items: Vocab, until: int | None = None) -> Self | None:
        """Those of ``model``, fitted on ``graph``; None where it has no clusters."""
        with torch.no_grad():
            found = model.clusters()
        if found is None:
            return None
        events_U, events_I = graph.target.degrees(graph.n_items)
        return cls(_side(users, events_U, found[0]), _side(items, events_I, found[1]), until)

    def write(self, folder: Path) -> None:
        """Write both files to ``folder``."""
        for which in SIDES:
            self.write_side(which, folder / file_name(which))

    def write_side(self, which: Which, path: Path) -> None:
        """Write the file of one side to ``path``, whole or not at all."""
        kept = {} if self.until is None else {UNTIL: str(self.until)}
        side: Side = getattr(self, which)
        files.write(path, lambda temporary: side.frame(which).write_parquet(temporary, metadata=kept))

    @classmethod
    def read(cls, folder: Path, ids: Mapping[Which, Vocab] | None = None) -> Self | None:
        """What ``write`` wrote to ``folder``; None where it wrote nothing.

        ``ids``: the vocabularies that the rows must stand in the order of. Raises DataError for a damaged file, and for
        other ids, or another order of them.
        """
        if not any((folder / file_name(which)).is_file() for which in SIDES):
            return None
        (users, _), (items, until) = (_read_side(which, folder / file_name(which)) for which in SIDES)
        for which, side in zip(SIDES, (users, items), strict=True):
            if ids is not None and side.nodes != ids[which]:
                raise DataError(f"{folder / file_name(which)} holds other {which} than the model, or in another order")
        if users.strength_NK.shape[1] != items.strength_NK.shape[1]:
            raise DataError(f"{folder}: users and items have not the same clusters")
        return cls(users, items, until)


def clusters_of(model: Model, parts: Split) -> Clusters | None:
    """The clusters of ``model``, fitted on ``parts.train``; None where it has none."""
    return Clusters.of(model, from_split(parts), parts.users, parts.items, end_of(parts.train))


def end_of(log: Interactions) -> int | None:
    """Time of the last event of ``log``; None for a log without times."""
    return None if log.time is None or not len(log) else int(log.time.max())


def file_name(which: Which) -> str:
    """The file of one side."""
    return f"clusters-{which}.parquet"


def _id(which: Which) -> str:
    return {"users": "user_id", "items": "item_id"}[which]


def _side(nodes: Vocab, events_N: torch.Tensor, strength_NK: torch.Tensor) -> Side:
    assert strength_NK.shape[:1] == (len(nodes),), "a row per node"
    return Side(nodes, events_N.numpy(), strength_NK.detach().cpu().float().numpy())


def _read_side(which: Which, path: Path) -> tuple[Side, int | None]:
    """One side, and the time of the last event that was learned from."""
    try:
        frame, kept = pl.read_parquet(path), pl.read_parquet_metadata(path)
        strengths = frame["strengths"]
        if not isinstance(strengths.dtype, pl.Array) or strengths.null_count():
            raise ValueError(f"its strengths are {strengths.dtype}, not as many numbers in every row")
        strength_NK = np.ascontiguousarray(strengths.to_numpy(), dtype=np.float32)
        side = Side(Vocab(frame[_id(which)]), frame["events"].to_numpy().astype(np.int64), strength_NK)
        return side, int(kept[UNTIL]) if UNTIL in kept else None
    except (OSError, ValueError, DataError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read as clusters: {str(error).splitlines()[0]}") from error
