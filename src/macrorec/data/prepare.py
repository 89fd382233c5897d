"""How does a raw log become ``Interactions``? Check, keep positives, drop duplicates, k-core, number the ids.

Every step is a row of the report. The result does not depend on the order of the input's rows, except where an order
is asked for: ``first`` and ``last`` among events of equal time (or of no time) go by original row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.data.kcore import k_core
from macrorec.data.log import PARTS, Behavior, Interactions, Role
from macrorec.data.vocab import Vocab, sorted_vocab
from macrorec.errors import ConfigError, DataError

DEFAULT_BEHAVIOR = Behavior(name="interaction")
"""What every event is where the log does not say."""

Dedupe = Literal["first", "last", "sum", "none"]
KEY = ("user", "item", "behavior")


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """What to keep of a raw log. Steps run in the order of the fields."""

    positive: float | None = None
    """Keep only rows whose label is at least this."""
    binary: float | None = None
    """Keep all rows, and make the label 1 where it is at least this, else 0. Excludes ``positive``."""
    dedupe: Dedupe = "first"
    """Events of one (user, item, behaviour) within a part. ``first`` and ``last`` keep one row, by time, then by row.
    ``sum`` keeps the first row, with the sum of all weights (1 per event in a log without weights). ``none`` keeps
    all."""
    k_core: int = 0
    """Keep the largest set of users and items that have at least this many distinct partners in the target behaviour
    of ``train``; rows of other behaviours stay where both ends do. 0: off. Given valid and test parts are not cut."""

    def __post_init__(self) -> None:
        if self.dedupe not in get_args(Dedupe):
            raise ConfigError(f"dedupe is {self.dedupe!r}; allowed are {', '.join(get_args(Dedupe))}")
        if self.k_core < 0:
            raise ConfigError(f"k_core is {self.k_core}; it must be 0 (off) or more")
        if self.positive is not None and self.binary is not None:
            raise ConfigError("positive and binary exclude each other: the first drops rows, the second labels them")


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A log's parts over one pair of vocabularies, each in canonical row order, and how they came about."""

    parts: Mapping[str, Interactions]
    """``train``, and ``valid`` and ``test`` where the user supplied them."""
    report: tuple[Mapping[str, Any], ...]
    """One mapping per step, over all parts, with keys as in ``Split.report``."""

    @property
    def train(self) -> Interactions:
        return self.parts["train"]


def prepare(
    parts: Mapping[str, pl.LazyFrame], behaviors: tuple[Behavior, ...] = (), config: PrepareConfig | None = None
) -> Prepared:
    """Interactions over one pair of vocabularies from raw frames with the columns of ``COLUMNS``.

    A column ``row`` (original row number) breaks ties of time; without it, rows count in the order of the frame.
    Ids are numbered in sorted order over all parts: by value if all are integers, else by bytes. Rows are put in
    canonical order: by (time, original row), or without times by (user, item, behaviour, weight, label).
    Raises DataError for rows that cannot be used (with their number and the first), and for a step that leaves nothing.
    """
    config = config or PrepareConfig()
    assert "train" in parts and set(parts) <= set(PARTS), tuple(parts)
    raw: dict[str, pl.DataFrame] = {name: _collect(parts[name], name) for name in PARTS if name in parts}
    schema = _schema(raw, behaviors)
    users, items = (
        sorted_vocab([frame[column].unique() for frame in raw.values()]) for column in ("user_id", "item_id")
    )
    frames = {name: _number(frame, name, users, items, schema) for name, frame in raw.items()}
    report: list[dict[str, Any]] = []
    assumed = [name for name in raw if "behavior" not in raw[name].columns]
    note = f"no behaviour column in {', '.join(assumed)}: all rows are {schema[-1].name!r}" if assumed else ""
    del raw
    _enter(report, "read", frames, note)

    if config.positive is not None:
        frames = {
            name: _labelled(f, name, "positive").filter(pl.col("label") >= config.positive)
            for name, f in frames.items()
        }
        _enter(report, "positives", frames, f"label >= {config.positive:g}")
    if config.binary is not None:
        label = (pl.col("label") >= config.binary).cast(pl.Float32)
        frames = {name: _labelled(f, name, "binary").with_columns(label) for name, f in frames.items()}
        _enter(report, "labels", frames, f"1 where label >= {config.binary:g}, else 0")

    frames = {name: _dedupe(_ordered(frame), config.dedupe) for name, frame in frames.items()}
    _enter(report, "dedupe", frames, config.dedupe)

    if config.k_core:
        train = frames["train"]
        target = train.filter(pl.col("behavior") == len(schema) - 1)
        keep_user, keep_item = k_core(
            target["user"].to_numpy(), target["item"].to_numpy(), len(users), len(items), config.k_core
        )
        kept = keep_user[train["user"].to_numpy()] & keep_item[train["item"].to_numpy()]
        frames["train"] = train.filter(pl.Series(kept, dtype=pl.Boolean))
        _enter(report, f"{config.k_core}-core", frames, f"on {schema[-1].name!r} of train")

    return Prepared(_compact(frames, users, items, schema), tuple(report))


def _collect(part: pl.LazyFrame, name: str) -> pl.DataFrame:
    """The part in memory, checked: ids text or Int64 and present, times, weights and labels usable."""
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


