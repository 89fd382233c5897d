"""Where does a log lie, what do its columns mean, and how does it become a frame with our names and types?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from macrorec.data.log import Behavior
from macrorec.data.sources.checks import TimeUnit
from macrorec.data.sources.formats import name_of
from macrorec.data.sources.opening import Opened, Part, open_part
from macrorec.data.sources.raw import INDEX, line_of
from macrorec.data.sources.verdict import Verdict, answers, questions, value_at
from macrorec.errors import DataError

ROW = "row"
"""Last column of every frame that ``read`` returns: the row's number in the file, from 0; breaks ties of time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A log: one file, or one per part where the user supplies the split."""

    path: str
    """The log, or its train part: a path, or a path inside the data folder."""
    valid: str | None = None
    """The valid part, where it is given."""
    test: str | None = None
    """The test part, where it is given."""
    extra: tuple[str, ...] = ()
    """Further files whose rows join the train part, after its own; of the same columns, types and unit of time.
    ``read`` joins them, so that cuts see them; ``inspect`` and imports look at ``path`` alone."""
    format: str = "auto"
    """auto, csv (also TSV), parquet, jsonl, atomic, movielens, lightgcn, or edges."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Ours -> the file's, where the name is not a known one; an empty name leaves ours out. Columns of a file without
    header are called 1, 2, ..."""
    time_unit: TimeUnit | None = None
    """Unit of the timestamps, s or ms; None: by magnitude."""
    behavior: str | None = None
    """Name of the behaviour of all rows of a file without a behaviour column."""
    behaviors: tuple[Behavior, ...] = ()
    """All behaviours; (): the one that is there, as the target."""
    separator: str | None = None
    """What separates fields; None: as the format has it, or by the header."""
    quoted: bool = True
    """CSV only: whether quotation marks quote, or are ordinary characters."""
    items: str | None = None
    """The item file, where there is one: Parquet, CSV or TSV, or atomic; a path, or a path inside the data folder."""
    category: str | None = None
    """Its column of categories: one value, a list, or text of several; None: by its name, if it has a known one."""
    title: str | None = None
    """Its column of titles; None: likewise."""


@dataclass(frozen=True, slots=True)
class Inference:
    """What was made of a file, and why."""

    path: Path
    format: str
    mapping: Mapping[str, str]
    """Ours -> the file's."""
    unused: tuple[str, ...]
    """Columns of the file that nothing came of."""
    rows: int
    time_unit: TimeUnit | None
    """None where there are no times."""
    times: tuple[int, int] | None
    """First and last time."""
    notes: tuple[str, ...]
    """One line per thing that was inferred, not declared."""


def read(source: Source, part: Part = "train") -> pl.LazyFrame:
    """The rows of ``part``: those of ``COLUMNS`` that are there, in that order, then ``row``; nothing dropped.

    Rows of ``source.extra`` follow those of train, and are numbered on.

    Ids are text (Int64 where Parquet holds integers), timestamps Int64 in the file's unit, weight and label Float64.
    The file is checked in one pass now, so that collecting the frame does not fail; rows come in no promised order.
    Raises DataError, with the line and the value, for whatever is not as declared.
    """
    if part == "train" and source.extra:
        return _joined(source)
    opened = open_part(source, part)
    examine(opened)
    return opened.frame.select(*opened.columns, pl.col(INDEX).alias(ROW))


def _joined(source: Source) -> pl.LazyFrame:
    """Train with the rows of ``source.extra``. Raises DataError for a file that is not like train."""
    frames: list[pl.LazyFrame] = []
    kinds: list[str] = []
    first = 0
    for path in (source.path, *source.extra):
        opened = open_part(replace(source, path=path, extra=()))
        verdict = examine(opened)
        frame = opened.frame.select(*opened.columns, (pl.col(INDEX).cast(pl.Int64) + first).alias(ROW))
        frames.append(frame)
        unit = "" if verdict.times is None else f", times in {source.time_unit or verdict.unit}"
        kinds.append(", ".join(f"{name} {kind}" for name, kind in list(frame.collect_schema().items())[:-1]) + unit)
        if kinds[-1] != kinds[0]:
            raise DataError(f"{opened.path}: an extra file is like train, which has {kinds[0]}; it has {kinds[-1]}")
        first = frame.select(pl.col(ROW).max()).collect(engine="streaming").item() + 1
    return pl.concat(frames)


