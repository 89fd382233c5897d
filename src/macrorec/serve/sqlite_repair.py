"""What can be saved of a damaged log? A new file of all that has its checksum; what has not is told, and its positions
stay used."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec

from macrorec.files import flush
from macrorec.serve import chunks, sqlite_file
from macrorec.serve.log import LogDamaged

_FARTHEST = 1 << 62


def repaired(path: Path, acknowledged: int) -> list[str]:
    """Replace the log at ``path``, if it is damaged, by what is sound of it; what was lost, a line each.

    ``acknowledged``: the last position known to have been; the log goes on after it. Raises LogDamaged where nothing
    can be saved.
    """
    if not path.exists():
        return []
    new = path.with_name(path.name + ".repaired")
    _remove(new)
    try:
        with closing(sqlite_file.connect(path)) as old:
            content = sqlite_file.examine(old, 0)
            if not content.faults and content.last >= acknowledged:
                return []
            with closing(sqlite_file.connect(new)) as db:
                report = _copied(old, db, new, content.faults, acknowledged)
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.DatabaseError as error:
        _remove(new)
        raise LogDamaged(f"nothing of the log {path} can be saved: {error}; put back a copy of it") from error
    _remove(path)
    new.replace(path)
    flush(path.parent)
    return report


def _copied(old: sqlite3.Connection, new: sqlite3.Connection, path: Path, faults: list[str], until: int) -> list[str]:
    report = [f"the log was damaged: {'; '.join(faults)}"] if faults else []
    meta = {row[0]: row[1] for row in _rows(old, "meta") if len(row) == 3 and sqlite_file.row_sum(*row[:2]) == row[2]}
    if "secret" not in meta:
        report.append("its secret is lost: users forgotten before are known to snapshots alone")
    sqlite_file.create(new, path, meta.get("secret") or os.urandom(16))
    new.execute("BEGIN IMMEDIATE")
    copies = dict(enumerate(msgspec.json.decode(meta.get("names", b"[]"))))
    sound = copies | {row[0]: row[1] for row in _rows(old, "name") if sqlite_file.row_sum(*row[:2]) == row[2]}
    names: list[str] = []
    for code in range(max(sound, default=-1) + 1):
        name = sound.get(code, f"unknown-{code}")
        if code not in sound:
            report.append(f"the name of a behaviour is lost; it is {name!r} now")
        new.execute("INSERT INTO name VALUES (?, ?, ?)", (code, name, sqlite_file.row_sum(code, name)))
        names.append(name)
    sqlite_file.put_meta(new, "names", msgspec.json.encode(names))
    lost_offsets = False
    for row in _rows(old, "offset"):
        if sqlite_file.row_sum(*row[:3]) == row[3]:
            new.execute("INSERT INTO offset VALUES (?, ?, ?, ?)", row)
        else:
            lost_offsets = True
    if lost_offsets:
        report.append("some known offsets are lost: what is sent again may be counted again")
    floor = _number(meta.get("floor"))
    last, kept = floor, 0
    for first, end, body in _sound_chunks(old):
        if first <= last:
            continue
        if first > last + 1:
            report.append(f"entries {last + 1} to {first - 1} are lost, and their keys")
            sqlite_file.put_chunk(new, last + 1, first - 1, chunks.bare(last + 1))
        sqlite_file.put_chunk(new, first, end, body)
        last, kept = end, kept + chunks.size(body)
    if until > last:
        report.append(f"entries {last + 1} to {until} are lost, and their keys")
        sqlite_file.put_chunk(new, last + 1, until, chunks.bare(last + 1))
    sqlite_file.put_meta(new, "floor", b"%d" % floor)
    sqlite_file.put_meta(new, "compacted", b"%d" % max(floor, _number(meta.get("compacted"))))
    new.execute("COMMIT")
    return [*report, f"{kept:,} entries are sound and were kept"]


def _rows(db: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a table, as far as they can be read."""
    with suppress(sqlite3.DatabaseError):
        yield from db.execute(f"SELECT * FROM {table}")


def _sound_chunks(db: sqlite3.Connection) -> Iterator[tuple[int, int, bytes]]:
    """(first, last, body) of the chunks that have their checksum, in order; past pages that cannot be read, too."""
    query, after = "SELECT first, last, body, sum FROM chunk WHERE last > ? ORDER BY last", 0
    while after < _FARTHEST:
        try:
            for first, last, body, told in db.execute(query, (after,)):
                if chunks.checksum(first, last, body) == told:
                    yield first, last, body
                after = last
            return
        except (sqlite3.DatabaseError, TypeError, OverflowError, struct.error):
            after = _beyond(db, after)


def _beyond(db: sqlite3.Connection, after: int) -> int:
    """The least ``after``, or nearly, from which a chunk can be read again."""
    step = 1
    while after + step < _FARTHEST and not _readable(db, after + step):
        step *= 2
    low, high = after + step // 2, min(after + step, _FARTHEST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _readable(db, middle) else (middle, high)
    return high


def _readable(db: sqlite3.Connection, after: int) -> bool:
    try:
        row = db.execute("SELECT last, body FROM chunk WHERE last > ? ORDER BY last LIMIT 1", (after,)).fetchone()
    except (sqlite3.DatabaseError, OverflowError):
        return False
    return row is not None


def _number(value: bytes | None) -> int:
    return int(value) if value and value.isdigit() else 0


def _remove(path: Path) -> None:
    for name in ("", "-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
