"""What lies in a log's file, and is it what was written?

    chunk   first, last (positions), body (macrorec.serve.chunks), sum; each begins where the one before it ends
    name    code, name (of behaviours), sum
    offset  source, first, last, sum: ranges of known offsets
    meta    name, value, sum: ``format``; ``secret``; ``compacted``, the position up to which entries are gone;
            ``floor``, the position up to which their keys are gone, too; ``names``, a copy of those

Beside it ``.lock`` keeps other processes out, and ``.acknowledged`` holds the last position that was acknowledged:
where the log ends before it, something was lost, even if SQLite, which drops the damaged end of its journal, says
nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from macrorec.files import flush
from macrorec.serve import chunks
from macrorec.serve.log import LogDamaged, LogUnavailable

FORMAT = b"macrorec-log 1"
TABLES = """
CREATE TABLE chunk (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, body BLOB NOT NULL, sum BLOB NOT NULL) STRICT;
CREATE TABLE name (code INTEGER PRIMARY KEY, name TEXT NOT NULL, sum BLOB NOT NULL) STRICT;
CREATE TABLE offset (source TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, sum BLOB NOT NULL,
    PRIMARY KEY (source, first)) STRICT, WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL, sum BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""
_MARK = struct.Struct("<q?3xI")
"""The last position acknowledged, whether it was flushed before, and a checksum."""


