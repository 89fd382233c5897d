"""What has happened since the first event of the log, in columns? The log's memory: small, append-only, of no model.

Users, items and behaviours have numbers of the ledger's own, in order of appearance, so that any model's state can be
made from it, and a snapshot serves every model. Rows never change, but for those of a user who is forgotten: a snapshot
is a prefix of the columns, taken without holding up whoever appends. Shape letters: E rows, L numbers of the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from macrorec.serve.events import Event, Forgotten, ItemAnnounced
from macrorec.serve.idtable import IdTable
from macrorec.serve.log import Batch

Array = npt.NDArray[Any]

FEW = 1 << 10
"""Entries that are taken in one by one; more of them by columns."""
CHUNK = 1 << 18
"""Rows of one piece of the columns: they grow by pieces, and nothing is ever copied."""


class Rows(NamedTuple):
    """Events, by numbers of the ledger."""

    user_E: Array
    """int32; -1 for a user who was forgotten."""
    item_E: Array
    """int32."""
    behavior_E: Array
    """int8, index into ``Ledger.behaviors``."""
    time_E: Array
    """Unix seconds, int64."""
    weight_E: Array
    """float32."""
    label_E: Array
    """float32, NaN where there is none."""
    position_E: Array
    """In the log, int64."""


KINDS = Rows(np.int32, np.int32, np.int8, np.int64, np.float32, np.float32, np.int64)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Announcement:
    """An item that was announced, before the event of number ``row``."""

    item: int
    category: str | None
    title: str | None
    row: int


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a ledger had come: a prefix of it, which does not change, but for who is forgotten."""

    rows: int
    users: int
    items: int
    announced: int
    behaviors: tuple[str, ...]
    forgotten: tuple[str, ...]
    position: int


