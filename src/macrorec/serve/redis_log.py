"""How do many processes share one log? In a stream of a Redis-compatible server, which each of them follows."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, get_args

import numpy as np

from macrorec.errors import ConfigError, UserError
from macrorec.serve import redis_entries
from macrorec.serve.events import Entry, Forgotten, hidden
from macrorec.serve.log import (
    Appended,
    Batch,
    Durability,
    Log,
    LogCompacted,
    LogDamaged,
    LogFull,
    LogHealth,
    LogUnavailable,
)
from macrorec.serve.redis_entries import Given
from macrorec.serve.redis_scripts import JUMP
from macrorec.serve.redis_store import TOLD, Store

_MOST = 2_000
"""Entries that are added together, and what one caller gives more: the server does nothing else meanwhile."""
_PAGE = 2_000
"""Entries that are read together, and entries of a user that are removed together."""
_PAGES = 50
"""Pages at a time for who subscribes late."""
_TICK, _DOWN_TICK, _TEND = 1.0, 0.2, 5.0
"""Seconds: between looks at a server that says nothing, at one that is down, and at its settings and files."""

T = TypeVar("T")
logger = logging.getLogger(__name__)


class RedisLog(Log):
    """One process's part in a log that many share: one thread adds and follows, another hears of news."""

    def __init__(
        self,
        url: str,
        durability: Durability = "fsync",
        *,
        name: str = "macrorec",
        remember: int = 1_000_000,
        most_waiting: int = 200_000,
        patience: float = 1.0,
        on_fatal: Callable[[], None] = lambda: None,
    ) -> None:
        """Open the log that is called ``name`` in the server at ``url``, or begin it.

        ``durability``: what the server must promise at least; it is the server's settings that decide.
        ``remember``: so many keys at least stay known; ``most_waiting``: entries in the queue, beyond which more are
        refused; ``patience``: seconds for which an addition is tried again when the server does not answer;
        ``on_fatal``: called once when this process cannot go on, and has to be started again. Raises
        ConfigError, LogUnavailable, LogDamaged.
        """
        if durability not in get_args(Durability):
            raise ConfigError(f"durability is {durability!r}; allowed are {', '.join(get_args(Durability))}")
        self.durability = durability
        self._store = Store(url, durability, name, patience)
        self.where = self._store.where
        self._remember, self._most_waiting = remember, most_waiting
        self._subscribers: list[Callable[[Batch], None]] = []
        self._on_fatal = on_fatal
        self._listeners: list[Callable[[], None]] = []
        self._waiting: deque[tuple[Given | Callable[[], Any], Future[Any]]] = deque()
        self._n_waiting = 0
        self._change = threading.Condition()
        self._news = False
        self._tended = time.monotonic()
        self._error: str | None = None
        self._threads = [
            threading.Thread(target=self._loop, name="event-log", daemon=True),
            threading.Thread(target=self._hear, name="event-log-news", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def secret(self) -> bytes:
        return self._store.secret

    @property
    def fatal(self) -> str | None:
        """Why this process cannot go on with the log, and has to be started again; None while it can."""
        return self._store.fatal

    # --- for callers ---

    def append(self, entries: Sequence[Entry]) -> Appended:
        return self.submit(entries).result()

    def submit(self, entries: Sequence[Entry]) -> Future[Appended]:
        given = redis_entries.given(entries, self._store.secret)
        future: Future[Appended] = Future()
        self._put(given, future, len(entries))
        return future

    def read(self, after: int, limit: int) -> Batch:
        parts: list[Batch] = []
        left = limit
        while left > 0:
            batch, last, n = self._store.page(self._store.reader, after, min(left, _PAGE))
            parts.append(batch)
            left -= len(batch)
            if not n or batch.last >= last:
                break
            after = batch.last
        return _joined(parts)

    def last(self) -> int:
        return self._store.applied

    def subscribe(self, apply: Callable[[Batch], None], *, after: int | None = None) -> Callable[[], None]:
        def begin() -> None:
            position = self._store.applied if after is None else after
            if position > self._store.applied or position // JUMP < self._store.applied // JUMP:
                # The snapshot may know of entries that the server has lost.
                self._store.steadily(lambda: self._store.open(position))
                self._store.steadily(self._catch_up)
            while position < self._store.applied:
                batch = self._pages(position, self._store.applied)
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
        user = hidden(user_id, self._store.secret)
        body, checksum = redis_entries.plain(Forgotten(user, int(time.time())))

        def remove() -> int:
            removed, done = 0, False
            while not done:
                n, done = self._store.forget_some(user, _PAGE, checksum, body)
                removed += n
            self._store.steadily(self._catch_up)
            self._store.rewrite = True
            self._store.steadily(self._store.tend)
            return removed

        return self._call(remove)

    def compact(self, before: int) -> None:
        self._call(lambda: self._store.compact(before - 1))
        self._store.sweep()

    def health(self) -> LogHealth:
        return LogHealth(
            self._store.promise.durability,
            self._store.promise.loss_window_seconds,
            self._store.applied,
            self._n_waiting,
            self._store.bytes,
            self._store.fatal or self._store.error or self._error,
            self._store.compacted,
            tuple(self._store.report),
        )

    def tell(self, text: str) -> None:
        """Write something down for all processes, in place of what was written before."""
        self._store.tell_all(text)

    def told(self) -> str | None:
        """What was written down for all."""
        return self._store.told_to_all()

    def heed(self, listen: Callable[[], None]) -> None:
        """Have ``listen`` called when that changes, or may have; it must not wait for anything."""
        self._listeners = [*self._listeners, listen]

    def close(self) -> None:
        with self._change:
            if self._store.closed:
                return
            self._store.closed = True
            self._change.notify()
        if not self._store.down:
            with suppress(LogUnavailable):
                self._store.wake()
        for thread in self._threads:
            thread.join()
        self._store.close()

    def __enter__(self) -> RedisLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the thread ---

    def _put(self, work: Given | Callable[[], Any], future: Future[Any], n: int) -> None:
        with self._change:
            if self._store.closed:
                raise LogUnavailable(f"the log in {self.where} is closed")
            if self._store.fatal is not None:
                raise LogUnavailable(self._store.fatal)
            if self._store.down:
                raise LogUnavailable(self._store.error or f"the store {self.where} does not answer")
            if self._n_waiting and self._n_waiting + n > self._most_waiting:
                raise LogUnavailable(f"{self._n_waiting:,} entries wait to be written to the log already; try again")
            self._waiting.append((work, future))
            self._n_waiting += n
            self._change.notify()

    def _call(self, function: Callable[[], T]) -> T:
        """Have the log's thread do something, in its turn."""
        future: Future[T] = Future()
        self._put(function, future, 0)
        return future.result()

    def _loop(self) -> None:
        told = False
        while True:
            with self._change:
                if not self._waiting and not self._news and not self._store.closed:
                    self._change.wait(_DOWN_TICK if self._store.down else _TICK)
                group = self._taken()
                self._news = False
                if not group and self._store.closed:
                    return
            if group:
                self._do(group)
            else:
                with suppress(LogUnavailable, LogFull, LogDamaged, LogCompacted):
                    self._store.steadily(self._catch_up)
            if self._store.fatal is not None and not told:
                told = True
                logger.error("%s", self._store.fatal)
                self._on_fatal()
            if time.monotonic() > self._tended + _TEND and not self._store.down:
                self._tended = time.monotonic()
                with suppress(LogUnavailable, LogFull, LogDamaged):
                    self._store.steadily(self._store.tend)

    def _taken(self) -> list[tuple[Given | Callable[[], Any], Future[Any]]]:
        """What is done next: one call, or entries of many callers."""
        group: list[tuple[Given | Callable[[], Any], Future[Any]]] = []
        size = 0
        while self._waiting:
            work, future = self._waiting[0]
            n = len(work.rows) if isinstance(work, Given) else 0
            if group and (size + n > _MOST or not isinstance(work, Given) or not isinstance(group[0][0], Given)):
                break
            self._waiting.popleft()
            size += n
            self._n_waiting -= n
            if future.set_running_or_notify_cancel():
                group.append((work, future))
        return group

    def _do(self, group: list[tuple[Given | Callable[[], Any], Future[Any]]]) -> None:
        work, future = group[0]
        try:
            if not isinstance(work, Given):
                future.set_result(work())
                return
            given = [one for one, _ in group if isinstance(one, Given)]
            added = self._add(given)
        except BaseException as error:
            self._failed(error)
            for _, future in group:
                future.set_exception(error)
            return
        for one, n, (_, future) in zip(given, added, group, strict=True):
            future.set_result(Appended(self._store.applied, n, len(one.entries) - n))

    def _add(self, given: Sequence[Given]) -> list[int]:
        """Add entries, and apply all up to them; how many of each caller's were new."""
        rows = [row for one in given for row in one.rows]
        before, last, mask = self._store.add(rows, self._remember)
        self._store.steadily(lambda: self._catch_up(before))
        self._error = None
        entries = [entry for one in given for entry in one.entries]
        fresh = [entry for entry, digit in zip(entries, mask, strict=True) if digit == "1"]
        if fresh:
            self._publish(Batch(range(before + 1, last + 1), fresh))
        added, at = [], 0
        for one in given:
            added.append(mask.count("1", at, at + len(one.rows)))
            at += len(one.rows)
        return added

    def _catch_up(self, until: int | None = None) -> None:
        """Apply what is in the log beyond what was applied, up to a position."""
        while until is None or self._store.applied < until:
            try:
                batch, last, n = self._page(self._store.applied, until)
            except LogCompacted as gone:
                self._store.fatal = f"this process fell behind, and has to be started again: {gone}"
                raise
            if len(batch):
                self._publish(batch)
            if n == len(batch) and n < _PAGE:  # what is missing up to the end was removed
                self._store.applied = max(self._store.applied, last if until is None else until)
                return
            if n > len(batch):
                assert until is not None
                self._store.applied = until

    def _page(self, after: int, until: int | None) -> tuple[Batch, int, int]:
        return self._store.page(self._store.client, after, _PAGE, until)

    def _pages(self, after: int, until: int) -> Batch:
        """Many pages at once, for who comes late."""
        parts: list[Batch] = []
        while len(parts) < _PAGES:
            batch = self._store.steadily(partial(self._page, after, until))[0]
            parts.append(batch)
            if not len(batch):
                break
            after = batch.last
        return _joined(parts)

    def _publish(self, batch: Batch) -> None:
        """Tell what is durable now."""
        for apply in self._subscribers:
            try:
                apply(batch)
            except Exception as error:  # the entries are in the log; whoever applies them has to make it good
                logger.exception(
                    "entries %d to %d are durable, but could not be applied", batch.positions[0], batch.last
                )
                self._error = f"entries up to {batch.last} could not be applied: {error!r}"
        self._store.applied = batch.last

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, LogUnavailable):  # which the store knows itself
            self._error = str(error)
        if not isinstance(error, UserError):
            logger.error("the event log failed", exc_info=error)

    def _hear(self) -> None:
        """Wake the other thread when somebody added entries."""
        client = self._store.server.client()
        while not self._store.closed:
            with suppress(LogUnavailable, LogFull, LogDamaged):
                self._store.server.ask(lambda: self._listen(client))
            if not self._store.closed:
                time.sleep(_DOWN_TICK)
        client.close()

    def _listen(self, client: Any) -> None:
        with client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(self._store.keys[0])
            self._wake()  # for what came before we listened
            self._heard()
            while not self._store.closed:
                message = channel.get_message(timeout=_DOWN_TICK)
                if message is not None and message["data"] == TOLD:
                    self._heard()
                elif message is not None and int(message["data"]) > self._store.applied:
                    self._wake()

    def _heard(self) -> None:
        for listen in self._listeners:
            listen()

    def _wake(self) -> None:
        with self._change:
            self._news = True
            self._change.notify()


def _joined(parts: Sequence[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    entries = [entry for part in parts for entry in part.entries]
    return Batch(np.concatenate([np.empty(0, np.int64), *(part.positions for part in parts)]), entries)