class Malformed(sqlite3.DatabaseError):
    """The file is not what was written, and SQLite could not say so."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def connect(path: Path, synchronous: str = "FULL") -> sqlite3.Connection:
    """A connection to the log at ``path``, in no transaction. A new file is nobody else's to read."""
    if not path.exists():  # else not: closing it would free the locks of other connections
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (
            "page_size=4096",
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            f"synchronous={synchronous}",
            "fullfsync=ON",
            "checkpoint_fullfsync=ON",
            "secure_delete=ON",
            "wal_autocheckpoint=0",
            "trusted_schema=OFF",
            "cache_size=-16384",
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()
    except UnicodeDecodeError:  # what it says of a damaged file may be no text
        db.close()
        raise Malformed("the tables are not what was written") from None
    except BaseException:
        db.close()
        raise
    return db


def create(db: sqlite3.Connection, path: Path, secret: bytes) -> None:
    """Make the tables."""
    db.execute("BEGIN IMMEDIATE")
    for statement in TABLES.strip().split(";\n"):
        db.execute(statement)
    put_meta(db, "format", FORMAT)
    put_meta(db, "secret", secret)
    put_meta(db, "compacted", b"0")
    put_meta(db, "floor", b"0")
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    flush(path.parent)


def row_sum(*values: Any) -> bytes:
    """The checksum of a row of plain values."""
    return hashlib.blake2b(repr(values).encode(), digest_size=8).digest()


def put_meta(db: sqlite3.Connection, name: str, value: bytes) -> None:
    """Set what ``meta`` says under ``name``."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (name, value, row_sum(name, value)))


def put_chunk(db: sqlite3.Connection, first: int, last: int, body: bytes) -> None:
    """Add a chunk, or replace the one that ends at ``last``."""
    db.execute(
        "INSERT OR REPLACE INTO chunk VALUES (?, ?, ?, ?)", (last, first, body, chunks.checksum(first, last, body))
    )


def put_offsets(
    db: sqlite3.Connection, source: str, gone: Iterable[tuple[int, int]], come: Iterable[tuple[int, int]]
) -> None:
    """Replace ranges of known offsets of ``source``."""
    db.executemany("DELETE FROM offset WHERE source = ? AND first = ?", [(source, first) for first, _ in gone])
    rows = [(source, first, last, row_sum(source, first, last)) for first, last in come]
    db.executemany("INSERT OR REPLACE INTO offset VALUES (?, ?, ?, ?)", rows)


def read_chunks(db: sqlite3.Connection, after: int, until: int = 1 << 62) -> Iterator[tuple[int, int, bytes]]:
    """(first, last, body) of the chunks that hold positions beyond ``after``, to ``until``. Raises LogDamaged."""
    expected = None
    rows = db.execute(
        "SELECT first, last, body, sum FROM chunk WHERE last > ? AND last <= ? ORDER BY last", (after, until)
    )
    for first, last, body, told in rows:
        if chunks.checksum(first, last, body) != told:
            raise LogDamaged(f"entries {first} to {last} are not what was written")
        if expected is not None and first != expected:
            raise LogDamaged(f"entries {expected} to {first - 1} are missing")
        expected = last + 1
        yield first, last, body


@dataclass(slots=True)
class Content:
    """What a log's file holds beside its entries, and what is wrong with it."""

    secret: bytes = b""
    floor: int = 0
    compacted: int = 0
    last: int = 0
    n_entries: int = 0
    names: list[str] = field(default_factory=list)
    """By code."""
    offsets: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Known ranges by source."""
    keys: list[bytes] = field(default_factory=list)
    """Of each chunk with any, in order."""
    small: list[int] = field(default_factory=list)
    """Last positions of the chunks at the end that were not joined yet."""
    faults: list[str] = field(default_factory=list)


def examine(db: sqlite3.Connection, small: int) -> Content:
    """Read all of it, and check it; ``small``: chunks that span fewer positions may be joined."""
    content = Content()
    try:
        told = [row[0] for row in db.execute("PRAGMA quick_check(1)")]
        if told != ["ok"]:
            content.faults.append(f"SQLite says: {' '.join(' '.join(told).split())[:200]}")
            return content
        _examine_meta(db, content)
        _examine_chunks(db, content, small)
        _examine_offsets(db, content)
    except sqlite3.DatabaseError as error:
        if primary(error) in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM):
            raise
        content.faults.append(str(error))
    except LogDamaged as error:
        content.faults.append(str(error))
    except (UnicodeDecodeError, TypeError, struct.error):
        content.faults.append("the tables are not what was written")
    return content


def _examine_meta(db: sqlite3.Connection, content: Content) -> None:
    meta: dict[str, bytes] = {}
    for name, value, told in db.execute("SELECT name, value, sum FROM meta"):
        if row_sum(name, value) != told:
            raise LogDamaged(f"the log's {name} is not what was written")
        meta[name] = value
    if meta.get("format") != FORMAT:
        raise LogDamaged(f"its format is {meta.get('format', b'none')!r}, not {FORMAT!r}")
    if not {"secret", "floor", "compacted"} <= meta.keys():
        raise LogDamaged("its secret, floor or compacted is missing")
    content.secret, content.floor, content.compacted = meta["secret"], int(meta["floor"]), int(meta["compacted"])
    for code, name, told in db.execute("SELECT code, name, sum FROM name ORDER BY code"):
        if code != len(content.names) or row_sum(code, name) != told:
            raise LogDamaged(f"the name of code {code} is not what was written")
        content.names.append(name)


def _examine_chunks(db: sqlite3.Connection, content: Content, small: int) -> None:
    content.last = content.floor
    for first, last, body in read_chunks(db, 0):
        if content.last == content.floor and first != content.floor + 1:
            raise LogDamaged(f"entries {content.floor + 1} to {first - 1} are missing")
        content.last = last
        content.n_entries += chunks.size(body)
        keys = chunks.keys_of(body)
        if keys:
            content.keys.append(keys)
        if last - first + 1 < small and chunks.size(body):
            content.small.append(last)
        else:
            content.small.clear()


def _examine_offsets(db: sqlite3.Connection, content: Content) -> None:
    for source, first, last, told in db.execute("SELECT source, first, last, sum FROM offset ORDER BY source, first"):
        if row_sum(source, first, last) != told:
            raise LogDamaged("the known offsets are not what was written")
        content.offsets.setdefault(source, []).append((first, last))


def damaged(error: sqlite3.Error, path: Path | None = None) -> bool:
    """Whether the file is not what was written, rather than out of reach; ``path`` tells what may be written."""
    code = primary(error)
    if code == sqlite3.SQLITE_READONLY:  # so says also a file whose header asks for a newer SQLite
        return path is not None and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH)


def primary(error: sqlite3.Error) -> int:
    """SQLite's code for a failure, without its details."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


class Lock:
    """One process at a time."""

    def __init__(self, path: Path) -> None:
        """Take it, or raise LogUnavailable."""
        self._path = path.with_name(path.name + ".lock")
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LogUnavailable(f"cannot open the log {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise LogUnavailable(
                f"another process has the log {path} open; send events to it with --url, or end it first"
            ) from error

    def free(self) -> None:
        """Let go of it."""
        os.close(self._file)


class Mark:
    """The last position that was acknowledged, in a small file beside the log."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it. Raises OSError."""
        self._file = os.open(path.with_name(path.name + ".acknowledged"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.position, self.flushed, self.sound = self._read()

    def _read(self) -> tuple[int, bool, bool]:
        data = os.pread(self._file, _MARK.size, 0)
        if not data:
            return 0, False, False
        with suppress(struct.error):
            position, flushed, told = _MARK.unpack(data)
            if told == zlib.crc32(data[:12]):
                return position, flushed, True
        return 0, False, False

    def write(self, position: int, flushed: bool) -> None:
        """``position`` is acknowledged; ``flushed``: it was on disk before."""
        data = _MARK.pack(position, flushed, 0)[:12]
        with suppress(OSError):  # it can only make the log more watchful
            os.pwrite(self._file, data + struct.pack("<I", zlib.crc32(data)), 0)
        self.position, self.flushed = position, flushed

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
