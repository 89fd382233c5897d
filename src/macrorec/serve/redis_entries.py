"""How is an entry written in a Redis stream, and read back? As text, under a checksum, its user by a hash alone."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from macrorec.serve.events import Entry, Event, EventError, Forgotten, ItemAnnounced, hidden
from macrorec.serve.known import digest
from macrorec.serve.log import Batch, LogDamaged
from macrorec.serve.redis_scripts import NOBODY

MOST_BYTES = 0xFFFF
"""Of an id in UTF-8, as in any log."""
_FIRST = "-"
"""Before the first offset."""


class _Did(msgspec.Struct, array_like=True, tag=0, gc=False):
    item_id: str
    behavior: str
    timestamp: int
    weight: float
    label: float | None


class _New(msgspec.Struct, array_like=True, tag=1, gc=False):
    item_id: str
    category: str | None
    title: str | None
    timestamp: int


class _Left(msgspec.Struct, array_like=True, tag=2, gc=False):
    user: str
    timestamp: int


_rows = msgspec.json.Decoder(list[tuple[int, str, str | None, msgspec.Raw]])
_entry = msgspec.json.Decoder(_Did | _New | _Left)
_encode = msgspec.json.Encoder().encode


class Given(NamedTuple):
    """Entries of one caller."""

    entries: Sequence[Entry]
    """With their times."""
    rows: list[list[str]]
    """As ``redis_scripts.ADD`` takes them."""


def given(entries: Sequence[Entry], secret: bytes) -> Given:
    """Entries as they are written; a time that is missing is now. Raises EventError for what cannot be."""
    now, replace = int(time.time()), msgspec.structs.replace
    entries = [entry if entry.timestamp is not None else replace(entry, timestamp=now) for entry in entries]
    rows, users = [], {}
    for n, entry in enumerate(entries):
        if isinstance(entry, Event) and (entry.source is None) != (entry.offset is None):
            raise EventError("source and offset go together", n)
        try:
            if isinstance(entry, Event) and entry.user_id not in users:
                users[entry.user_id] = (hidden(entry.user_id, secret), _encode(entry.user_id).decode())
            rows.append(_row(entry, users, secret))
        except (UnicodeEncodeError, OverflowError):
            raise EventError("an id is too long, or no text that UTF-8 can hold", n) from None
    return Given(entries, rows)


def _row(entry: Entry, users: dict[str, tuple[str, str]], secret: bytes) -> list[str]:
    if not isinstance(entry, Event):
        body, checksum = plain(entry)
        return [NOBODY, "", checksum, body, "", "", "", "", ""]
    if max(map(_size, (entry.user_id, entry.item_id, entry.behavior, entry.source))) > MOST_BYTES:
        raise OverflowError
    fields = _encode([0, entry.item_id, entry.behavior, entry.timestamp, entry.weight, entry.label])
    row = [*users[entry.user_id], _sum(entry.user_id, fields), fields.decode()]
    row.append("" if entry.key is None else digest(entry.key, secret).hex())
    if entry.source is None or entry.offset is None:
        return [*row, "", "", "", ""]
    before = f"{entry.offset - 1:019d}" if entry.offset else _FIRST
    source = hidden(entry.source, secret)
    return [*row, source, f"{entry.offset:019d}", before, f"{entry.offset + 1:019d}"]


def plain(entry: ItemAnnounced | Forgotten) -> tuple[str, str]:
    """What is no event, as JSON, and its checksum."""
    if isinstance(entry, ItemAnnounced):
        if max(map(_size, (entry.item_id, entry.category, entry.title))) > MOST_BYTES:
            raise OverflowError
        body = _encode([1, entry.item_id, entry.category, entry.title, entry.timestamp])
    else:
        body = _encode([2, entry.user, entry.timestamp])
    return body.decode(), _sum("", body)


def batch(told: str, until: int, where: str) -> tuple[Batch, int]:
    """The entries that ``redis_scripts.READ`` tells, up to a position; and how many there were with those beyond.

    Raises LogDamaged.
    """
    positions: list[int] = []
    entries: list[Entry] = []
    position = 0
    try:
        rows: Any = _rows.decode(told) if told else []
        for position, checksum, user, body in rows:
            if position > until:
                break
            if _sum(user or "", body) != checksum:
                raise ValueError
            entry = _entry.decode(body)
            if isinstance(entry, _Did):
                if user is None:
                    raise ValueError
                entries.append(Event(user, entry.item_id, entry.behavior, entry.timestamp, entry.weight, entry.label))
            elif isinstance(entry, _New):
                entries.append(ItemAnnounced(entry.item_id, entry.category, entry.title, entry.timestamp))
            else:
                entries.append(Forgotten(entry.user, entry.timestamp))
            positions.append(position)
    except (msgspec.MsgspecError, ValueError):
        raise LogDamaged(
            f"the log in {where} is damaged: entry {position} is not what was written; "
            "put back a copy of the server's files"
        ) from None
    return Batch(positions, entries), len(rows)


def _sum(user_id: str, body: Any) -> str:
    return f"{zlib.crc32(body, zlib.crc32(user_id.encode())):08x}"


def _size(text: str | None) -> int:
    return 0 if text is None else len(text) if text.isascii() else len(text.encode())