def _schema(raw: Mapping[str, pl.DataFrame], behaviors: tuple[Behavior, ...]) -> tuple[Behavior, ...]:
    """The behaviours, target last; every name in the log is among them."""
    columns = [frame["behavior"].unique() for frame in raw.values() if "behavior" in frame.columns]
    seen = sorted(set().union(*(column.to_list() for column in columns)))
    if not behaviors:
        if len(seen) > 1:
            raise DataError(
                f"the log has the behaviours {', '.join(map(repr, seen))}; say which is the target, which are auxiliary"
            )
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
    unknown = [name for name in seen if name not in names]
    if unknown:
        raise DataError(f"unknown behaviour {unknown[0]!r} in the log; allowed are {', '.join(map(repr, names))}")
    if "behavior" not in raw["train"].columns and len(behaviors) > 1:
        raise DataError(f"train: there is no column 'behavior' to tell {', '.join(map(repr, names))} apart")
    return tuple(sorted(behaviors, key=lambda b: b.role == "target"))


def _number(frame: pl.DataFrame, part: str, users: Vocab, items: Vocab, schema: tuple[Behavior, ...]) -> pl.DataFrame:
    """The frame in numbers: user, item, behavior, time, weight, label (as far as present), row."""
    user, item = users.numbers(frame["user_id"]), items.numbers(frame["item_id"])
    assert len(user) == 0 or min(user.min(), item.min()) >= 0
    columns: dict[str, Any] = {"user": pl.Series(user, dtype=pl.Int32), "item": pl.Series(item, dtype=pl.Int32)}
    if "behavior" in frame.columns:
        numbers = {b.name: number for number, b in enumerate(schema)}
        columns["behavior"] = frame["behavior"].replace_strict(numbers, return_dtype=pl.Int8)
    else:
        columns["behavior"] = pl.repeat(len(schema) - 1, len(frame), dtype=pl.Int8, eager=True)
    if "timestamp" in frame.columns:
        columns["time"] = frame["timestamp"]
    for column in ("weight", "label"):
        if column in frame.columns:
            columns[column] = frame[column].cast(pl.Float32)
    return pl.DataFrame({**columns, "row": frame["row"]})


def _labelled(frame: pl.DataFrame, part: str, key: str) -> pl.DataFrame:
    if "label" not in frame.columns:
        raise DataError(f"{part}: there is no column 'label' (or 'rating'), which {key} needs")
    return frame


def _ordered(frame: pl.DataFrame) -> pl.DataFrame:
    """Canonical order: by (time, row), or without times by content, then row."""
    if "time" in frame.columns:
        return frame.sort("time", "row")
    return frame.sort(*KEY, *(c for c in ("weight", "label") if c in frame.columns), "row")


def _dedupe(frame: pl.DataFrame, policy: Dedupe) -> pl.DataFrame:
    """One row per (user, item, behaviour), by policy; in canonical order before and after."""
    if policy == "none" or frame.is_empty():
        return frame
    n_items, n_behaviors = (int(frame[c].max()) + 1 for c in ("item", "behavior"))  # type: ignore[arg-type]
    key = (pl.col("user").cast(pl.Int64) * n_items + pl.col("item")) * n_behaviors + pl.col("behavior")
    keyed = (frame if "time" in frame.columns else frame.sort("row")).with_columns(key.alias("key"))
    kept = keyed.filter(pl.col("key").is_last_distinct() if policy == "last" else pl.col("key").is_first_distinct())
    if policy == "sum":
        weight = pl.col("weight") if "weight" in frame.columns else pl.lit(1.0)
        # The order of a float sum matters in its last bit: fix it by content.
        events = keyed.select("key", weight.cast(pl.Float64).alias("weight")).sort("key", "weight")
        first = np.flatnonzero(np.diff(events["key"].to_numpy(), prepend=-1))
        total = np.add.reduceat(events["weight"].to_numpy(), first).astype(np.float32)
        of_row = np.searchsorted(events["key"].to_numpy()[first], kept["key"].to_numpy())
        kept = kept.with_columns(pl.Series("weight", total[of_row]))
    kept = kept.select(
        "user", "item", "behavior", *(c for c in kept.columns if c in ("time", "weight", "label")), "row"
    )
    return kept if "time" in frame.columns else _ordered(kept)


def _enter(report: list[dict[str, Any]], step: str, frames: Mapping[str, pl.DataFrame], note: str) -> None:
    """Append the counts after ``step``; raise DataError if it left nothing in train."""
    columns = {c: pl.concat([frame[c] for frame in frames.values()]) for c in ("user", "item")}
    rows = len(columns["user"])
    dropped = report[-1]["rows"] - rows if report else 0
    report.append(
        {
            "step": step,
            "rows": rows,
            "users": columns["user"].n_unique(),
            "items": columns["item"].n_unique(),
            "dropped": dropped,
            "note": note,
        }
    )
    if frames["train"].is_empty():
        raise DataError(f"nothing is left in train after the step {step!r} ({note})")


def _compact(
    frames: Mapping[str, pl.DataFrame], users: Vocab, items: Vocab, schema: tuple[Behavior, ...]
) -> dict[str, Interactions]:
    """Interactions over the ids that still have a row in some part."""
    kept: dict[str, tuple[Vocab, npt.NDArray[np.int64]]] = {}
    for column, vocab in (("user", users), ("item", items)):
        keep = np.zeros(len(vocab), dtype=bool)
        for frame in frames.values():
            keep[frame[column].to_numpy()] = True
        kept[column] = (vocab, np.arange(len(vocab))) if keep.all() else vocab.subset(keep)
    parts = {}
    for name, frame in frames.items():
        columns = {c: frame[c].to_numpy() for c in frame.columns if c != "row"}
        columns |= {c: kept[c][1][columns[c]].astype(np.int32) for c in ("user", "item")}
        parts[name] = Interactions(kept["user"][0], kept["item"][0], schema, **columns)
    return parts
