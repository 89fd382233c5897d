"""What do we know of the items besides what happened to them? Their categories and titles, from an item file.

Letters: I items of the log, L all (item, category) entries, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.data.sources.columns import listed, meaning, plain_name
from macrorec.data.sources.formats import formats
from macrorec.data.sources.home import locate
from macrorec.data.sources.opening import broken_at, told
from macrorec.data.sources.raw import INDEX, Head, Raw, check_text, head
from macrorec.data.sources.source import Source
from macrorec.data.vocab import Vocab, sorted_vocab
from macrorec.errors import ConfigError, DataError

PICKS = ("first", "last", "rarest", "all")
CATEGORY = ("category", "category_id", "categories", "category_ids", "genre", "genres", "class")
"""Names of a column of categories, the likelier ones first; compared as those of a log are."""
TITLE = ("title", "movie_title", "item_title", "product_title", "name", "item_name")
"""Names of a column of titles."""
BAR = "|"
"""Separates several categories in one field of CSV, as MovieLens has it."""


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """Categories and titles of the items of one vocabulary."""

    names: tuple[str, ...]
    """Categories that at least one of the items has, in order: by number if all are numbers, else by text; (C,)."""
    start_I: npt.NDArray[np.int64]
    """The categories of item i are category_L[start_I[i] : start_I[i + 1]]; shape (I + 1,)."""
    category_L: npt.NDArray[np.int32]
    """Indices into ``names``, in the file's order, no category twice for one item."""
    titles: pl.Series | None
    """A title per item, null where the file has none; None where there is no column of titles."""
    path: Path
    """The item file."""
    category: str | None
    """Its column of categories; None where it has none."""
    absent: int
    """Items of the log that the file does not know."""
    empty: int
    """Items of the log that the file knows, but without a category."""
    strangers: int
    """Rows of the file whose id is no item of the log."""

    def __len__(self) -> int:
        return len(self.start_I) - 1

    def groups(self, pick: str = "first") -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
        """One category per item, and the categories' names: of_N (I,), -1 where the item has none.

        ``pick`` says which of several counts: ``first``, ``last``, ``rarest`` (that of fewest items; the first such),
        or ``all``: each set of categories is one of its own. Only what is picked for some item is named. Raises
        DataError where no item has a category.
        """
        if pick not in PICKS:
            raise ConfigError(f"pick is {pick!r}; allowed are {', '.join(PICKS)}")
        if not self.names:
            why = "has no column of categories" if self.category is None else "has a category for none of them"
            raise DataError(f"{self.path}: none of the log's {len(self):,} items has a category: the file {why}")
        size_I = np.diff(self.start_I)
        some = np.flatnonzero(size_I)
        names: Sequence[str] = self.names
        if pick == "all":
            item_L = np.repeat(np.arange(len(self)), size_I)
            ordered = self.category_L[np.lexsort((self.category_L, item_L))].tolist()
            sets = [tuple(ordered[self.start_I[item] : self.start_I[item + 1]]) for item in some]
            number = {categories: n for n, categories in enumerate(sorted(set(sets)))}
            picked = np.array([number[categories] for categories in sets])
            names = [", ".join(self.names[category] for category in categories) for categories in number]
        elif pick == "rarest":
            rank_C = np.bincount(self.category_L)
            place_L = rank_C[self.category_L] * (int(size_I.max()) + 1)
            place_L += np.arange(len(place_L)) - np.repeat(self.start_I[:-1], size_I)
            least = np.minimum.reduceat(place_L, self.start_I[some]) % (int(size_I.max()) + 1)
            picked = self.category_L[self.start_I[some] + least]
        else:
            picked = self.category_L[self.start_I[some] if pick == "first" else self.start_I[some + 1] - 1]
        used, place = np.unique(picked, return_inverse=True)
        of_N = np.full(len(self), -1, dtype=np.int32)
        of_N[some] = place
        return of_N, tuple(names[category] for category in used)


