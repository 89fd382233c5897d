"""How do entries lie on disk? What was committed together is a chunk of columns, so that millions are read in seconds.

A chunk is, little-endian: the numbers of ``_HEAD``; then for its N events user sizes (u2), users (UTF-8), item sizes,
items, behaviour codes (u2), times (i8), weights (f8, unless all are 1), labels (f8, NaN for none, unless there are
none), and positions less the chunk's first (u4, unless they are 0, 1, ...); then the other entries (msgpack); then the
keys (16 bytes each). Shape letters: C chunks, N events.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from macrorec.serve.events import Entry, Event, Forgotten, ItemAnnounced
from macrorec.serve.log import FRAME, Batch

_HEAD = struct.Struct("<7I")
"""Events, flags, bytes of users, of items, of others, number of others, of keys."""
_RANGE = struct.Struct("<qq")
_WEIGHTS, _LABELS, _POSITIONS = 1, 2, 4
_ONE, _NONE = struct.pack("<d", 1.0), struct.pack("<d", np.nan)
_ITEM, _GONE = 0, 1
KEY_BYTES = 16
MOST_BYTES = 0xFFFF
"""Of an id in UTF-8."""
Other = ItemAnnounced | Forgotten


class Text(NamedTuple):
    """Strings one after the other: their sizes in bytes, shape (N,), and the bytes."""

    size_N: npt.NDArray[np.uint16]
    data: bytes

    def series(self) -> pl.Series:
        """The strings."""
        starts = np.zeros(len(self.size_N) + 1, np.int64)
        np.cumsum(self.size_N, out=starts[1:])
        array = pa.LargeStringArray.from_buffers(len(self.size_N), pa.py_buffer(starts), pa.py_buffer(self.data))
        series = pl.from_arrow(array)
        assert isinstance(series, pl.Series)
        return series

    def split(self) -> list[bytes]:
        """The strings, one by one."""
        ends = np.cumsum(self.size_N, dtype=np.int64).tolist()
        return [self.data[end - size : end] for end, size in zip(ends, self.size_N.tolist(), strict=True)]

    def part(self, first: int, last: int) -> Text:
        """The strings ``first : last``."""
        begin, size = int(self.size_N[:first].sum(dtype=np.int64)), int(self.size_N[first:last].sum(dtype=np.int64))
        return Text(self.size_N[first:last], self.data[begin : begin + size])


def text(strings: Sequence[bytes]) -> Text:
    """Strings in UTF-8 as one ``Text``."""
    return Text(np.fromiter(map(len, strings), np.uint16, len(strings)), b"".join(strings))


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Entries as columns; events and others apart, each in order of position."""

    position_N: npt.NDArray[np.int64]
    users: Text
    items: Text
    behavior_N: npt.NDArray[np.uint16]
    """Codes, of names that the log keeps."""
    timestamp_N: npt.NDArray[np.int64]
    weight_N: npt.NDArray[np.float64] | None
    """None: all 1."""
    label_N: npt.NDArray[np.float64] | None
    """NaN: none; None: all none."""
    others: list[tuple[int, Other]]
    keys: bytes
    """``KEY_BYTES`` each, of entries that had one; also of those that are gone."""

    def __len__(self) -> int:
        return len(self.position_N) + len(self.others)

    def pack(self, first: int) -> bytes:
        """As bytes of a chunk whose first position is ``first``."""
        n, weight_N, label_N = len(self.position_N), self.weight_N, self.label_N
        offset_N = self.position_N - first
        flags = 0
        parts: list[Any] = [
            *(self.users.size_N.tobytes(), self.users.data, self.items.size_N.tobytes(), self.items.data),
            *(self.behavior_N.tobytes(), self.timestamp_N.tobytes()),
        ]
        if weight_N is not None and not bool((weight_N == 1.0).all()):
            flags |= _WEIGHTS
            parts.append(weight_N.tobytes())
        if label_N is not None and not bool(np.isnan(label_N).all()):
            flags |= _LABELS
            parts.append(label_N.tobytes())
        if n and not (offset_N[0] == 0 and offset_N[-1] == n - 1):
            flags |= _POSITIONS
            parts.append(offset_N.astype(np.uint32).tobytes())
        plain = [_plain(position, entry) for position, entry in self.others]
        others = msgspec.msgpack.encode(plain) if plain else b""
        n_keys = len(self.keys) // KEY_BYTES
        head = _HEAD.pack(n, flags, len(self.users.data), len(self.items.data), len(others), len(self.others), n_keys)
        return b"".join([head, *parts, others, self.keys])

    def beyond(self, after: int, limit: int) -> Columns:
        """The first ``limit`` entries with positions beyond ``after``; without keys."""
        others = [pair for pair in self.others if pair[0] > after]
        first = int(np.searchsorted(self.position_N, after, side="right"))
        last = len(self.position_N)
        if last - first + len(others) > limit:
            places = np.sort(np.concatenate([self.position_N[first:], np.array([p for p, _ in others], np.int64)]))
            end = int(places[limit - 1])
            others = [pair for pair in others if pair[0] <= end]
            last = int(np.searchsorted(self.position_N, end, side="right"))
        return Columns(
            self.position_N[first:last],
            self.users.part(first, last),
            self.items.part(first, last),
            self.behavior_N[first:last],
            self.timestamp_N[first:last],
            None if self.weight_N is None else self.weight_N[first:last],
            None if self.label_N is None else self.label_N[first:last],
            others,
            b"",
        )

    def without(self, user: bytes) -> Columns:
        """All but the events of ``user``."""
        users = self.users.split()
        keep = np.array([one != user for one in users], dtype=bool)
        return Columns(
            self.position_N[keep],
            text([one for one, kept in zip(users, keep, strict=True) if kept]),
            text([one for one, kept in zip(self.items.split(), keep, strict=True) if kept]),
            self.behavior_N[keep],
            self.timestamp_N[keep],
            None if self.weight_N is None else self.weight_N[keep],
            None if self.label_N is None else self.label_N[keep],
            self.others,
            self.keys,
        )

    def batch(self, names: Sequence[str]) -> Batch:
        """The entries, in order; ``names``: of the behaviours, by code."""
        label = pl.Series(np.empty(0) if self.label_N is None else self.label_N).fill_nan(None)
        n = len(self.position_N)
        columns = {
            "position": self.position_N,
            "user_id": self.users.series(),
            "item_id": self.items.series(),
            "behavior": pl.Series(names, dtype=pl.String).gather(pl.Series(self.behavior_N)),
            "timestamp": self.timestamp_N,
            "weight": np.ones(n) if self.weight_N is None else self.weight_N,
            "label": pl.repeat(None, n, dtype=pl.Float64, eager=True) if self.label_N is None else label,
        }
        positions = self.position_N
        if self.others:
            positions = np.sort(np.concatenate([positions, np.array([p for p, _ in self.others], np.int64)]))
        return Batch(positions, events=pl.DataFrame(columns, schema=FRAME), others=self.others)


