"""What may a raw column hold, and what does it become? One expression per column, and one per way to be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from macrorec.data.log import COLUMNS
from macrorec.data.sources.raw import INDEX, Raw
from macrorec.errors import DataError

TimeUnit = Literal["s", "ms"]
SECONDS_FROM, MILLIS_FROM, MICROS_FROM = 10**8, 10**11, 10**14
"""By magnitude: seconds from 1973 on, milliseconds from 1973 on (seconds of the year 5138), and what is neither."""
TIME_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.fZ",
    "%Y-%m-%d %H:%M:%S%.f UTC",
    "%Y-%m-%d",
)
BEFORE = "raw:"
"""Prefix of a column as it stands in the file, beside the typed one."""


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """One way in which a row can be wrong."""

    column: str
    reason: str
    """What is wrong, and what is allowed."""
    bad: pl.Expr
    """True where the row is wrong, else false; over the columns of ``Typed.frame``."""


@dataclass(frozen=True, slots=True, eq=False)
class Typed:
    """A log with our columns and types, and what has to be checked."""

    frame: pl.LazyFrame
    """Each column of ``columns``, typed; the same as it was, with the prefix ``BEFORE``; and ``INDEX``."""
    columns: tuple[str, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...]

    @property
    def good(self) -> pl.Expr:
        """True where no check finds a row wrong."""
        return ~pl.any_horizontal(check.bad for check in self.checks)


def typed(raw: Raw, mapping: Mapping[str, str], unit: TimeUnit | None, behaviors: tuple[str, ...], where: str) -> Typed:
    """Our columns from ``raw``; ``behaviors`` are the allowed names, () for any. Raises DataError for a wrong type.

    Rows that are blank in every mapped column are passed over.
    """
    columns = tuple(name for name in COLUMNS if name in mapping)
    frame = raw.frame.select(INDEX, *(pl.col(mapping[name]).alias(BEFORE + name) for name in columns))
    schema = frame.collect_schema()
    frame = frame.filter(~pl.all_horizontal(pl.col(BEFORE + name).is_null() for name in columns))
    expressions: list[pl.Expr] = []
    checks: list[Check] = []
    notes: list[str] = []
    for name in columns:
        dtype, before = schema[BEFORE + name], pl.col(BEFORE + name)
        place = f"{where}: column {mapping[name]!r}"
        empty = before.is_null() | (before == "").fill_null(False) if dtype == pl.String else before.is_null()
        checks.append(Check(name, f"{name} is missing", empty))
        if name in ("user_id", "item_id"):
            value, wrong = _identifier(dtype, before, place)
            checks.append(Check(name, f"{name} is not an integer of 64 bits", ~empty & wrong))
        elif name == "behavior":
            value = _text(dtype, before, place)
            if behaviors:
                allowed = ", ".join(map(repr, behaviors))
                unknown = ~pl.col(name).is_in(behaviors).fill_null(True)
                checks.append(Check(name, f"unknown behavior (declared are {allowed})", ~empty & unknown))
        elif name == "timestamp":
            value, note = _time(frame, dtype, before, unit, place)
            notes.extend(note)
            checks.append(Check(name, "timestamp is not a number", ~empty & pl.col(name).is_null()))
        else:
            value = _number(dtype, before, place)
            checks.append(Check(name, f"{name} is not a number", ~empty & pl.col(name).is_null()))
            checks.append(Check(name, f"{name} is not finite", ~pl.col(name).is_finite().fill_null(True)))
            if name == "weight":
                checks.append(Check(name, "weight is negative", (pl.col(name) < 0).fill_null(False)))
        expressions.append(value.alias(name))
    return Typed(frame.with_columns(expressions), columns, tuple(checks), tuple(notes))


def _identifier(dtype: pl.DataType, before: pl.Expr, place: str) -> tuple[pl.Expr, pl.Expr]:
    if dtype.is_integer() or dtype.is_float():
        value = before.cast(pl.Int64, strict=False)
        return value, value.is_null() | (value != before).fill_null(True)
    return _text(dtype, before, place), pl.lit(False)


def _text(dtype: pl.DataType, before: pl.Expr, place: str) -> pl.Expr:
    if dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        raise DataError(f"{place} is of type {dtype}; allowed are text and integers")
    return before.cast(pl.String)


def _number(dtype: pl.DataType, before: pl.Expr, place: str) -> pl.Expr:
    if not (dtype.is_numeric() or dtype in (pl.String, pl.Boolean, pl.Null)):
        raise DataError(f"{place} is of type {dtype}; allowed are numbers")
    return before.cast(pl.Float64, strict=False)


def _time(
    frame: pl.LazyFrame, dtype: pl.DataType, before: pl.Expr, unit: TimeUnit | None, place: str
) -> tuple[pl.Expr, list[str]]:
    """Whole seconds or milliseconds; dates in words become ``unit``, by default seconds."""
    if dtype.is_integer():
        return before.cast(pl.Int64, strict=False), []
    if dtype.is_float():
        return before.floor().cast(pl.Int64, strict=False), []
    if dtype in (pl.Datetime, pl.Date):
        note = f"dates of {dtype} become {unit or 's'}"
        return before.cast(pl.Datetime("us")).dt.epoch(unit or "s"), [note]
    if dtype == pl.Null:
        return before.cast(pl.Int64), []
    if dtype != pl.String:
        raise DataError(f"{place} is of type {dtype}; allowed are numbers and dates")
    first = frame.select(before).filter(before.is_not_null() & (before != "")).head(1).collect()
    if len(first) and first.to_series().cast(pl.Float64, strict=False).null_count():
        for pattern in TIME_FORMATS:
            parsed = before.str.to_datetime(pattern, time_unit="us", strict=False)
            if not first.select(parsed.is_null()).item():
                return parsed.dt.epoch(unit or "s"), [f"dates like {first.item()!r} become {unit or 's'} (UTC)"]
    whole = before.cast(pl.Int64, strict=False)
    fraction = before.cast(pl.Float64, strict=False).floor().cast(pl.Int64, strict=False)
    return pl.coalesce(whole, fraction), []
