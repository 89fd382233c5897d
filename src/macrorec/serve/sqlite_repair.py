"""What can be saved of a damaged log? All that has its checksum, in a new file; positions of the rest stay used."""

from __future__ import annotations

import os
import shutil
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
_UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError, TypeError, OverflowError, struct.error)
_PAGE = 4096
"""Bytes of a page of the file."""


def repaired(path: Path, acknowledged: int) -> list[str]:
    """Replace the log at ``path``, if it is damaged, by what is sound of it; what was lost, a line each.

    ``acknowledged``: the last position known to have been; the log goes on after it. Raises LogDamaged where nothing
    can be saved.
    """
    if not path.exists():
        return []
    new, skeleton = path.with_name(path.name + ".repaired"), path.with_name(path.name + ".skeleton")
    faults = _faults(path, acknowledged)
    if not faults:
        return []
    try:
        try:
            report = _saved(path, new, faults, acknowledged)
        except sqlite3.DatabaseError:
            _with_first_page(path, skeleton)
            report = _saved(skeleton, new, faults, acknowledged)
    except sqlite3.DatabaseError as error:
        _remove(new)
        raise LogDamaged(f"nothing of the log {path} can be saved: {error}; put back a copy of it") from error
    finally:
        _remove(skeleton)
    _remove(path)
    new.replace(path)
    flush(path.parent)
    return report


def _saved(source: Path, new: Path, faults: list[str], acknowledged: int) -> list[str]:
    """Write what is sound of ``source`` to ``new``; what was lost. Raises sqlite3.DatabaseError if all is."""
    _remove(new)
    with closing(sqlite_file.connect(source)) as old, closing(sqlite_file.connect(new)) as db:
        report = _copied(old, db, new, faults, acknowledged)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return report


def _faults(path: Path, acknowledged: int) -> list[str]:
    """What is wrong with the log, if anything is."""
    try:
        with closing(sqlite_file.connect(path)) as db:
            content = sqlite_file.examine(db, 0)
    except sqlite3.DatabaseError as error:
        if not sqlite_file.damaged(error, path):
            raise
        return [str(error)]
    if content.last < acknowledged and not content.faults:
        content.faults.append(f"entries {content.last + 1} to {acknowledged} were acknowledged and are missing")
    return content.faults


def _with_first_page(path: Path, place: Path) -> None:
    """A copy of a log whose first page, which tells of the tables, is damaged, with that of a new log."""
    _remove(place)
    with closing(sqlite_file.connect(place)) as db:
        sqlite_file.create(db, place, b"")
    page = bytearray(place.read_bytes()[:_PAGE])
    page[28:40] = struct.pack(">III", path.stat().st_size // _PAGE, 0, 0)  # pages; no list of free ones
    _remove(place)
    for name in ("", "-wal"):
        if (part := path.with_name(path.name + name)).exists():
            shutil.copyfile(part, place.with_name(place.name + name))
    with place.open("r+b") as file:
        file.write(page)


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
    if not kept and not meta:
        raise sqlite3.DatabaseError("no entry is sound")
    return [*report, f"{kept:,} entries are sound and were kept"]


def _rows(db: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a table, as far as they can be read."""
    with suppress(*_UNREADABLE):
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
        except _UNREADABLE:
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
    except _UNREADABLE:
        return False
    return row is not None


def _number(value: bytes | None) -> int:
    return int(value) if value and value.isdigit() else 0


def _remove(path: Path) -> None:
    for name in ("", "-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
