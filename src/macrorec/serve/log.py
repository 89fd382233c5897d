"""What is a log of events? An order of entries; each is durable before it is acknowledged, and counted once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.errors import DataError, ResourceError
from macrorec.serve.events import Entry, Event, Forgotten, ItemAnnounced

Durability = Literal["fsync", "interval", "none"]
"""``fsync``: on disk before it is acknowledged. ``interval``: flushed every so many milliseconds. ``none``: when the
operating system does. A killed process loses nothing under any of them; a machine that loses power does."""

FRAME = {
    "position": pl.Int64,
    "user_id": pl.String,
    "item_id": pl.String,
    "behavior": pl.String,
    "timestamp": pl.Int64,
    "weight": pl.Float64,
    "label": pl.Float64,
}
"""Columns of ``Batch.events``."""


class LogFull(ResourceError):
    """The disk is full: nothing of what was given was kept. Reading goes on; writing does when there is space."""


class LogUnavailable(ResourceError):
    """The log cannot be written, or not be reached: nothing of what was given was kept, as far as is known."""


class LogDamaged(DataError):
    """What is on disk is not what was written. The message says what is lost, and what to do."""


class LogCompacted(DataError):
    """Entries were asked for that are gone, for a snapshot holds what they did."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of some entries."""

    position: int
    """Of the last that was added, or, if none was, of the log's last: all that was given is there up to here."""
    added: int
    duplicates: int
    """Those that were there before, by key or by source and offset."""


@dataclass(frozen=True, slots=True)
class LogHealth:
    """How a log is."""

    durability: str
    loss_window_seconds: float | None
    """Events acknowledged so long before a loss of power may be lost; None: not known."""
    position: int
    """Of the last entry."""
    queue: int
    """Entries that wait to be written."""
    bytes: int
    """On disk."""
    last_error: str | None
    """Of the last write that failed; None after one that did not."""
    compacted: int = 0
    """Entries up to here are gone."""
    report: tuple[str, ...] = ()
    """What was found, and mended, when the log was opened."""


class Batch:
    """Entries in order, with their positions: as objects, or as columns, whichever is asked for."""

    def __init__(
        self,
        positions: npt.NDArray[np.int64] | Sequence[int],
        entries: Sequence[Entry] | None = None,
        *,
        events: pl.DataFrame | None = None,
        others: Sequence[tuple[int, ItemAnnounced | Forgotten]] = (),
    ) -> None:
        """``positions``, shape (n,), of all entries, rising; either ``entries``, or ``events`` and ``others``.

        ``events``: the columns of ``FRAME``. Times are filled in.
        """
        self.positions: npt.NDArray[np.int64] = np.asarray(positions, dtype=np.int64)
        if entries is not None:
            assert len(entries) == len(self.positions)
            self.entries = entries
        else:
            assert events is not None and len(events) + len(others) == len(self.positions)
            self.events = events
            self.others = others

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def last(self) -> int:
        """The position of the last entry; 0 of an empty batch."""
        return int(self.positions[-1]) if len(self.positions) else 0

    @cached_property
    def entries(self) -> Sequence[Entry]:
        """All entries; an event's key, source and offset are not kept with it."""
        entries: list[Entry] = [Event(*row) for row in self.events.drop("position").iter_rows()]
        if self.others:
            place = np.searchsorted(self.positions, [position for position, _ in self.others])
            for at, (_, other) in zip(place.tolist(), self.others, strict=True):
                entries.insert(at, other)
        return entries

    @cached_property
    def events(self) -> pl.DataFrame:
        """The events, with the columns of ``FRAME``; in order."""
        rows = [
            (position, e.user_id, e.item_id, e.behavior, e.timestamp, e.weight, e.label)
            for position, e in zip(self.positions.tolist(), self.entries, strict=True)
            if type(e) is Event
        ]
        return pl.DataFrame(rows, schema=FRAME, orient="row")

    @cached_property
    def others(self) -> Sequence[tuple[int, ItemAnnounced | Forgotten]]:
        """(position, entry) of what is no event; in order."""
        pairs = zip(self.positions.tolist(), self.entries, strict=True)
        return [(position, entry) for position, entry in pairs if not isinstance(entry, Event)]


@runtime_checkable
class Log(Protocol):
    """An order of entries. Positions rise from 1, are never used twice, and may have gaps. Safe for many threads."""

    @property
    def secret(self) -> bytes:
        """The key of ``events.hidden``: the same for the log's whole life."""

    def append(self, entries: Sequence[Entry]) -> Appended:
        """Add ``entries``, all or none but duplicates; blocks until they are as durable as the policy says, and every
        subscriber has them.

        Callers at the same time share one flush to disk. Raises LogFull or LogUnavailable; later calls may succeed.
        """

    def submit(self, entries: Sequence[Entry]) -> Future[Appended]:
        """``append`` without waiting; it raises itself what is known at once, such as a queue that is full."""

    def read(self, after: int, limit: int) -> Batch:
        """At most ``limit`` entries with positions beyond ``after``. Raises LogCompacted, LogDamaged."""

    def last(self) -> int:
        """The position of the last entry ever added, 0 if there was none."""

    def subscribe(self, apply: Callable[[Batch], None], *, after: int | None = None) -> Callable[[], None]:
        """Have ``apply`` called with all entries beyond ``after``, by default those to come; each once, in order.

        It is called by one thread of the log's, after entries are durable and before they are acknowledged; this
        returns when it has had all that is there. What is returned ends the subscription. ``apply`` must not call what
        waits for that thread: ``append``, ``forget``, ``compact``, ``subscribe``.
        """

    def forget(self, user_id: str) -> int:
        """Remove a user's events from the log, physically, and append ``Forgotten``; how many events went.

        Their keys and offsets stay known, so that sending them again adds nothing.
        """

    def compact(self, before: int) -> None:
        """Drop entries at positions below ``before``, which a snapshot covers; their keys and offsets stay known.

        Some below ``before`` may stay, where they lie together with others.
        """

    def health(self) -> LogHealth:
        """How the log is; never blocks for long."""

    def close(self) -> None:
        """Write what waits, and let go of the file or connection."""