class Ledger:
    """All events, announcements and removals up to a position of the log. One thread appends, others may read rows."""

    def __init__(self) -> None:
        self.users, self.items = IdTable(), IdTable()
        self.behaviors: list[str] = []
        self.announced: list[Announcement] = []
        self.forgotten: set[str] = set()
        """Hashes of ids."""
        self.position = 0
        """Of the last entry of the log that is in here."""
        self._chunks: list[Rows] = []
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def append(self, batch: Batch) -> list[Forgotten]:
        """Take in entries of the log; returns the removals among them, whose users the caller has to ``forget``."""
        before = self._n
        if len(batch) <= FEW:
            rows_before = [0, *accumulate(type(entry) is Event for entry in batch.entries)]
            self._fill(self._of_entries(batch))
            others = [
                (row, entry) for row, entry in zip(rows_before, batch.entries, strict=False) if type(entry) is not Event
            ]
        else:
            self._fill(self._of_frame(batch.events))
            place = batch.events["position"].to_numpy().searchsorted([position for position, _ in batch.others])
            others = [(row, entry) for row, (_, entry) in zip(place.tolist(), batch.others, strict=True)]
        removals = []
        for row, entry in others:
            if isinstance(entry, ItemAnnounced):
                item = int(self.items.add([entry.item_id])[0])
                self.announced.append(Announcement(item, entry.category, entry.title, before + row))
            elif isinstance(entry, Forgotten):
                self.forgotten.add(entry.user)
                removals.append(entry)
        self.position = max(self.position, batch.last)
        return removals

    def rows(self, first: int, last: int) -> Rows:
        """The rows ``first : last``; views where they lie in one piece."""
        pieces = list(self._pieces(first, last))
        if len(pieces) == 1:
            return pieces[0]
        return Rows(*(np.concatenate(columns) for columns in zip(_none(), *pieces, strict=True)))

    def row_after(self, position: int) -> int:
        """The number of the first row beyond a position of the log."""
        return int(sum(piece.position_E.searchsorted(position, side="right") for piece in self._pieces(0, self._n)))

    def rows_of_item(self, item: int, last: int) -> Array:
        """Numbers of the rows before ``last`` of an item."""
        found = [np.flatnonzero(piece.item_E == item) + n * CHUNK for n, piece in enumerate(self._pieces(0, last))]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def forget(self, user_id: str) -> int:
        """Remove a user's rows and id; how many rows they were."""
        user = self.users.number(user_id)
        if user < 0:
            return 0
        n = 0
        for piece in self._pieces(0, self._n):
            own = piece.user_E == user
            n += int(np.count_nonzero(own))
            piece.user_E[own] = -1
        self.users.withdraw(user)
        return n

    def mark(self) -> Mark:
        """Where things stand; to be called by the thread that appends, or while none does."""
        counts = len(self.users), len(self.items), len(self.announced)
        return Mark(self._n, *counts, tuple(self.behaviors), tuple(sorted(self.forgotten)), self.position)

    def snapshot(self, mark: Mark | None = None) -> tuple[dict[str, Tensor], dict[str, pl.DataFrame], dict[str, Any]]:
        """All up to ``mark``, or to now, as it stands on disk; others may append meanwhile."""
        mark = mark or self.mark()
        rows = self.rows(0, mark.rows)
        tensors = {name: torch.from_numpy(column) for name, column in rows._asdict().items()}
        announced = [(one.item, one.category, one.title, one.row) for one in self.announced[: mark.announced]]
        schema = {"item": pl.Int64, "category": pl.String, "title": pl.String, "row": pl.Int64}
        frames = {
            "users": pl.DataFrame({"id": self.users.series(mark.users)}),
            "items": pl.DataFrame({"id": self.items.series(mark.items)}),
            "announced": pl.DataFrame(announced, schema=schema, orient="row"),
            "forgotten": pl.DataFrame({"user": mark.forgotten}, schema={"user": pl.String}),
        }
        return tensors, frames, {"behaviors": list(mark.behaviors), "position": mark.position}

    @classmethod
    def restore(
        cls, tensors: Mapping[str, Tensor], frames: Mapping[str, pl.DataFrame], meta: Mapping[str, Any]
    ) -> Self:
        """The ledger that ``snapshot`` was taken of."""
        ledger = cls()
        ledger.users, ledger.items = (IdTable.from_series(frames[name]["id"]) for name in ("users", "items"))
        ledger.announced = [Announcement(*row) for row in frames["announced"].iter_rows()]
        ledger.forgotten = set(frames["forgotten"]["user"].to_list())
        ledger.behaviors, ledger.position = list(meta["behaviors"]), int(meta["position"])
        ledger._fill(Rows(*(tensors[name].numpy() for name in Rows._fields)))
        return ledger

    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
        return sum(column.nbytes for chunk in self._chunks for column in chunk)

    def _of_entries(self, batch: Batch) -> Rows:
        """The events of a small batch."""
        pairs = zip(batch.positions.tolist(), batch.entries, strict=True)
        events = [(position, entry) for position, entry in pairs if isinstance(entry, Event)]
        if not events:
            return _none()
        columns = (
            self.users.add([event.user_id for _, event in events]),
            self.items.add([event.item_id for _, event in events]),
            [self._behavior(event.behavior) for _, event in events],
            [event.timestamp or 0 for _, event in events],
            [event.weight for _, event in events],
            [np.nan if event.label is None else event.label for _, event in events],
            [position for position, _ in events],
        )
        return Rows(*(np.asarray(column, kind) for column, kind in zip(columns, KINDS, strict=True)))

    def _of_frame(self, frame: pl.DataFrame) -> Rows:
        """Events in columns."""
        names = frame["behavior"].unique(maintain_order=True).to_list()
        numbers = {name: self._behavior(name) for name in names}
        with ThreadPoolExecutor(1) as beside:
            item_E = beside.submit(self.items.add, frame["item_id"])
            user_E = self.users.add(frame["user_id"])
        columns = (
            user_E,
            item_E.result(),
            frame["behavior"].replace_strict(numbers, return_dtype=pl.Int8).to_numpy(),
            frame["timestamp"].fill_null(0).to_numpy(),
            frame["weight"].to_numpy(),
            frame["label"].fill_null(float("nan")).to_numpy(),
            frame["position"].to_numpy(),
        )
        return Rows(*(column.astype(kind) for column, kind in zip(columns, KINDS, strict=True)))

    def _behavior(self, name: str) -> int:
        if name not in self.behaviors:
            self.behaviors.append(name)
        return self.behaviors.index(name)

    def _fill(self, rows: Rows) -> None:
        done, total = 0, len(rows.user_E)
        while done < total:
            place = self._n % CHUNK
            if not place:
                self._chunks.append(Rows(*(np.zeros(CHUNK, kind) for kind in KINDS)))
            count = min(CHUNK - place, total - done)
            for own, column in zip(self._chunks[-1], rows, strict=True):
                own[place : place + count] = column[done : done + count]
            done += count
            self._n += count

    def _pieces(self, first: int, last: int) -> Iterator[Rows]:
        for number in range(first // CHUNK, -(-last // CHUNK)):
            start = number * CHUNK
            rows = slice(max(first - start, 0), min(last - start, CHUNK))
            yield Rows(*(column[rows] for column in self._chunks[number]))


def _none() -> Rows:
    return Rows(*(np.empty(0, kind) for kind in KINDS))
