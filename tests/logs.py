"""Small hand-made logs for tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from macrorec.data.log import Behavior, Interactions, Split
from macrorec.data.prepare import PrepareConfig, Prepared, prepare

FUNNEL = (Behavior(name="view", role="auxiliary", mask=False), Behavior(name="buy"))
"""A target that masks and an auxiliary behaviour that does not."""
SHORT = {"user": "user_id", "item": "item_id", "time": "timestamp"}


def raw(columns: str, *rows: Sequence[Any]) -> pl.LazyFrame:
    """A raw part from rows; ``columns`` is "user item behavior time ...", a word per column."""
    names = [SHORT.get(name, name) for name in columns.split()]
    return pl.DataFrame(list(rows), schema=names, orient="row", infer_schema_length=None).lazy()


def prepared(columns: str, *rows: Sequence[Any], behaviors: tuple[Behavior, ...] = (), **config: Any) -> Prepared:
    """One part, prepared; keeps duplicates unless told otherwise."""
    config.setdefault("dedupe", "none")
    return prepare({"train": raw(columns, *rows)}, behaviors, PrepareConfig(**config))


def rows_of(log: Interactions) -> list[tuple[Any, ...]]:
    """The rows with external ids, sorted."""
    return sorted(log.frame().rows())


def pairs_of(log: Interactions) -> list[tuple[Any, Any]]:
    """The (user id, item id) of every row, sorted."""
    return sorted(zip(log.users.ids_of(log.user), log.items.ids_of(log.item), strict=True))


def split_of(
    train: Sequence[Sequence[Any]],
    test: Sequence[Sequence[Any]] = (),
    valid: Sequence[Sequence[Any]] = (),
    *,
    columns: str = "user item",
    behaviors: tuple[Behavior, ...] = (),
) -> Split:
    """A split with exactly these rows, over all their ids."""
    everything = prepared(columns, *train, *valid, *test, behaviors=behaviors).train
    parts = {}
    for name, rows in (("train", train), ("valid", valid), ("test", test)):
        if rows:
            part = prepared(columns, *rows, behaviors=behaviors or everything.behaviors).train
            frame = part.frame()
            user, item = everything.users.numbers(frame["user_id"]), everything.items.numbers(frame["item_id"])
            parts[name] = Interactions(
                everything.users, everything.items, part.behaviors, user.astype(np.int32), item.astype(np.int32),
                part.behavior, part.time, part.weight, part.label,
            )  # fmt: skip
        else:
            parts[name] = everything.take(np.arange(0))
    return Split(**parts, protocol={})
