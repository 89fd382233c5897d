"""How does a table in memory, or whatever else a user holds, become Interactions?

A table is a frame of polars, pandas or pyarrow, or a mapping of columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from macrorec.data.log import COLUMNS, Behavior, Interactions
from macrorec.data.prepare import PrepareConfig, prepare
from macrorec.data.sources.columns import match
from macrorec.data.sources.source import Source, read
from macrorec.errors import ConfigError, DataError


def frame_of(table: Any, where: str = "log") -> pl.DataFrame:
    """``table`` as a polars frame. Raises DataError for what is no table."""
    try:
        if isinstance(table, pl.LazyFrame):
            return table.collect()
        return table if isinstance(table, pl.DataFrame) else pl.DataFrame(table)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{where}: {type(table).__name__} is no table of columns: {reason}") from error


def read_table(table: Any, columns: Mapping[str, str] | None = None, where: str = "log") -> pl.DataFrame:
    """The columns of ``COLUMNS`` that ``table`` has, under those names, in that order; dates become seconds.

    ``columns`` maps ours to the table's, where the name is not a known one; an empty name leaves ours out. Raises
    DataError for a missing user or item column.
    """
    frame = frame_of(table, where)
    mapping = match(frame.columns, columns or {}, {}, where)
    found = [name for name in COLUMNS if name in mapping]
    frame = frame.select(pl.col(mapping[name]).alias(name) for name in found)
    if frame.schema.get("timestamp") in (pl.Datetime, pl.Date):
        frame = frame.with_columns(pl.col("timestamp").cast(pl.Datetime("us")).dt.epoch("s"))
    if "behavior" in found and frame.schema["behavior"] in (pl.Categorical, pl.Enum):
        frame = frame.with_columns(pl.col("behavior").cast(pl.String))
    return frame


def read_log(
    log: Any,
    *,
    target: str | None = None,
    behaviors: Sequence[Behavior] | None = None,
    columns: Mapping[str, str] | None = None,
    positive: float | None = None,
    binary: float | None = None,
) -> tuple[Interactions, tuple[bool, bool]]:
    """A file, table or Interactions as Interactions, and whether ids of users and of items came as text in a table.

    ``target`` names one behaviour of several; the others are then auxiliary and do not mask. ``positive`` keeps rows
    with at least this label; ``binary`` keeps all, and makes the label 1 there, else 0. Repeated events stay, so that
    their weights add up.
    """
    if isinstance(log, Interactions):
        return log, (False, False)
    if target is not None and behaviors is not None:
        raise ConfigError("give target or behaviors, not both")
    schema = tuple(behaviors or ())
    text = (False, False)
    if isinstance(log, str | Path):
        frame = read(Source(path=str(log), columns=dict(columns or {}), behaviors=schema))
    else:
        table = read_table(log, columns)
        text = (not table["user_id"].dtype.is_integer(), not table["item_id"].dtype.is_integer())
        frame = table.lazy()
    if target is not None:
        if "behavior" not in frame.collect_schema().names():
            raise ConfigError(f"target is {target!r}, but the log has no column of behaviours")
        names = sorted(frame.select(pl.col("behavior").unique()).collect().to_series().drop_nulls().to_list())
        if target not in names:
            raise ConfigError(f"the log has no behaviour {target!r}; it has {', '.join(map(repr, names))}")
        others = (Behavior(name=name, role="auxiliary", mask=False) for name in names if name != target)
        schema = (*others, Behavior(name=target))
    config = PrepareConfig(positive=positive, binary=binary, dedupe="none")
    return prepare({"train": frame}, schema, config).train, text
