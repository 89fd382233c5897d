"""Does a raw log keep to the schema: its columns, its values, its behaviours?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import polars as pl

from macrorec.data.log import Behavior, Role
from macrorec.errors import ConfigError, DataError

DEFAULT_BEHAVIOR = Behavior(name="interaction")
"""What every event is where the log does not say."""
MOST_BEHAVIORS = 127
"""Rows hold the behaviour's index as int8."""


def collect(part: pl.LazyFrame, name: str) -> pl.DataFrame:
    """The part in memory: ids text or integers, behaviour text, timestamp Int64, weight and label Float64, and ``row``.

    Raises DataError for a column of another type, and for rows with a missing value, a weight or label that is not
    finite in float32, or a negative weight: how many there are, and the first.
    """
    names = part.collect_schema().names()
    for column in ("user_id", "item_id"):
        if column not in names:
            raise DataError(f"{name}: there is no column {column!r}; found {', '.join(map(repr, names))}")
    if "row" not in names:
        part = part.with_row_index("row")
    types = {"behavior": pl.String, "timestamp": pl.Int64, "weight": pl.Float64, "label": pl.Float64}
    frame = part.select("user_id", "item_id", *(c for c in types if c in names), "row").collect()
    if frame.is_empty():
        raise DataError(f"{name}: there are no rows")
    for column in frame.columns[:-1]:
        _refuse(frame, name, pl.col(column).is_null(), f"{column} is missing")
        dtype = frame.schema[column]
        text = dtype in (pl.String, pl.Categorical, pl.Enum)
        if column in ("user_id", "item_id") and not (text or dtype.is_integer()):
            raise DataError(f"{name}: column {column!r} is {dtype}; ids are text or integers")
        if column == "behavior" and not text:
            raise DataError(f"{name}: column {column!r} is {dtype}; behaviours are text")
        if column == "timestamp" and not dtype.is_integer():
            raise DataError(f"{name}: column {column!r} is {dtype}; times are integers, in seconds or milliseconds")
        if column in ("weight", "label") and not dtype.is_numeric():
            raise DataError(f"{name}: column {column!r} is {dtype}; it must be numeric")
    frame = frame.with_columns(pl.col(column).cast(types[column]) for column in frame.columns if column in types)
    for column in ("weight", "label"):
        if column in frame.columns:
            bad = ~pl.col(column).cast(pl.Float32).is_finite()
            _refuse(frame, name, bad, f"{column} is not a finite number", column)
    if "weight" in frame.columns:
        _refuse(frame, name, pl.col("weight") < 0, "weight is negative", "weight")
    return frame


def _refuse(frame: pl.DataFrame, part: str, bad: pl.Expr, what: str, column: str | None = None) -> None:
    """Raise DataError with the number of bad rows and the first of them, if there are any."""
    offenders = frame.filter(bad).sort("row")
    if len(offenders):
        value = f" ({offenders[column][0]!r})" if column else ""
        first = f"the first is row {offenders['row'][0] + 1}{value}"
        raise DataError(f"{part}: {what} in {len(offenders):,} of {len(frame):,} rows; {first}")


def behaviors_of(raw: Mapping[str, pl.DataFrame], behaviors: tuple[Behavior, ...]) -> tuple[Behavior, ...]:
    """The behaviours, target last; every name in the log is among them."""
    columns = [frame["behavior"].unique() for frame in raw.values() if "behavior" in frame.columns]
    seen = sorted(set().union(*(column.to_list() for column in columns)))
    if not behaviors:
        if len(seen) > 1:
            raise DataError(_undeclared(raw, seen))
        return (Behavior(name=seen[0]),) if seen else (DEFAULT_BEHAVIOR,)
    names = [b.name for b in behaviors]
    if len(set(names)) < len(names):
        raise ConfigError(f"each behaviour is declared once; got {', '.join(map(repr, names))}")
    for b in behaviors:
        if b.role not in get_args(Role):
            raise ConfigError(f"behaviour {b.name!r} has the role {b.role!r}; allowed are {', '.join(get_args(Role))}")
        if not 0 <= b.weight < np.inf:
            raise ConfigError(f"behaviour {b.name!r} has the weight {b.weight}; it must be a finite number, 0 or more")
    if [b.role for b in behaviors].count("target") != 1:
        roles = ", ".join(f"{b.name!r} {b.role}" for b in behaviors)
        raise ConfigError(f"exactly one behaviour must have the role 'target'; got {roles}")
    if len(names) > MOST_BEHAVIORS:
        raise ConfigError(f"{len(names)} behaviours are declared; at most {MOST_BEHAVIORS} are possible")
    unknown = [name for name in seen if name not in names]
    if unknown:
        raise DataError(f"unknown behaviour {unknown[0]!r} in the log; allowed are {', '.join(map(repr, names))}")
    if "behavior" not in raw["train"].columns and len(behaviors) > 1:
        raise DataError(f"train: there is no column 'behavior' to tell {', '.join(map(repr, names))} apart")
    return tuple(sorted(behaviors, key=lambda b: b.role == "target"))


def _undeclared(raw: Mapping[str, pl.DataFrame], seen: Sequence[str]) -> str:
    """What to say to whom has a log of several behaviours: all of it filled in, the rarest taken to be the target."""
    every = pl.concat([frame["behavior"] for frame in raw.values() if "behavior" in frame.columns])
    counts = dict(every.value_counts().rows())
    *others, target = (json.dumps(name, ensure_ascii=False) for name in sorted(seen, key=lambda own: -counts[own]))
    tables = [*(f'{{ name = {name}, role = "auxiliary", mask = false }}' for name in others), f"{{ name = {target} }}"]
    return (
        f"the log has the behaviours {', '.join(map(repr, seen))}; say which is the target, "
        f"such as target={target} in Python, or --target {target}, "
        f"or in [source]: behaviors = [{', '.join(tables)}]"
    )