def columns_of(entries: Sequence[Entry], first: int, codes: dict[str, int], keys: bytes) -> Columns:
    """``entries``, at the positions from ``first`` on, times filled in; ``codes``: of the behaviours' names."""
    events: Any = entries
    others: list[tuple[int, Other]] = []
    position_N = np.arange(first, first + len(entries), dtype=np.int64)
    if not all(type(entry) is Event for entry in entries):
        others = [(first + n, entry) for n, entry in enumerate(entries) if not isinstance(entry, Event)]
        position_N = np.array([first + n for n, entry in enumerate(entries) if type(entry) is Event], dtype=np.int64)
        events = [entry for entry in entries if type(entry) is Event]
    n = len(events)
    labels = [event.label for event in events]
    label_N = None if labels.count(None) == n else np.array([np.nan if x is None else x for x in labels], np.float64)
    return Columns(
        position_N,
        text([event.user_id.encode() for event in events]),
        text([event.item_id.encode() for event in events]),
        np.fromiter((codes[event.behavior] for event in events), np.uint16, n),
        np.fromiter((event.timestamp for event in events), np.int64, n),
        np.fromiter((event.weight for event in events), np.float64, n),
        label_N,
        others,
        keys,
    )


def size(body: bytes) -> int:
    """How many entries a chunk holds."""
    n, _, _, _, _, n_others, _ = _HEAD.unpack_from(body)
    return int(n) + int(n_others)