def behaviors_in(source: Source, part: Part = "train") -> dict[str, int]:
    """Rows per behaviour, the most frequent first; empty where the log has no behaviours. Raises as ``read`` does."""
    frame = read(source, part)
    if "behavior" not in frame.collect_schema().names():
        return {}
    counts = frame.group_by("behavior").len().collect(engine="streaming")
    return dict(counts.sort("len", "behavior", descending=[True, False]).rows())


def inspect(source: Source, part: Part = "train") -> Inference:
    """What ``read`` makes of the file, and why. Reads all of it, and raises as ``read`` does."""
    opened = open_part(source, part)
    return inference(opened, examine(opened))


def examine(opened: Opened) -> Verdict:
    """One pass over all rows. Raises DataError for the first fault."""
    with opened.reading():
        verdict = answers(opened.log, questions(opened.log).collect(engine="streaming"))
    refuse(opened, verdict)
    return verdict


def refuse(opened: Opened, verdict: Verdict, *, faults: bool = True) -> None:
    """Raise DataError if ``verdict`` found no rows, a mixture of time units, or (with ``faults``) a wrong row."""
    where = opened.path
    if not verdict.rows:
        raise DataError(f"{where}: there are no rows{'' if opened.raw.defaults else ' after the header'}")
    if faults and verdict.faults:
        first = min(verdict.faults, key=lambda fault: fault.first)
        value = shown(opened, first.first, first.column)
        more = f", one of {first.rows:,} such rows" if first.rows > 1 else ""
        if first.reason == f"{first.column} is missing" and first.column not in ("user_id", "item_id"):
            more += f"; map {first.column} to nothing to leave the column out"
        raise DataError(f"{where}: {line(opened, first.first, first.column)}: {first.reason}{value}{more}")
    if verdict.beyond_at is not None:
        raise DataError(
            f"{where}: {line(opened, verdict.beyond_at, 'timestamp')}: timestamp{shown(opened, verdict.beyond_at)} "
            "is too large for seconds and for milliseconds; convert it"
        )
    declared = opened.source.time_unit
    if verdict.millis_at is not None and (verdict.seconds_at is not None or declared == "s"):
        millis = f"{line(opened, verdict.millis_at, 'timestamp')}{shown(opened, verdict.millis_at)}"
        if verdict.seconds_at is None:
            raise DataError(f"{where}: timestamps are declared in s, but {millis} is in milliseconds")
        seconds = f"{line(opened, verdict.seconds_at, 'timestamp')}{shown(opened, verdict.seconds_at)}"
        raise DataError(f"{where}: timestamps mix units: {seconds} is in seconds, {millis} in milliseconds")


def line(opened: Opened, row: int, column: str) -> str:
    """Where row ``row`` stands in the file, in words."""
    return line_of(opened.path, opened.raw, row, value_at(opened.log, row, column))


def shown(opened: Opened, row: int, column: str = "timestamp") -> str:
    """The value at ``row``, ready to follow a word; nothing where there is none."""
    value = value_at(opened.log, row, column)
    return "" if value is None or value == "" else f" {str(value)[:80]!r}"


def inference(opened: Opened, verdict: Verdict) -> Inference:
    """What was made of the file, in the light of all rows."""
    notes = list(opened.notes)
    unit = None
    if verdict.times is not None:
        unit = opened.source.time_unit or verdict.unit
        if opened.source.time_unit is None:
            notes.append(f"timestamps are in {unit}, by their magnitude ({verdict.times[0]} to {verdict.times[1]})")
        elif unit == "ms" and verdict.millis_at is None:
            notes.append("timestamps are declared in ms, but are as small as seconds")
    unused = tuple(name for name in opened.raw.names if name not in opened.mapping.values())
    if unused:
        notes.append(f"not used: {', '.join(unused)}")
    return Inference(
        opened.path, name_of(opened.format), opened.mapping, unused, verdict.rows, unit, verdict.times, tuple(notes)
    )
