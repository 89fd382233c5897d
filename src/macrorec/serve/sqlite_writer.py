"""What does the one thread do that writes a log's file? Each change is one transaction, and known here after it."""

from __future__ import annotations

import os
import resource
import sqlite3
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from macrorec.serve import chunks, sqlite_file
from macrorec.serve.events import Entry, Event, Forgotten, hidden
from macrorec.serve.known import Keys, Offsets, short
from macrorec.serve.log import Batch, Durability, LogDamaged, LogFull, LogUnavailable
from macrorec.serve.sqlite_repair import repaired

SMALL, JOINED = 4096, 256
"""Chunks of fewer positions are joined, so many at a time."""
ROWS = 1 << 16
"""Positions that a joined chunk spans at most, or a few more."""
JOURNAL = 8 << 20
"""Bytes of the write-ahead log beyond which it is carried over."""
STEP = 8 << 20
"""Bytes that are compacted, or vacuumed, before others may write again."""
FEW_KEYS = 1 << 16
_SYNCHRONOUS = {"fsync": "FULL", "interval": "NORMAL", "none": "OFF"}


class Given(NamedTuple):
    """Entries of one caller."""

    entries: Sequence[Entry]
    digests: Sequence[bytes | None]
    """Of their keys; () where none has one."""


class Writer:
    """A log's file, and what must be known to add to it. Belongs to one thread."""

    def __init__(self, path: Path, durability: Durability, remember: int, repair: bool) -> None:
        """Open the file, or make it, and check it. Raises LogDamaged, LogUnavailable."""
        self.path, self.durability, self.remember = path, durability, remember
        self.report: tuple[str, ...] = ()
        self.secret = b""
        self.last = self.compacted = self._floor = 0
        self.names: list[str] = []
        self._broken = False
        self._unflushed = False
        self._journal = -1
        with ExitStack() as opened:
            try:
                self._mark = sqlite_file.Mark(path)
                opened.callback(self._mark.close)
                if repair:
                    self.report = tuple(repaired(path, self._mark.position))
                self._db = self._connected()
                opened.callback(self._db.close)
                self._take(sqlite_file.examine(self._db, SMALL))
            except (sqlite3.DatabaseError, OSError) as error:
                if isinstance(error, sqlite3.Error) and sqlite_file.damaged(error, path):
                    raise LogDamaged(refusal(path, [str(error)])) from error
                raise LogUnavailable(f"cannot open the log {path}: {error}") from error
            opened.pop_all()

    def _connected(self) -> sqlite3.Connection:
        new = not self.path.exists() or not self.path.stat().st_size
        if new and self._mark.position:
            raise LogDamaged(refusal(self.path, [f"it is empty, but had {self._mark.position:,} entries"]))
        db = sqlite_file.connect(self.path, _SYNCHRONOUS[self.durability])
        try:
            if new:
                sqlite_file.create(db, self.path, os.urandom(16))
        except BaseException:
            db.close()
            raise
        return db

    def _take(self, content: sqlite_file.Content) -> None:
        """Know what is in the file, or refuse it."""
        if not self._mark.sound and content.last:
            self.report += ("the mark of the last acknowledged entry was missing or damaged; it is written anew",)
        if self._mark.position > content.last and not content.faults:
            lost = f"entries {content.last + 1} to {self._mark.position} were acknowledged and are missing"
            if self._mark.flushed:
                content.faults.append(lost)
            else:
                self.report += (f"{lost}: the machine stopped before they were flushed to disk",)
                sqlite_file.put_chunk(self._db, content.last + 1, self._mark.position, chunks.bare(content.last + 1))
                content.last = self._mark.position
        if content.faults:
            raise LogDamaged(refusal(self.path, content.faults))
        self.secret, self.last = content.secret, content.last
        self.compacted, self._floor = content.compacted, content.floor
        self.names = content.names
        self._codes = {name: code for code, name in enumerate(content.names)}
        self._offsets = {source: Offsets(ranges) for source, ranges in content.offsets.items()}
        self._keys = Keys(self.remember)
        for keys in content.keys:
            self._keys.load(keys)
        self._small = content.small
        self._mark.write(self.last, self.durability == "fsync")

    # --- adding ---

    def add(self, given: Sequence[Given]) -> tuple[list[int], Batch | None]:
        """Add what was not here before; how many of each caller's were added, and what is new.

        Raises LogFull, LogUnavailable: then nothing was added.
        """
        fresh, keys, offsets, added = self._fresh(given)
        if not fresh:
            return added, None
        now, replace = int(time.time()), msgspec.structs.replace
        fresh = [entry if entry.timestamp is not None else replace(entry, timestamp=now) for entry in fresh]
        first, last = self.last + 1, self.last + len(fresh)
        codes = self._coded({entry.behavior for entry in fresh if type(entry) is Event})
        changes = {source: self._offsets.get(source, Offsets()).joined(new) for source, new in offsets.items()}
        body = chunks.columns_of(fresh, first, codes, b"".join(keys)).pack(first)
        with self._transaction():
            self._put_names(codes)
            sqlite_file.put_chunk(self._db, first, last, body)
            for source, (gone, come) in changes.items():
                sqlite_file.put_offsets(self._db, source, gone, come)
        self._codes = codes
        self._reached(last)
        self._keys.add(map(short, keys))
        for source, (gone, come) in changes.items():
            self._offsets.setdefault(source, Offsets()).change(gone, come)
        if len(fresh) < SMALL:
            self._small.append(last)
        else:
            self._small.clear()
        return added, Batch(range(first, last + 1), fresh)

    def _fresh(self, given: Sequence[Given]) -> tuple[list[Entry], list[bytes], dict[str, set[int]], list[int]]:
        """Entries not here before, their keys' digests, their offsets by source; and how many of each caller's."""
        digests = [one for caller in given for one in caller.digests if one is not None]
        known = {one for one, found in zip(digests, self._keys.which([*map(short, digests)]), strict=True) if found}
        fresh: list[Entry] = []
        keys: list[bytes] = []
        offsets: dict[str, set[int]] = {}
        added = []
        nothing = Offsets()
        for caller in given:
            before = len(fresh)
            for n, entry in enumerate(caller.entries):
                key = caller.digests[n] if caller.digests else None
                if key is not None and key in known:
                    continue
                source = entry.source if type(entry) is Event else None
                if source is not None:
                    assert type(entry) is Event and entry.offset is not None
                    new = offsets.setdefault(source, set())
                    if entry.offset in new or entry.offset in self._offsets.get(source, nothing):
                        continue
                    new.add(entry.offset)
                if key is not None:
                    known.add(key)
                    keys.append(key)
                fresh.append(entry)
            added.append(len(fresh) - before)
        return fresh, keys, {source: new for source, new in offsets.items() if new}, added

    def _coded(self, names: set[str]) -> dict[str, int]:
        """The codes of all names known, ``names`` among them."""
        new = sorted(names - self._codes.keys())
        if not new:
            return self._codes
        return {**self._codes, **{name: len(self._codes) + n for n, name in enumerate(new)}}

    def _put_names(self, codes: dict[str, int]) -> None:
        for name, code in [*codes.items()][len(self._codes) :]:
            row = (code, name, sqlite_file.row_sum(code, name))
            self._db.execute("INSERT OR REPLACE INTO name VALUES (?, ?, ?)", row)
            self.names[code:] = [name]  # where the transaction fails, the next one overwrites it
        if codes is not self._codes:
            sqlite_file.put_meta(self._db, "names", msgspec.json.encode(self.names))

    def _reached(self, last: int) -> None:
        self.last = last
        self._mark.write(last, self.durability == "fsync")
        self._unflushed = True

    # --- removing ---

    def forget(self, user_id: str, ranges: Sequence[tuple[int, int]], after: int) -> tuple[int, Batch]:
        """Remove a user's events from the chunks that ``ranges`` of positions touch, and from all beyond ``after``."""
        user, removed, done, last = user_id.encode(), 0, 0, self.last + 1
        entry = Forgotten(hidden(user_id, self.secret), int(time.time()))
        with self._transaction():
            for begin, end in [*ranges, (after + 1, 1 << 62)]:
                touched = []
                for first, chunk_last, body in sqlite_file.read_chunks(self._db, max(begin - 1, done)):
                    if first > end:
                        break
                    done = chunk_last
                    if user in body:
                        touched.append((first, chunk_last, body))
                for first, chunk_last, body in touched:
                    columns = chunks.unpack([first], [body])
                    kept = columns.without(user)
                    if len(kept) < len(columns):
                        removed += len(columns) - len(kept)
                        sqlite_file.put_chunk(self._db, first, chunk_last, kept.pack(first))
            sqlite_file.put_chunk(self._db, last, last, chunks.columns_of([entry], last, {}, b"").pack(last))
        self._reached(last)
        self._small.append(last)
        return removed, Batch([last], [entry])

    def compact_step(self, before: int) -> bool:
        """Drop some of the chunks that lie below ``before``, all but their keys; whether there is more to drop."""
        with self._transaction():
            keys, size, first, last = [], 0, 0, self.compacted
            for begin, end, body in sqlite_file.read_chunks(self._db, self._last_full_of_keys()):
                if end >= before or size > STEP:
                    break
                first, last = first or begin, end
                size += len(body)
                keys.append(chunks.keys_of(body))
            more, floor = size > STEP, self._floor
            if last > self.compacted:
                self._db.execute("DELETE FROM chunk WHERE last BETWEEN ? AND ?", (first, last))
                sqlite_file.put_chunk(self._db, first, last, chunks.bare(first, b"".join(keys)))
                sqlite_file.put_meta(self._db, "compacted", b"%d" % last)
                floor = self._dropped_keys(last)
        self.compacted, self._floor = last, floor
        self._small = [end for end in self._small if end > last]
        return more

    def _last_full_of_keys(self) -> int:
        """The last position of the compacted chunks that have keys enough; one that has not is joined to the next."""
        query = "SELECT first, length(body) FROM chunk WHERE last <= ? ORDER BY last DESC LIMIT 1"
        row = self._db.execute(query, (self.compacted,)).fetchone()
        return self.compacted if row is None or row[1] > FEW_KEYS * chunks.KEY_BYTES else row[0] - 1

    def _dropped_keys(self, compacted: int) -> int:
        """Drop the oldest of the compacted chunks whose keys are beyond what is remembered; the floor then."""
        query = "SELECT last, length(body) FROM chunk WHERE last <= ? ORDER BY last DESC"
        rows = [(last, length - chunks.EMPTY) for last, length in self._db.execute(query, (compacted,))]
        floor, kept = self._floor, sum(length for _, length in rows)
        for last, length in reversed(rows):
            if length and kept - length < self.remember * chunks.KEY_BYTES:
                break
            floor, kept = last, kept - length
        if floor > self._floor:
            self._db.execute("DELETE FROM chunk WHERE last <= ?", (floor,))
            sqlite_file.put_meta(self._db, "floor", b"%d" % floor)
        return floor

    # --- keeping it in order ---

    def tidy(self) -> None:
        """Join small chunks, and carry over the journal, where there is enough of either."""
        if len(self._small) >= JOINED or (self._small and self._small[-1] - self._small[0] > ROWS):
            part = self._small[:JOINED]
            part = part[: max(2, bisect_right(part, part[0] + ROWS))]
            del self._small[: len(part)]  # also where it fails: they are only more chunks than need be
            if len(part) > 1:
                self._join(part[0], part[-1])
        if self.journal_bytes() > JOURNAL:
            try:
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except sqlite3.Error as error:
                raise self._failed(error) from error

    def _join(self, begin: int, end: int) -> None:
        with self._transaction():
            rows = list(sqlite_file.read_chunks(self._db, begin - 1, end))
            first = rows[0][0]
            body = chunks.unpack([row[0] for row in rows], [row[2] for row in rows]).pack(first)
            self._db.execute("DELETE FROM chunk WHERE last BETWEEN ? AND ?", (begin, end))
            sqlite_file.put_chunk(self._db, first, end, body)

    def vacuum_step(self) -> bool:
        """Give some free pages back to the disk; whether there are more."""
        try:
            self._db.execute(f"PRAGMA incremental_vacuum({STEP // 4096})").fetchall()
            return bool(self._db.execute("PRAGMA freelist_count").fetchone()[0])
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def erase_journal(self) -> None:
        """Carry the write-ahead log over and empty it, so that nothing removed is left in it."""
        try:
            for _ in range(50):
                busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                if not busy:
                    return
                time.sleep(0.1)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        raise LogUnavailable("the events are removed, but the journal is in use and still holds them; try again")

    def flush(self) -> None:
        """Have the disk take what was committed, for durability ``interval``."""
        if self._unflushed:
            try:
                if self._journal < 0:
                    self._journal = os.open(self.path.with_name(self.path.name + "-wal"), os.O_RDONLY | os.O_CLOEXEC)
                os.fdatasync(self._journal)
            except OSError as error:
                raise LogUnavailable(f"cannot flush the log {self.path}: {error.strerror}") from error
            self._mark.write(self.last, True)
            self._unflushed = False

    def journal_bytes(self) -> int:
        """The size of the write-ahead log."""
        with suppress(OSError):
            return self.path.with_name(self.path.name + "-wal").stat().st_size
        return 0

    def close(self) -> None:
        """Carry everything over, flush it, close the file."""
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._mark.write(self.last, True)
        with suppress(sqlite3.Error):
            self._db.close()
        if self._journal >= 0:
            os.close(self._journal)
        self._mark.close()

    # --- failing ---

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block, or nothing. Raises what ``_failed`` makes of SQLite's errors."""
        self._recover()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failed(error) from error
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _failed(self, error: sqlite3.Error) -> LogFull | LogUnavailable | LogDamaged:
        """What to raise for a failure; the transaction is undone."""
        with suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")
        code = sqlite_file.primary(error)
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._no_space()):
            return LogFull(f"the disk of the log {self.path} is full; free some space")
        if sqlite_file.damaged(error):
            return LogDamaged(refusal(self.path, [str(error)]))
        self._broken = code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        return LogUnavailable(f"cannot write the log {self.path}: {error}")

    def _no_space(self) -> bool:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        longest = max(self.journal_bytes(), self.path.stat().st_size if self.path.exists() else 0)
        disk = os.statvfs(self.path.parent)
        return disk.f_bavail * disk.f_frsize < 1 << 16 or (limit >= 0 and longest + (1 << 16) > limit)

    def _recover(self) -> None:
        """After a failure that leaves the connection in doubt: open the file anew, and compare."""
        if not self._broken:
            return
        try:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = sqlite_file.connect(self.path, _SYNCHRONOUS[self.durability])
            last = self._db.execute("SELECT max(last) FROM chunk").fetchone()[0] or self._floor
        except (sqlite3.Error, OSError) as error:
            raise LogUnavailable(f"cannot open the log {self.path}: {error}") from error
        if last != self.last:
            raise LogUnavailable(f"the log {self.path} ends at {last}, not at {self.last}; restart the service")
        self._broken = False


def refusal(path: Path, faults: Sequence[str]) -> str:
    """What to say of a damaged log."""
    what = "; ".join(faults[:3])
    return (
        f"the log {path} is damaged: {what}; put back a copy of it, or go on without what is lost: "
        f"macrorec log repair {path}"
    )
