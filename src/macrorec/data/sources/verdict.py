"""What did one pass over a log find? Counts for every check, and the span and the unit of its times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from macrorec.data.sources.checks import BEFORE, MICROS_FROM, MILLIS_FROM, SECONDS_FROM, Check, TimeUnit, Typed
from macrorec.data.sources.raw import INDEX


@dataclass(frozen=True, slots=True)
class Fault:
    """Rows that are wrong in one way."""

    column: str
    reason: str
    rows: int
    first: int
    """Number of the first such row in the file, from 0."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one pass found."""

    rows: int
    """Rows that are not blank."""
    faults: tuple[Fault, ...]
    times: tuple[int, int] | None = None
    """The first and the last time, where there are any."""
    seconds_at: int | None = None
    """A row whose time can only be seconds."""
    millis_at: int | None = None
    """A row whose time can only be milliseconds."""
    beyond_at: int | None = None
    """A row whose time is too large for either."""

    @property
    def unit(self) -> TimeUnit:
        """The unit of the times, by magnitude."""
        return "s" if self.millis_at is None else "ms"


def questions(log: Typed) -> pl.LazyFrame:
    """One row of everything that ``answers`` needs, computed in one pass."""
    asked: list[pl.Expr] = [pl.len().alias("rows")]
    for number, check in enumerate(log.checks):
        asked.append(check.bad.sum().alias(f"bad {number}"))
        asked.append(pl.col(INDEX).filter(check.bad).min().alias(f"first {number}"))
    if "timestamp" in log.columns:
        time = pl.col("timestamp")
        size = time.abs()
        ranges = {
            "seconds": size.is_between(SECONDS_FROM, MILLIS_FROM, closed="left"),
            "millis": size.is_between(MILLIS_FROM, MICROS_FROM, closed="left"),
            "beyond": size >= MICROS_FROM,
        }
        asked += [time.min().alias("earliest"), time.max().alias("latest")]
        asked += [pl.col(INDEX).filter(inside).min().alias(name) for name, inside in ranges.items()]
    return log.frame.select(asked)


def answers(log: Typed, found: pl.DataFrame) -> Verdict:
    """The verdict from the one row that ``questions`` gave."""
    row: Mapping[str, Any] = found.row(0, named=True)

    def fault(number: int, check: Check) -> Fault:
        return Fault(check.column, check.reason, row[f"bad {number}"], row[f"first {number}"])

    faults = tuple(fault(n, check) for n, check in enumerate(log.checks) if row[f"bad {n}"])
    if row.get("earliest") is None:
        return Verdict(row["rows"], faults)
    return Verdict(row["rows"], faults, (row["earliest"], row["latest"]), row["seconds"], row["millis"], row["beyond"])


def value_at(log: Typed, row: int, column: str) -> Any:
    """What stands in the file at ``row`` (its number in the file) under our ``column``."""
    return log.frame.filter(pl.col(INDEX) == row).select(BEFORE + column).collect(engine="streaming").item()
