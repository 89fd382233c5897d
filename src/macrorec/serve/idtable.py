"""Which number has this id, among millions that keep coming? A table that grows, found in a microsecond, by one or all.

Ids are text. They lie as UTF-8 one behind the other, so that a snapshot can be taken of a prefix while more come. An id
can be withdrawn: its bytes are gone then, its number stays taken, and the same id gets a new number if it comes again.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Numbers = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

GONE = -2
"""A place of the table whose id was withdrawn; a search goes on behind it."""


class IdTable:
    """Ids and their numbers. One thread may add while others look up."""

    def __init__(self, ids: pl.Series | Sequence[str] = ()) -> None:
        """The distinct ``ids``, text, numbered from 0."""
        self._seed = np.uint64(secrets.randbits(64))
        self._text = np.zeros(64, np.uint8)
        self._end_N = np.zeros(8, np.int64)
        self._gone_N = np.zeros(8, np.bool_)
        self._table = np.full(16, -1, np.int32)
        self._n = 0
        if len(ids):
            numbers = self.add(ids)
            assert int(numbers[-1]) == len(ids) - 1, "ids are distinct"

    def __len__(self) -> int:
        return self._n

    def number(self, id: str) -> int:  # noqa: A002
        """The number of an id; -1 where it is unknown."""
        from macrorec.serve.id_kernels import find

        text = _bytes(id)
        if text is None:
            return -1
        table, own, end_N = self._table, self._text, self._end_N
        asked = np.frombuffer(text, np.uint8)
        return int(find(table, own, end_N, asked, 0, len(asked), self._seed)[1])

    def numbers(self, ids: pl.Series | Sequence[str]) -> Numbers:
        """The numbers of ``ids``, shape (B,), -1 for an unknown one."""
        from macrorec.serve.id_kernels import find_all

        asked, start_B = laid_out(ids)
        number_B = np.empty(len(start_B) - 1, np.int64)
        find_all(self._table, self._text, self._end_N, asked, start_B, self._seed, number_B)
        return number_B

    def add(self, ids: pl.Series | Sequence[str]) -> Numbers:
        """The same, where unknown ids get the numbers that follow, in order of appearance."""
        from macrorec.serve.id_kernels import add_all

        asked, start_B = laid_out(ids)
        n_asked = len(start_B) - 1
        self._make_room(n_asked, len(asked))
        number_B = np.empty(n_asked, np.int64)
        self._n = int(add_all(self._table, self._text, self._end_N, self._n, asked, start_B, self._seed, number_B))
        return number_B

    def id_of(self, number: int) -> str:
        """The id of a number; the empty text for one that was withdrawn."""
        first = int(self._end_N[number - 1]) if number else 0
        return "" if self._gone_N[number] else self._text[first : int(self._end_N[number])].tobytes().decode()

    def ids_of(self, numbers: Numbers) -> list[str]:
        """The ids of some numbers."""
        return [self.id_of(number) for number in numbers.tolist()]

    def series(self, n: int | None = None) -> pl.Series:
        """The first n ids, all by default, in order of numbers; withdrawn ones are null. Copies nothing but nulls."""
        n = self._n if n is None else n
        offsets = np.zeros(n + 1, np.int64)
        offsets[1:] = self._end_N[:n]
        valid = pa.array(~self._gone_N[:n]).buffers()[1] if self._gone_N[:n].any() else None
        buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(self._text)]
        found = pl.from_arrow(pa.Array.from_buffers(pa.large_string(), n, buffers))
        assert isinstance(found, pl.Series)
        return found.alias("id")

    @classmethod
    def from_series(cls, ids: pl.Series) -> IdTable:
        """The table that ``series`` was taken from: nulls are withdrawn ids."""
        table = cls()
        gone = ids.is_null().to_numpy()
        asked, start_N = laid_out(ids.fill_null(""))
        table._make_room(len(ids), len(asked))
        table._text[: len(asked)], table._end_N[: len(ids)], table._gone_N[: len(ids)] = asked, start_N[1:], gone
        table._n = len(ids)
        table._rebuild(len(table._table))
        return table

    def withdraw(self, number: int) -> None:
        """The id of this number is unknown from now on, and its bytes are overwritten."""
        from macrorec.serve.id_kernels import find

        first, last = int(self._end_N[number - 1]) if number else 0, int(self._end_N[number])
        place, found = find(self._table, self._text, self._end_N, self._text, first, last, self._seed)
        if found == number:
            self._table[place] = GONE
        self._gone_N[number] = True
        self._text[first:last] = 0

    def _make_room(self, n_ids: int, n_bytes: int) -> None:
        """Room for so many more. Arrays are replaced, never resized: who reads the old ones reads on."""
        used = int(self._end_N[self._n - 1]) if self._n else 0
        if used + n_bytes > len(self._text):
            self._text = _longer(self._text, max(used + n_bytes, 2 * len(self._text)))
        total = self._n + n_ids
        if total > len(self._end_N):
            size = max(total, 2 * len(self._end_N))
            self._end_N, self._gone_N = _longer(self._end_N, size), _longer(self._gone_N, size)
        if 2 * total > len(self._table):
            self._rebuild(1 << (2 * total).bit_length())

    def _rebuild(self, size: int) -> None:
        from macrorec.serve.id_kernels import enter_all

        table = np.full(size, -1, np.int32)
        enter_all(table, self._text, self._end_N, self._gone_N, self._n, self._seed)
        self._table = table


def laid_out(ids: pl.Series | Sequence[str]) -> tuple[Array, Numbers]:
    """The UTF-8 of ``ids``, one behind the other, and where each starts and the last ends: (B + 1,).

    What has no UTF-8, such as a lone surrogate, counts as the empty text, which is no id.
    """
    if not isinstance(ids, pl.Series):
        texts = [_bytes(one) or b"" for one in ids]
        ends = np.cumsum([0, *map(len, texts)])
        return np.frombuffer(b"".join(texts), np.uint8), ends.astype(np.int64)
    array = ids.cast(pl.String).to_arrow().cast(pa.large_string())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    _, offsets, data = array.buffers()
    start_B = np.frombuffer(offsets, np.int64, len(array) + 1, 8 * array.offset)
    own = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
    return own[start_B[0] : start_B[-1]], start_B - start_B[0]


def _bytes(id: str) -> bytes | None:  # noqa: A002
    """UTF-8 of an id; None for text that has none, such as a lone surrogate."""
    try:
        return id.encode()
    except UnicodeEncodeError:
        return None


def _longer(array: Array, n: int) -> Array:
    new = np.zeros(n, array.dtype)
    new[: len(array)] = array
    return new
