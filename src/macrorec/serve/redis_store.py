"""Is the log in the server still the one we know? Calls that are tried again, and what is looked at on the way."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from macrorec.errors import ConfigError
from macrorec.serve import redis_entries, redis_scripts
from macrorec.serve.events import hidden
from macrorec.serve.log import Batch, LogCompacted, LogDamaged, LogUnavailable
from macrorec.serve.redis_server import Promise, Server

_MOST_REPORTS = 20
TOLD = "told"
"""The message that something was written down for all."""

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Store:
    """A log in a server, as one thread of one process knows it. Others may read its fields, and ``page``."""

    def __init__(self, url: str, durability: str, name: str, patience: float) -> None:
        """As ``RedisLog``. Raises ConfigError, LogUnavailable, LogDamaged."""
        self.server = Server(url)
        self.where = self.server.where
        self.board = f"{{{name}}}:told"
        self.keys = redis_scripts.keys(name, os.urandom(8).hex())
        self.secret = b""
        self.applied = 0
        """The position up to which this process knows what is in the log."""
        self.compacted = self.bytes = 0
        self.promise = Promise("unknown", None, "nothing is known yet")
        self.down = self.closed = self.rewrite = False
        """Whether the server is out of reach; nothing is tried any more; its files hold what was removed."""
        self.fatal: str | None = None
        """Why this process cannot go on."""
        self.error: str | None = None
        self.report: list[str] = []
        self.run: str | None = None
        self.client = self.server.client(self._expected)
        self.reader = self.server.client()
        self._wanted, self._patience = durability, patience
        self._ready = False
        self._calls = 0
        try:
            self.steadily(self.tend)
        except BaseException:
            self.close()
            raise

    def add(self, rows: Sequence[Sequence[str]], remember: int) -> tuple[int, int, str]:
        """Add entries, once, however often it is tried: the position before them, the last one, and which are new."""
        self._calls += 1
        packed = msgspec.msgpack.encode(rows)
        before, last, mask = self.steadily(
            lambda: self.script(redis_scripts.ADD, self._calls, self.run, remember, packed)
        )
        return int(before), int(last), mask

    def forget_some(self, user: str, most: int, checksum: str, body: str) -> tuple[int, bool]:
        """Remove some of a user's entries; how many, and whether it was all, and was told."""
        n, position = self.steadily(lambda: self.script(redis_scripts.FORGET, self.run, user, most, checksum, body))
        return int(n), bool(position)

    def compact(self, to: int) -> None:
        """Drop the entries up to a position."""
        self.compacted = int(self.steadily(lambda: self.script(redis_scripts.COMPACT, to)))

    def sweep(self) -> None:
        """Drop the ids of users who have no entry left; little by little, and by any thread."""
        cursor = self.script(redis_scripts.SWEEP, 0, client=self.reader)
        while int(cursor):
            cursor = self.script(redis_scripts.SWEEP, cursor, client=self.reader)

    def page(self, client: Any, after: int, limit: int, until: int | None = None) -> tuple[Batch, int, int]:
        """Entries beyond a position, the last position, and how many entries were looked at.

        Raises LogCompacted, LogDamaged, LogUnavailable.
        """
        last, compacted, told = self.script(redis_scripts.READ, after, limit, client=client)
        self.compacted = max(self.compacted, int(compacted))
        if after < int(compacted):
            raise LogCompacted(
                f"entries up to {compacted} are gone from {self.where}: a snapshot that covers them is needed"
            )
        batch, n = redis_entries.batch(told, int(last) if until is None else until, self.where)
        return batch, int(last), n

    def script(self, script: str, *arguments: Any, client: Any = None) -> Any:
        """Run a script, once."""
        return self.server.call(client or self.client, script, self.keys, _identity(self.secret), *arguments)

    def steadily(self, function: Callable[[], T]) -> T:
        """Do something, again and again while the server is out of reach, as long as patience lasts."""
        until, wait = time.monotonic() + self._patience, 0.01
        while True:
            try:
                if not self._ready:
                    self.open(self.applied)
                result = function()
            except LogUnavailable as error:
                self._ready = False
                if self.down or self.closed or self.fatal or time.monotonic() + wait > until:
                    self.down, self.error = True, str(error)
                    raise
                time.sleep(wait)
                wait = min(2 * wait, 0.2)
            else:
                if self.down:
                    self.down = False
                    self.error = None
                    logger.warning("the store %s answers again", self.where)
                return result

    def open(self, known: int) -> None:
        """Connect, see what the server promises, and whether all up to a known position is still there."""
        self.run = None
        self.client.connection_pool.disconnect()
        self.server.ask(self.client.ping)
        self._look()
        secret = self.secret or os.urandom(16)
        arguments = (self.run, secret.hex(), known if self.secret else 0, redis_scripts.FORMAT)
        kind, told, *counts = self.server.call(
            self.client, redis_scripts.OPEN, self.keys, _identity(secret), *arguments
        )
        if kind != redis_scripts.FORMAT:
            raise LogDamaged(f"the log in {self.where} has the format {kind!r}, not {redis_scripts.FORMAT!r}")
        if self.secret and bytes.fromhex(told) != self.secret:
            self.fatal = f"there is another log in {self.where} now; this process has to be started again"
            raise LogUnavailable(self.fatal)
        last, compacted, stop, live, length = map(int, counts)
        if stop < known:
            lost = f"entries {stop + 1} to {known} were acknowledged, and lost when the server stopped"
            self.tell(f"{lost} ({self.promise.why})")
        self._count(live, length)
        if not self.secret:
            self.secret, self.applied = bytes.fromhex(told), last
        self.compacted = compacted
        self._ready = True

    def tend(self) -> None:
        """Look after the server's settings, files and counts."""
        self._look()
        _, compacted, live, length = self.script(redis_scripts.CHECK)
        self.compacted = int(compacted)
        self._count(int(live), int(length))
        self.bytes = self.server.size(self.client)
        if self.rewrite:
            why = self.server.rewrite(self.client)
            self.rewrite = why == "busy"
            if why not in (None, "busy"):
                self.tell(f"the server's files may hold users who were removed until it writes them anew: {why}")

    def wake(self) -> None:
        """Wake those who listen, of any process; they find nothing new."""
        self.server.ask(lambda: self.reader.publish(self.keys[0], 0))

    def tell_all(self, text: str) -> None:
        """Write something down, and wake those who listen."""

        def write() -> None:
            self.reader.set(self.board, text)
            self.reader.publish(self.keys[0], TOLD)

        self.server.ask(write)

    def told_to_all(self) -> str | None:
        """What was written down."""
        found: str | None = self.server.ask(lambda: self.reader.get(self.board))
        return found

    def tell(self, what: str) -> None:
        """Have health report something, once."""
        if what not in self.report:
            logger.error("%s", what)
            self.report = [*self.report, what][-_MOST_REPORTS:]

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
        self.reader.close()

    def _expected(self, run: str) -> bool:
        """Whether the server is the one that was opened."""
        if self.run is None:
            self.run = run
        return run == self.run

    def _look(self) -> None:
        """Know what the server promises; refuse one that promises less than was asked for."""
        self.promise = promise = self.server.promise(self.client)
        fault = None
        if not promise.covers(self._wanted):
            fault = f"promises {promise.durability} ({promise.why}), not {self._wanted}"
        elif promise.evicts:
            fault = f"may drop the log when its memory is full ({promise.evicts}); set noeviction"
        if fault is not None:
            fault = f"the store {self.where} {fault}"
            raise LogUnavailable(fault) if self.secret else ConfigError(fault)

    def _count(self, live: int, length: int) -> None:
        if live != length:
            what = f"{live - length} entries are missing" if live > length else f"{length - live} entries are not ours"
            self.tell(f"the stream in {self.where} was changed by somebody else: {what}")


def _identity(secret: bytes) -> str:
    """What a log is known by; it does not give the secret away."""
    return hidden("", secret)