def keys_of(body: bytes) -> bytes:
    """The keys of a chunk."""
    n_keys = _HEAD.unpack_from(body)[6]
    return body[len(body) - n_keys * KEY_BYTES :] if n_keys else b""


def bare(first: int, keys: bytes = b"") -> bytes:
    """A chunk without entries."""
    return columns_of([], first, {}, keys).pack(first)


EMPTY = len(bare(0))
"""Bytes of a chunk without entries and keys."""


def checksum(first: int, last: int, body: bytes) -> bytes:
    """Of a chunk and the positions that it stands for."""
    return hashlib.blake2b(body, key=_RANGE.pack(first, last), digest_size=16).digest()


def unpack(firsts: Sequence[int], bodies: Sequence[bytes]) -> Columns:
    """The columns of many chunks joined; ``firsts``: the first position of each."""
    parts: tuple[list[Any], ...] = tuple([] for _ in range(8))
    user_size, user, item_size, item, behavior, time, weight, label = parts
    others: list[tuple[int, Other]] = []
    keys: list[Any] = []
    counts: list[int] = []
    explicit: list[tuple[int, Any]] = []
    weighted = labelled = False
    for chunk, body in enumerate(bodies):
        n, flags, user_bytes, item_bytes, other_bytes, n_others, n_keys = _HEAD.unpack_from(body)
        view = memoryview(body)
        at = _HEAD.size
        counts.append(n)
        for own, width in (
            (user_size, 2 * n),
            (user, user_bytes),
            (item_size, 2 * n),
            (item, item_bytes),
            (behavior, 2 * n),
            (time, 8 * n),
        ):
            own.append(view[at : at + width])
            at += width
        for own, flag, default in ((weight, _WEIGHTS, _ONE), (label, _LABELS, _NONE)):
            if flags & flag:
                own.append(view[at : at + 8 * n])
                at += 8 * n
            else:
                own.append(default * n)
        weighted |= bool(flags & _WEIGHTS)
        labelled |= bool(flags & _LABELS)
        if flags & _POSITIONS:
            explicit.append((chunk, view[at : at + 4 * n]))
            at += 4 * n
        if n_others:
            others += [_entry(plain) for plain in msgspec.msgpack.decode(view[at : at + other_bytes])]
        if n_keys:
            keys.append(view[at + other_bytes :])
    return Columns(
        _positions(np.asarray(firsts, np.int64), np.asarray(counts, np.int64), explicit),
        Text(np.frombuffer(b"".join(user_size), np.uint16), b"".join(user)),
        Text(np.frombuffer(b"".join(item_size), np.uint16), b"".join(item)),
        np.frombuffer(b"".join(behavior), np.uint16),
        np.frombuffer(b"".join(time), np.int64),
        np.frombuffer(b"".join(weight), np.float64) if weighted else None,
        np.frombuffer(b"".join(label), np.float64) if labelled else None,
        others,
        b"".join(keys),
    )


def _positions(
    first_C: npt.NDArray[np.int64], n_C: npt.NDArray[np.int64], explicit: Sequence[tuple[int, Any]]
) -> npt.NDArray[np.int64]:
    starts_C = np.cumsum(n_C) - n_C
    position_N = np.repeat(first_C - starts_C, n_C) + np.arange(int(n_C.sum()), dtype=np.int64)
    for chunk, offsets in explicit:
        start = int(starts_C[chunk])
        position_N[start : start + int(n_C[chunk])] = int(first_C[chunk]) + np.frombuffer(offsets, np.uint32)
    return position_N


def _plain(position: int, entry: Other) -> list[Any]:
    if isinstance(entry, ItemAnnounced):
        return [position, _ITEM, entry.item_id, entry.category, entry.title, entry.timestamp]
    return [position, _GONE, entry.user, entry.timestamp]


def _entry(plain: list[Any]) -> tuple[int, Other]:
    position, kind, *fields = plain
    return position, (ItemAnnounced if kind == _ITEM else Forgotten)(*fields)
