"""How does one process keep its log? In SQLite, by one thread that writes for all and flushes once for many."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar, get_args

from macrorec.errors import ConfigError, UserError
from macrorec.files import told
from macrorec.serve import chunks, sqlite_file
from macrorec.serve.events import Entry, Event, EventError, ItemAnnounced
from macrorec.serve.known import digest
from macrorec.serve.log import Appended, Batch, Durability, Log, LogCompacted, LogDamaged, LogHealth, LogUnavailable
from macrorec.serve.sqlite_writer import Given, Writer

FILE = "log.sqlite"
"""What the log is called in a service's folder."""
_MOST = 20_000
"""Entries that are committed together, and what one caller gives more."""
_PAGE = 100_000
"""Entries at a time for who subscribes late."""
_LONGEST_GATHER = 0.002
"""Seconds."""
_MOST_BEHAVIORS = 60_000

T = TypeVar("T")
logger = logging.getLogger(__name__)


class SqliteLog(Log):
    """A log in one file. One process has it open at a time; a second is refused."""

    def __init__(
        self,
        path: str | Path,
        durability: Durability = "fsync",
        *,
        interval_ms: float = 100.0,
        remember: int = 4_000_000,
        most_waiting: int = 200_000,
        repair: bool = False,
    ) -> None:
        """Open the log at ``path``, or begin it.

        ``interval_ms``: between flushes, of durability ``interval``; ``remember``: so many keys at least stay known;
        ``most_waiting``: entries in the queue, beyond which more are refused; ``repair``: go on without what is
        damaged. Raises LogDamaged, LogUnavailable.
        """
        if durability not in get_args(Durability):
            raise ConfigError(f"durability is {durability!r}; allowed are {', '.join(get_args(Durability))}")
        self.path, self.durability = Path(path), durability
        self._interval = interval_ms / 1000 if durability == "interval" else None
        self._most_waiting = most_waiting
        with told(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = sqlite_file.Lock(self.path)
        try:
            self._writer = Writer(self.path, durability, remember, repair)
            try:
                self._reader = sqlite_file.connect(self.path)
            except BaseException:
                self._writer.close()
                raise
        except BaseException:
            self._lock.free()
            raise
        self._reading = threading.Lock()
        self._last = self._writer.last
        self._secret = self._writer.secret
        self._subscribers: list[Callable[[Batch], None]] = []
        self._waiting: deque[tuple[Given | Callable[[], Any], Future[Any]]] = deque()
        self._n_waiting = 0
        self._change = threading.Condition()
        self._closed = False
        self._last_error: str | None = None
        self._callers, self._wanted, self._took = 0, 1, 0.0
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
        self._thread.start()

    @property
    def secret(self) -> bytes:
        return self._secret

    # --- for callers ---

    def append(self, entries: Sequence[Entry]) -> Appended:
        assert threading.current_thread() is not self._thread, "it would wait for itself"
        return self.submit(entries).result()

    def submit(self, entries: Sequence[Entry]) -> Future[Appended]:
        given = self._given(entries)
        future: Future[Appended] = Future()
        self._put(given, future, len(entries))
        return future

    def read(self, after: int, limit: int) -> Batch:
        compacted = self._writer.compacted
        if after < compacted:
            raise LogCompacted(
                f"entries up to {compacted} are gone from {self.path}: a snapshot that covers them is needed"
            )
        firsts, bodies, size = [], [], 0
        try:
            with self._reading:
                for first, last, body in sqlite_file.read_chunks(self._reader, after):
                    firsts.append(first)
                    bodies.append(body)
                    size += chunks.size(body) - max(0, after - first + 1 if first <= after < last else 0)
                    if size >= limit:
                        break
        except LogDamaged as damaged:
            raise LogDamaged(f"the log {self.path} is damaged: {damaged}") from None
        except sqlite3.Error as error:
            kind = LogDamaged if sqlite_file.damaged(error) else LogUnavailable
            raise kind(f"cannot read the log {self.path}: {error}") from error
        return chunks.unpack(firsts, bodies).beyond(after, limit).batch(self._writer.names)

    def last(self) -> int:
        return self._last

    def subscribe(self, apply: Callable[[Batch], None], *, after: int | None = None) -> Callable[[], None]:
        def begin() -> None:
            position = self._last if after is None else after
            while position < self._last:
                batch = self.read(position, _PAGE)
                if not len(batch):
                    break
                apply(batch)
                position = batch.last
            self._subscribers = [*self._subscribers, apply]

        def end() -> None:
            self._subscribers = [one for one in self._subscribers if one is not apply]

        self._call(begin)
        return end

    def forget(self, user_id: str) -> int:
        user, ranges, scanned = user_id.encode(), [], self._last
        position = self._writer.compacted
        while position < scanned:  # by many short reads, so that none keeps the journal from being emptied
            with self._reading:
                rows = sqlite_file.read_chunks(self._reader, position, position + _PAGE)
                found = [(first, last, user in body) for first, last, body in rows]
            ranges += [(first, last) for first, last, holds in found if holds]
            position = max(found[-1][1], position + _PAGE) if found else position + _PAGE

        def remove() -> int:
            removed, batch = self._writer.forget(user_id, ranges, scanned)
            self._publish(batch)
            with self._reading:
                self._writer.erase_journal()
            return removed

        return self._call(remove)

    def compact(self, before: int) -> None:
        before = min(before, self._last + 1)
        while self._call(lambda: self._writer.compact_step(before)):
            pass
        while self._call(self._writer.vacuum_step):
            pass

    def health(self) -> LogHealth:
        window = {"fsync": 0.0, "interval": self._interval, "none": None}[self.durability]
        size = self.path.stat().st_size if self.path.exists() else 0
        return LogHealth(
            self.durability,
            window,
            self._last,
            self._n_waiting,
            size + self._writer.journal_bytes(),
            self._last_error,
            self._writer.compacted,
            self._writer.report,
        )

    def close(self) -> None:
        with self._change:
            if self._closed:
                return
            self._closed = True
            self._change.notify()
        self._thread.join()
        self._reader.close()
        self._writer.close()
        self._lock.free()

    def __enter__(self) -> SqliteLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _given(self, entries: Sequence[Entry]) -> Given:
        """Entries that can be written without fail, and their keys' digests."""
        keyed = False
        for n, entry in enumerate(entries):
            if isinstance(entry, Event):
                keyed = keyed or entry.key is not None
                if (entry.source is None) != (entry.offset is None):
                    raise EventError("source and offset go together", n)
                sound = _fits(entry.user_id) and _fits(entry.item_id) and _fits(entry.behavior) and _fits(entry.source)
            elif isinstance(entry, ItemAnnounced):
                sound = _fits(entry.item_id) and _fits(entry.category) and _fits(entry.title)
            else:
                sound = _fits(entry.user)
            if not sound:
                raise EventError("an id is too long, or no text that UTF-8 can hold", n)
        new = {entry.behavior for entry in entries if isinstance(entry, Event)}
        if len(new) + len(self._writer.names) > _MOST_BEHAVIORS:
            raise EventError(f"there are more than {_MOST_BEHAVIORS:,} behaviours")
        if not keyed:
            return Given(entries, ())
        keys = [getattr(entry, "key", None) for entry in entries]
        return Given(entries, [None if key is None else digest(key, self._secret) for key in keys])

    # --- the thread ---

    def _put(self, work: Given | Callable[[], Any], future: Future[Any], n: int) -> None:
        with self._change:
            if self._closed:
                raise LogUnavailable(f"the log {self.path} is closed")
            if self._n_waiting and self._n_waiting + n > self._most_waiting:
                raise LogUnavailable(f"{self._n_waiting:,} entries wait to be written to the log already; try again")
            self._waiting.append((work, future))
            self._n_waiting += n
            if len(self._waiting) >= self._wanted:
                self._change.notify()

    def _call(self, function: Callable[[], T]) -> T:
        """Have the writer's thread do something, in its turn."""
        assert threading.current_thread() is not self._thread, "it would wait for itself"
        future: Future[T] = Future()
        self._put(function, future, 0)
        return future.result()

    def _run(self) -> None:
        due: float | None = None
        while True:
            with self._change:
                while not self._waiting and not self._closed:
                    wait = None if due is None else due - time.monotonic()
                    if wait is not None and wait <= 0:
                        break
                    self._change.wait(wait)
                self._gather()
                group = self._taken()
                if not group and self._closed:
                    return
            if group:
                self._do(group)
            if self._interval is not None:
                due = due if due is not None or not group else time.monotonic() + self._interval
                if due is not None and time.monotonic() >= due:
                    self._attempt(self._writer.flush)
                    due = None
            self._attempt(self._writer.tidy)

    def _gather(self) -> None:
        """Wait a little for those who were in the last group: they come back one by one as they hear of it.

        Without it the first to come back would have a flush to itself while the others wait for the next one.
        """
        until = time.monotonic() + min(_LONGEST_GATHER, self._took / 4)
        self._wanted = self._callers
        while 0 < len(self._waiting) < self._wanted and not self._closed:
            left = until - time.monotonic()
            if left <= 0:
                break
            self._change.wait(left)
        self._wanted = 1

    def _taken(self) -> list[tuple[Given | Callable[[], Any], Future[Any]]]:
        """What is done next: one call, or entries of many callers."""
        group: list[tuple[Given | Callable[[], Any], Future[Any]]] = []
        size = 0
        while self._waiting and size < _MOST:
            work, future = self._waiting[0]
            if not isinstance(work, Given) and group:
                break
            self._waiting.popleft()
            if isinstance(work, Given):
                self._n_waiting -= len(work.entries)
                size += len(work.entries)
            if future.set_running_or_notify_cancel():
                group.append((work, future))
            if not isinstance(work, Given):
                break
        return group

    def _do(self, group: list[tuple[Given | Callable[[], Any], Future[Any]]]) -> None:
        work, future = group[0]
        if not isinstance(work, Given):
            try:
                result = work()
            except BaseException as error:
                self._failed(error)
                future.set_exception(error)
            else:
                future.set_result(result)
            return
        given = [one for one, _ in group if isinstance(one, Given)]
        began = time.monotonic()
        try:
            added, batch = self._writer.add(given)
        except BaseException as error:
            self._failed(error)
            for _, future in group:
                future.set_exception(error)
            return
        self._last_error = None
        self._callers, self._took = len(group), time.monotonic() - began
        if batch is not None:
            self._publish(batch)
        for one, n, (_, future) in zip(given, added, group, strict=True):
            future.set_result(Appended(self._last, n, len(one.entries) - n))

    def _publish(self, batch: Batch) -> None:
        """Tell what is durable now."""
        self._last = self._writer.last
        for apply in self._subscribers:
            try:
                apply(batch)
            except Exception as error:  # the entries are in the log; whoever applies them has to make it good
                logger.exception(
                    "entries %d to %d are durable, but could not be applied", batch.positions[0], batch.last
                )
                self._last_error = f"entries up to {batch.last} could not be applied: {error!r}"

    def _attempt(self, function: Callable[[], object]) -> None:
        try:
            function()
        except Exception as error:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        self._last_error = str(error)
        if not isinstance(error, UserError):
            logger.error("the event log failed", exc_info=error)


def _fits(text: str | None) -> bool:
    if text is None or (text.isascii() and len(text) <= chunks.MOST_BYTES):
        return True
    try:
        return len(text.encode()) <= chunks.MOST_BYTES
    except UnicodeEncodeError:
        return False
