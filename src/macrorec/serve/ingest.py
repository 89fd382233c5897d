"""How does a file of events come into a log, so that doing it twice adds nothing? A row has a source and an offset.

The source is what the file holds, or a name that the caller gives; the offset is the number of the line or row. What
the rows themselves call source or offset is passed over.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec

from macrorec.data.sources.columns import match, meaning
from macrorec.errors import DataError
from macrorec.serve.events import Event, EventError, Schema
from macrorec.serve.log import Appended, Log

GROUP = 10_000
"""Rows that are sent together."""
_UNDER_WAY = 4
"""Groups sent and not acknowledged."""
_LONGEST_LINE = 1 << 20
"""Bytes."""
SHOWN = 20
"""Refused rows whose reasons are kept."""

Row = tuple[int, Any]
"""The number of a line or row, from 1; and a mapping, or the EventError that says what it is instead."""


@dataclass(slots=True)
class Ingested:
    """What became of a file's rows, so far."""

    rows: int = 0
    added: int = 0
    duplicates: int = 0
    """Those that the log had before."""
    refused: int = 0
    reasons: list[tuple[int, str]] = field(default_factory=list)
    """(line, reason) of the first ``SHOWN`` refused ones."""

    def refuse(self, line: int, reason: str) -> None:
        """Count a row that cannot be taken."""
        self.refused += 1
        if len(self.reasons) < SHOWN:
            self.reasons.append((line, reason))


class Sink(Protocol):
    """Where events go."""

    group: int
    """How many at a time."""

    def send(self, events: Sequence[Event]) -> Future[Appended]:
        """Begin to store ``events``; EventError in the future has the index of one that is not taken."""


class LogSink:
    """A log of this process."""

    group = GROUP

    def __init__(self, log: Log) -> None:
        """Events go to ``log``."""
        self._log = log

    def send(self, events: Sequence[Event]) -> Future[Appended]:
        return self._log.submit(events)


def ingest(
    rows: Iterator[Row],
    sink: Sink,
    schema: Schema,
    source: str | None,
    *,
    behavior: str | None = None,
    milliseconds: bool = False,
    tell: Callable[[Ingested], None] | None = None,
) -> Ingested:
    """Send ``rows`` to ``sink``; what became of them.

    ``source``: with the number of each row it is counted once; None: neither. ``behavior``: of rows that do not say.
    ``milliseconds``: the unit of whole timestamps. ``tell`` is called now and then. Raises what the sink raises; then
    what was acknowledged before is counted in ``error.ingested``, and the same call goes on where it ended.
    """
    done = Ingested()
    under_way: deque[tuple[list[int], list[Event], Future[Appended]]] = deque()
    lines: list[int] = []
    events: list[Event] = []

    def send() -> None:
        nonlocal lines, events
        if events:
            under_way.append((lines, events, sink.send(events)))
            lines, events = [], []

    def settle() -> None:
        sent, given, future = under_way.popleft()
        while given:
            try:
                stored = future.result()
            except EventError as error:  # the others of the group are sent again without it
                done.refuse(sent[error.index], error.reason)
                del sent[error.index], given[error.index]
                future = sink.send(given)
                continue
            done.added += stored.added
            done.duplicates += stored.duplicates
            break
        if tell is not None:
            tell(done)

    try:
        for line, raw in rows:
            done.rows += 1
            try:
                events.append(_event(raw, schema, source, line, behavior, milliseconds))
                lines.append(line)
            except EventError as error:
                done.refuse(line, error.reason)
            if len(events) >= sink.group:
                send()
            while len(under_way) >= _UNDER_WAY:
                settle()
        send()
        while under_way:
            settle()
    except Exception as error:
        error.ingested = done  # type: ignore[attr-defined]
        raise
    return done


def _event(raw: Any, schema: Schema, source: str | None, line: int, behavior: str | None, milliseconds: bool) -> Event:
    if isinstance(raw, EventError):
        raise raw
    if isinstance(raw, Mapping):
        raw = {name: value for name, value in raw.items() if name not in ("source", "offset")}
        if milliseconds:
            raw = {name: _seconds(name, value) for name, value in raw.items()}
        if source is not None:
            raw["source"], raw["offset"] = source, line - 1
    return schema.check(raw, behavior=behavior)


def _seconds(name: Any, value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool) and isinstance(name, str)
    return value // 1000 if whole and meaning(name) == "timestamp" else value


def json_lines(stream: BinaryIO) -> Iterator[Row]:
    """The lines of ``stream`` that are not blank, each a JSON object."""
    decoder = msgspec.json.Decoder()
    number = 0
    while line := stream.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
            while (rest := stream.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            yield number, EventError(f"the line is longer than {_LONGEST_LINE:,} bytes")
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            yield number, decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield number, EventError(f"not JSON: {error}")


def parquet_rows(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file; times become Unix seconds. Raises DataError for what is no such file."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            mapping = match(names, {}, {}, str(path))
            number = 0
            for batch in file.iter_batches(batch_size=GROUP, columns=[*mapping.values()]):
                for row in _in_seconds(batch.select([*mapping.values()]).rename_columns([*mapping])).to_pylist():
                    number += 1
                    yield number, row
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def _in_seconds(batch: Any) -> Any:
    import pyarrow as pa

    place = batch.schema.get_field_index("timestamp")
    if place < 0 or not pa.types.is_timestamp(batch.schema.field(place).type):
        return batch
    column = batch.column(place)
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
    times = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    known = column.is_valid().to_numpy(zero_copy_only=False)
    seconds = pa.array([int(time // per_second) if valid else None for time, valid in zip(times, known, strict=True)])
    return batch.set_column(place, "timestamp", seconds)


def identity(path: Path) -> str:
    """What the file is called as a source: a hash of what it holds, so that it is the same under another name."""
    hasher = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return f"file-{hasher.hexdigest()}"