def read_catalog(source: Source, items: Vocab) -> Catalog | None:
    """What the item file of ``source`` says of ``items``; None where it has no item file.

    Ids are compared as ``Vocab.numbers`` compares them. Several rows of one item add up; its first title counts. Raises
    ConfigError for a category or title without an item file, DataError for a file that cannot be read or lacks a
    column.
    """
    if source.items is None:
        if source.category or source.title:
            named = "category" if source.category else "title"
            raise ConfigError(f"{named} is {getattr(source, named)!r}, but there is no item file; set items, too")
        return None
    path = locate(source.items)
    start = head(path)
    module = _format_of(path, start)
    with told(path, lambda: broken_at(module, path, None, source.quoted)):
        raw = module.scan(path, start, None, source.quoted)
    key = _column("item_id", raw, path, source.columns.get("item_id"))
    category = source.category or _known(raw, CATEGORY)
    title = source.title or _known(raw, TITLE)
    if category is None and title is None:
        raise DataError(f"{path}: no known column of categories or titles; the file has {listed(raw.names)}")
    columns = {"id": key, "category": category, "title": title}
    for ours, theirs in columns.items():
        if theirs is not None and theirs not in raw.names:
            raise DataError(f"{path}: there is no column {theirs!r} for {ours}; the file has {listed(raw.names)}")
    with told(path, lambda: broken_at(module, path, raw, source.quoted)):
        wanted = {ours: pl.col(theirs) for ours, theirs in columns.items() if theirs is not None}
        frame = raw.frame.select(INDEX, **wanted).sort(INDEX).collect()
    number = items.numbers(frame["id"])
    frame = frame.with_columns(item=pl.Series(number)).filter(pl.col("item") >= 0)
    separator = " " if category in raw.sequences else None if raw.separator is None else BAR
    names, start_I, category_L = _lists(frame, len(items), separator, f"{path}: column {category!r}")
    known_I = np.bincount(frame["item"], minlength=len(items)) > 0
    return Catalog(
        names=names,
        start_I=start_I,
        category_L=category_L,
        titles=_titles(frame, len(items)),
        path=path,
        category=category,
        absent=int((~known_I).sum()),
        empty=int((known_I & (np.diff(start_I) == 0)).sum()),
        strangers=int((number < 0).sum()),
    )


def _format_of(path: Path, start: Head) -> ModuleType:
    """Parquet and atomic files tell what they are; the rest is taken for CSV."""
    known = formats()
    if known["parquet"].looks(start):
        return known["parquet"]
    check_text(path, start.start)
    return known["atomic"] if known["atomic"].looks(start) else known["csv"]


def _column(ours: str, raw: Raw, path: Path, declared: str | None) -> str:
    """The file's name for ``ours``: as in the log, or a known one. Raises DataError where there is not just one."""
    if declared in raw.names:
        return declared
    found = [name for name in raw.names if meaning(name) == ours]
    if len(found) != 1:
        what = f"the columns {' and '.join(map(repr, found))} all mean" if found else "no column for"
        raise DataError(f"{path}: {what} {ours} in this item file; it has {listed(raw.names)}")
    return found[0]


def _known(raw: Raw, names: Sequence[str]) -> str | None:
    """The column with the first of ``names`` that is there."""
    plain = {plain_name(name): name for name in reversed(raw.names)}
    return next((plain[plain_name(name)] for name in names if plain_name(name) in plain), None)


def _lists(
    frame: pl.DataFrame, n_items: int, separator: str | None, where: str
) -> tuple[tuple[str, ...], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Names, start_I and category_L of the columns ``item`` and ``category``; text falls apart at ``separator``."""
    if "category" not in frame.columns:
        return (), np.zeros(n_items + 1, dtype=np.int64), np.zeros(0, dtype=np.int32)
    entries = frame.select("item", "category")
    kind = entries.schema["category"]
    if isinstance(kind, pl.List | pl.Array):
        entries = entries.explode("category")
    elif kind == pl.String and separator is not None:
        entries = entries.with_columns(pl.col("category").str.split(separator)).explode("category")
    kind = entries.schema["category"]
    if kind.is_nested():
        raise DataError(f"{where} is of type {kind}; allowed are text, numbers, and lists of them")
    if kind.is_float():  # pandas writes whole numbers beside gaps like this
        entries = entries.with_columns(pl.col("category").fill_nan(None))
        if entries.select((pl.col("category") % 1 == 0).all()).item():
            entries = entries.with_columns(pl.col("category").cast(pl.Int64, strict=False))
    entries = entries.with_columns(pl.col("category").cast(pl.String).str.strip_chars())
    entries = entries.filter(pl.col("category").fill_null("") != "").unique(keep="first", maintain_order=True)
    entries = entries.sort("item", maintain_order=True)
    vocab = sorted_vocab([entries["category"]])
    start_I = np.zeros(n_items + 1, dtype=np.int64)
    np.cumsum(np.bincount(entries["item"], minlength=n_items), out=start_I[1:])
    return tuple(vocab.ids.cast(pl.String)), start_I, vocab.numbers(entries["category"]).astype(np.int32)


def _titles(frame: pl.DataFrame, n_items: int) -> pl.Series | None:
    """The first title of each item, null where there is none; None without a column of titles."""
    if "title" not in frame.columns:
        return None
    first = (
        frame.select("item", pl.col("title").cast(pl.String))
        .drop_nulls()
        .unique("item", keep="first", maintain_order=True)
    )
    numbers = pl.DataFrame({"item": np.arange(n_items)})
    return numbers.join(first, on="item", how="left", maintain_order="left")["title"]
