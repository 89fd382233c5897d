"""How do all events come into memory, stay there, and leave? Log to ledger to states; snapshots; who is forgotten.

One thread of the log's appends. Whoever needs the ledger to stand still takes ``lock``, for moments only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from macrorec.errors import DataError, UserError
from macrorec.serve import snapshots
from macrorec.serve.events import Forgotten, hidden
from macrorec.serve.idtable import IdTable
from macrorec.serve.ledger import Ledger
from macrorec.serve.log import Batch, Log

logger = logging.getLogger(__name__)

EVERY_ENTRIES = 500_000
"""Entries after which a snapshot is written in the background."""
EVERY_SECONDS = 900.0
"""Seconds after which one is, if there is anything new."""
_LOOK = 1.0
"""Seconds between two looks."""


class Memory:
    """The ledger of a log, its snapshots, and whoever follows it."""

    def __init__(self, log: Log, folder: str | Path | None, follow: Callable[[], None], forget: Callable[[str], None]):
        """The newest snapshot in ``folder``, and what the log has beyond it.

        After new rows ``follow`` is called, after a user has left ``forget`` with the id, both with ``lock`` held.
        Raises DataError for snapshots that are all damaged, or newer than the log.
        """
        self.log, self.lock = log, threading.Lock()
        self._folder = None if folder is None else Path(folder)
        self._follow, self._forget = follow, forget
        self._writing = threading.Lock()
        self._leaving: dict[str, str] = {}
        self._gone: dict[str, int] = {}
        self._left_at = 0
        """Position of the last removal: snapshots before it hold a user who has left."""
        self.removals = 0
        """How many users have left since the start."""
        found, self._found = None, 0
        if self._folder is not None:
            with snapshots.alone(self._folder):
                found = snapshots.latest(self._folder)
                self._found = max(snapshots.positions(self._folder), default=0)
        self.skipped: tuple[str, ...] = () if found is None else found.skipped
        for line in self.skipped:
            logger.warning("a snapshot is skipped: %s", line)
        self.ledger = Ledger() if found is None else Ledger.restore(found.tensors, found.frames, found.meta)
        self.written = 0 if found is None else found.position
        """Position of the newest snapshot."""
        self.written_at = time.time() if found is None else self._time_of(found.position)
        if self.ledger.position > log.last():
            raise DataError(
                f"the snapshot in {self._folder} is of position {self.ledger.position}, and the log ends at "
                f"{log.last()}: it is not of this log; put the log back, or remove the snapshots"
            )
        self._stop = threading.Event()
        self._unsubscribe = log.subscribe(self._apply, after=self.ledger.position)
        self._thread = threading.Thread(target=self._keep, name="snapshots", daemon=True)
        if self._folder is not None:
            self._thread.start()

    def forget(self, user_id: str) -> int:
        """Remove a user from log, ledger, states and snapshots; how many events went. Idempotent."""
        sign = hidden(user_id, self.log.secret)
        self._leaving[sign] = user_id
        try:
            rows = self.log.forget(user_id)
        finally:
            self._leaving.pop(sign, None)
            gone = self._gone.pop(sign, 0)
        rows = max(rows, gone)  # of those before the log's last compaction the ledger alone knows
        if self._folder is not None:
            self.snapshot()
        return rows

    def snapshot(self) -> int:
        """Write a snapshot, and let the log drop what all snapshots cover; its position.

        Raises UserError where there is no folder for it, or the disk refuses.
        """
        if self._folder is None:
            raise UserError("there is no folder for snapshots: give one with --data")
        with self._writing, snapshots.alone(self._folder):
            with self.lock:
                mark, left_at = self.ledger.mark(), self._left_at
            position = mark.position
            there = snapshots.positions(self._folder)
            if self._by_another(there) and there[-1] >= position and there[0] >= left_at:
                self._see(there[-1])
                return self.written
            snapshots.write(self._folder, position, *self.ledger.snapshot(mark))
            if any(old < left_at for old in there):
                snapshots.discard(self._folder, position)
            self._see(position)
            self.log.compact(snapshots.positions(self._folder)[0] + 1)
            return position

    def close(self) -> None:
        """Follow the log no more."""
        self._stop.set()
        self._unsubscribe()
        if self._thread.ident is not None:
            self._thread.join()

    def told(self) -> dict[str, Any]:
        """For health and metrics."""
        with_folder = self._folder is not None
        return {
            "position": self.written if with_folder else None,
            "age_seconds": time.time() - self.written_at if with_folder else None,
            "skipped": list(self.skipped),
        }

    def _apply(self, batch: Batch) -> None:
        """Take in what the log has made durable; called by its thread."""
        with self.lock:
            for part in parts(batch):
                for removal in self.ledger.append(part):
                    self._remove(removal)
                self._follow()

    def _remove(self, removal: Forgotten) -> None:
        """Somebody has left, by this process or another."""
        self.removals += 1
        self._left_at = self.ledger.position
        user_id = self._leaving.get(removal.user) or self._who(removal.user)
        if user_id is not None:
            n = self.ledger.forget(user_id)
            if removal.user in self._leaving:
                self._gone[removal.user] = n
            self._forget(user_id)

    def _who(self, sign: str) -> str | None:
        """The id that a hash stands for, if the ledger has it."""
        return who(self.ledger.users, sign, self.log.secret)

    def _keep(self) -> None:
        """Write snapshots now and then, until the end."""
        assert self._folder is not None
        while not self._stop.wait(_LOOK):
            there = snapshots.positions(self._folder)
            if self._by_another(there):
                self._see(there[-1])
            new = self.ledger.position - self.written
            late = time.time() - self.written_at > EVERY_SECONDS
            if new >= EVERY_ENTRIES or (new > 0 and late) or any(old < self._left_at for old in there):
                try:
                    self.snapshot()
                except Exception as error:  # the next look tries again; what there is stays
                    logger.warning("no snapshot could be written: %s", error)
                    self.written_at = time.time()
                    self._stop.wait(30 * _LOOK)

    def _by_another(self, there: Sequence[int]) -> bool:
        """Whether another process, which shares the log, was quicker to write a snapshot."""
        return bool(there) and there[-1] > max(self.written, self._found)

    def _see(self, position: int) -> None:
        """There is a snapshot of that position, by this process or another."""
        self.written, self.written_at = position, self._time_of(position)

    def _time_of(self, position: int) -> float:
        assert self._folder is not None
        try:
            return (self._folder / f"snapshot-{position}").stat().st_mtime
        except FileNotFoundError:  # another process has written a newer one meanwhile
            return time.time()


def parts(batch: Batch) -> Iterator[Batch]:
    """``batch`` cut behind every removal: what came before a removal goes with it, what comes after does not."""
    cuts = [position for position, entry in batch.others if isinstance(entry, Forgotten)] if _has_others(batch) else []
    if not cuts or cuts == [batch.last]:
        yield batch
        return
    first = 0
    for last in [*cuts, batch.last]:
        chosen = (batch.positions > first) & (batch.positions <= last)
        if chosen.any():
            events = batch.events.filter(pl.col("position").is_between(first + 1, last))
            others = [(position, entry) for position, entry in batch.others if first < position <= last]
            yield Batch(batch.positions[chosen], events=events, others=others)
        first = last


def who(users: IdTable, sign: str, secret: bytes) -> str | None:
    """The id among ``users`` that ``hidden`` makes ``sign`` of."""
    return next((one for one in users.series().drop_nulls() if hidden(one, secret) == sign), None)


def _has_others(batch: Batch) -> bool:
    """Whether there is anything but events; without making columns of entries."""
    if "entries" in batch.__dict__:
        return any(isinstance(entry, Forgotten) for entry in batch.entries)
    return bool(batch.others)
