"""How does a synthetic market get onto disk? Streamed, in bounded memory, whole or not at all.

    log.parquet          user_id, item_id, behavior (view, cart, buy), timestamp (seconds); in order of time
    items.parquet        item_id, category_id
    truth/users.parquet  user_id, group
    truth/items.parquet  item_id, cluster, conversion, released
    truth/affinity.parquet  group, cluster, share: P(cluster | group) of a visit that is no repeat
    market.json          config, seed, counts; written last

The truth is apart from what a model may read. Memory: one slice of at most ``VISITS_PER_SLICE`` visits with its carts
and buys, those of earlier slices that are still to come, one row group, and some 100 bytes per user and item.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from macrorec.data.market import BEHAVIORS, Events, Market, MarketConfig, events, plant
from macrorec.data.vocab import Vocab
from macrorec.errors import DataError
from macrorec.files import new_folder, told, write_json

__all__ = ["MarketConfig", "MarketReport", "read_truth", "write_market"]

SUMMARY = "market.json"
LOG_SCHEMA = pa.schema(
    [("user_id", pa.string()), ("item_id", pa.string()), ("behavior", pa.string()), ("timestamp", pa.int64())]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketReport:
    """What was written."""

    folder: Path
    events: int
    behaviors: dict[str, int]
    """Events of each behaviour, in the order of the funnel."""
    users: int
    """Users with at least one event."""
    items: int
    """Items with at least one event."""
    first: int
    """Second of the first event."""
    last: int
    """Second of the last event."""


def write_market(config: MarketConfig, folder: Path | str, seed: int, *, rows_per_group: int = 1 << 20) -> MarketReport:
    """Write the market of (config, seed) to ``folder``, which must be new, empty, or a market (which is replaced).

    ``rows_per_group`` bounds the row groups of the log; rows and their order do not depend on it. Raises ConfigError
    for a negative seed, UserError if the folder holds something else or cannot be written, ResourceError if the disk
    is full; then nothing is left of it.
    """
    assert rows_per_group > 0
    folder = Path(folder)
    market = plant(config, seed)
    with new_folder(folder, SUMMARY) as draft, told(folder):
        user_ids, item_ids = _ids("u", config.users), _ids("i", config.items)
        (draft / "truth").mkdir()
        for name, columns in _tables(market, user_ids, item_ids).items():
            pq.write_table(pa.table(columns), draft / name, compression="zstd", store_schema=False)
        counts = _write_log(events(market, seed), draft / "log.parquet", user_ids, item_ids, rows_per_group)
        write_json(draft / SUMMARY, {"config": asdict(config), "seed": seed, "counts": counts})
    return MarketReport(folder=folder, **counts)


def read_truth(folder: Path | str, users: Vocab, items: Vocab) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The planted group of each user (U,) and cluster of each item (I,); -1 for an id that the market does not have.

    ``folder`` is a market, or its truth. Raises DataError where it is neither.
    """
    folder = Path(folder)
    folder = folder / "truth" if (folder / "truth").is_dir() else folder
    labels = []
    for name, vocab, key, column in (("users", users, "user_id", "group"), ("items", items, "item_id", "cluster")):
        path = folder / f"{name}.parquet"
        try:
            frame = pl.read_parquet(path, columns=[key, column])
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{path} cannot be read as the truth of a market, a table of {key} and {column}: "
                f"{getattr(error, 'strerror', None) or str(error).splitlines()[0]}"
            ) from error
        number = vocab.numbers(frame[key])
        label = np.full(len(vocab), -1, dtype=np.int64)
        label[number[number >= 0]] = frame[column].to_numpy()[number >= 0]
        labels.append(label)
    return labels[0], labels[1]


def _write_log(
    parts: Iterator[Events], path: Path, user_ids: pa.Array, item_ids: pa.Array, rows_per_group: int
) -> dict[str, Any]:
    """Write events to ``path`` part by part; returns the fields of MarketReport but the folder."""
    names = pa.array(BEHAVIORS)
    seen_U, seen_I = np.zeros(len(user_ids), dtype=bool), np.zeros(len(item_ids), dtype=bool)
    counts = np.zeros(len(BEHAVIORS), dtype=np.int64)
    moments: list[int] = []
    rest = LOG_SCHEMA.empty_table()
    with pq.ParquetWriter(path, LOG_SCHEMA, compression="zstd", store_schema=False) as writer:
        for part in parts:
            if not len(part):
                continue
            seen_U[part.user] = seen_I[part.item] = True
            counts += np.bincount(part.behavior, minlength=len(BEHAVIORS))
            moments = [*moments[:1], int(part.time[0]), int(part.time[-1])]
            columns = [user_ids.take(pa.array(part.user)), item_ids.take(pa.array(part.item))]
            columns += [names.take(pa.array(part.behavior)), pa.array(part.time)]
            rows = pa.concat_tables([rest, pa.Table.from_arrays(columns, schema=LOG_SCHEMA)])
            whole = len(rows) // rows_per_group * rows_per_group
            if whole:
                writer.write_table(rows.slice(0, whole), row_group_size=rows_per_group)
            rest = rows.slice(whole)
        writer.write_table(rest)
    return {
        "events": int(counts.sum()),
        "behaviors": dict(zip(BEHAVIORS, counts.tolist(), strict=True)),
        "users": int(seen_U.sum()),
        "items": int(seen_I.sum()),
        "first": moments[0],
        "last": moments[-1],
    }


def _tables(market: Market, user_ids: pa.Array, item_ids: pa.Array) -> dict[str, dict[str, pa.Array]]:
    """The small files, by path inside the folder."""
    category_ids = _ids("c", market.config.categories, width=3)
    groups, clusters = market.affinity_GK.shape
    return {
        "items.parquet": {"item_id": item_ids, "category_id": category_ids.take(pa.array(market.category_I))},
        "truth/users.parquet": {"user_id": user_ids, "group": pa.array(market.group_U)},
        "truth/items.parquet": {
            "item_id": item_ids,
            "cluster": pa.array(market.cluster_I),
            "conversion": pa.array(market.conversion_I),
            "released": pa.array(market.release_I),
        },
        "truth/affinity.parquet": {
            "group": pa.array(np.repeat(np.arange(groups), clusters)),
            "cluster": pa.array(np.tile(np.arange(clusters), groups)),
            "share": pa.array(market.affinity_GK.ravel()),
        },
    }


def _ids(letter: str, n: int, width: int = 6) -> pa.Array:
    """Text ids such as u000017, all of one length, so that their order as text is that of their numbers."""
    width = 1 + max(width, len(str(n - 1)))
    letters = np.full((n, width), ord(letter), dtype=np.uint8)
    rest = np.arange(n)
    for place in range(width - 1, 0, -1):
        rest, digit = np.divmod(rest, 10)
        letters[:, place] = digit + ord("0")
    rows = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), n, [None, pa.py_buffer(letters)])
    return rows.cast(pa.binary()).cast(pa.string())
