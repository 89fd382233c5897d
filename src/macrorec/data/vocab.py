"""Which row number does an external id have, and back? *id* always means external, *number* internal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.errors import DataError

Ids = Sequence[Any] | npt.NDArray[Any] | pl.Series


class Vocab:
    """A frozen, ordered set of external ids; the position of an id is its number.

    Ids are text or 64-bit integers. Text ids that are all canonical integers ("7", never "007" or "+7") become
    integers, so that a CSV and a Parquet file of the same log agree.
    """

    __slots__ = ("_order", "_sorted", "ids")

    def __init__(self, ids: Ids) -> None:
        """Freeze ``ids`` of shape (n,), in order. Raises DataError if one is null or occurs twice."""
        series = _canonical(pl.Series("id", ids) if not isinstance(ids, pl.Series) else ids.alias("id"))
        if series.null_count():
            raise DataError(f"a vocabulary cannot hold a null id; {series.null_count()} of {len(series)} are null")
        order = series.arg_sort()
        ordered = series.gather(order)
        if len(series) > 1:
            twice = ordered.filter(ordered == ordered.shift(1))
            if len(twice):
                raise DataError(f"a vocabulary cannot hold an id twice: {twice[0]!r}")
        self.ids: pl.Series = series
        self._sorted = ordered
        self._order = order.to_numpy().astype(np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocab) and self.ids.dtype == other.ids.dtype and self.ids.equals(other.ids)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocab({len(self)} {'text' if self.is_text else 'integer'} ids)"

    @property
    def is_text(self) -> bool:
        """Whether ids are text (else 64-bit integers)."""
        return self.ids.dtype == pl.String

    def numbers(self, ids: Ids) -> npt.NDArray[np.int64]:
        """Row numbers of ``ids``, shape (n,); -1 for an unknown id, also for one of the wrong type."""
        series = ids if isinstance(ids, pl.Series) else pl.Series("id", ids, strict=False)
        if not len(self) or not len(series):
            return np.full(len(series), -1, dtype=np.int64)
        if series.dtype != self.ids.dtype:
            series = _cast(series, self.ids.dtype)
        known = series.is_not_null()
        filled = series.fill_null(self._sorted[0])
        place = self._sorted.search_sorted(filled, side="left").to_numpy().astype(np.int64)
        place = np.minimum(place, len(self) - 1)
        found = (self._sorted.gather(pl.Series(place)) == filled) & known
        return np.where(found.to_numpy(), self._order[place], -1)

    def ids_of(self, numbers: npt.ArrayLike) -> pl.Series:
        """External ids of row ``numbers``, shape (n,)."""
        return self.ids.gather(pl.Series(np.asarray(numbers, dtype=np.int64)))

    def subset(self, keep: npt.NDArray[np.bool_]) -> tuple[Vocab, npt.NDArray[np.int64]]:
        """The vocabulary of the kept rows, in order, and the map (len(self),) from old to new number, -1 if dropped."""
        renumber = np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int64)
        return Vocab(self.ids.filter(pl.Series(keep))), renumber


def sorted_vocab(ids: Sequence[pl.Series]) -> Vocab:
    """The vocabulary of all ``ids``, repeats allowed, in sorted order: by value if all are integers, else by bytes."""
    canonical = [_canonical(series.alias("id").unique()) for series in ids]
    if len({series.dtype for series in canonical}) > 1:
        canonical = [series.cast(pl.String) for series in canonical]
    return Vocab(_canonical(pl.concat(canonical).unique()).sort())


def _cast(series: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Cast to the vocabulary's type; what has no exact counterpart becomes null, so that "007" never finds 7."""
    if dtype == pl.String:
        return series.cast(pl.String, strict=False)
    numbers = series.cast(pl.Int64, strict=False)
    same = numbers.cast(pl.String) == series if series.dtype == pl.String else numbers == series
    return pl.select(pl.when(same).then(numbers)).to_series()


def _canonical(series: pl.Series) -> pl.Series:
    if series.dtype.is_integer() and series.cast(pl.Int64, strict=False).null_count() == series.null_count():
        return series.cast(pl.Int64)
    if series.dtype == pl.Null and not len(series):
        return series.cast(pl.String)
    text = series.cast(pl.String)
    numbers = text.cast(pl.Int64, strict=False)
    canonical = len(text) > 0 and numbers.null_count() == 0 and bool((numbers.cast(pl.String) == text).all())
    return numbers if canonical else text
