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
from macrorec.data.log import PARTS, Behavior, Interactions
from macrorec.data.schema import behaviors_of, collect
from macrorec.data.vocab import Vocab, sorted_vocab
from macrorec.errors import ConfigError, DataError

Dedupe = Literal["first", "last", "sum", "none"]


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
    of ``train``; rows of other behaviours stay where both ends do. 0: off. Given valid and test parts are not cut.
    Events that a split holds out later count here; ``SplitConfig.train_core`` sees train alone."""

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
    raw: dict[str, pl.DataFrame] = {name: collect(parts[name], name) for name in PARTS if name in parts}
    schema = behaviors_of(raw, behaviors)
    users, items = (
        sorted_vocab([frame[column].unique() for frame in raw.values()]) for column in ("user_id", "item_id")
    )
    frames = {name: _number(frame, users, items, schema) for name, frame in raw.items()}
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


def _number(frame: pl.DataFrame, users: Vocab, items: Vocab, schema: tuple[Behavior, ...]) -> pl.DataFrame:
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
    return frame.sort("user", "item", "behavior", *(c for c in ("weight", "label") if c in frame.columns), "row")


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
        total = np.add.reduceat(events["weight"].to_numpy(), first)
        if total.max() > np.finfo(np.float32).max:
            raise DataError(f"the weights of one user, item and behaviour sum to {total.max():g}, beyond float32")
        of_row = np.searchsorted(events["key"].to_numpy()[first], kept["key"].to_numpy())
        kept = kept.with_columns(pl.Series("weight", total[of_row].astype(np.float32)))
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
        columns = {c: frame[c].to_numpy(writable=True) for c in frame.columns if c != "row"}
        columns |= {c: kept[c][1][columns[c]].astype(np.int32) for c in ("user", "item")}
        parts[name] = Interactions(kept["user"][0], kept["item"][0], schema, **columns)
    return parts
