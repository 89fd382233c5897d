"""How do ids that a user gives become numbers, and come back as they were given?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.data.vocab import Ids, Vocab
from macrorec.errors import UserError

Unknown = Literal["error", "skip", "fallback"]
Numbers = npt.NDArray[np.int64]


def check(k: int, unknown: str, legal: Sequence[str] = get_args(Unknown)) -> None:
    """Raise UserError for a ``k`` or a policy that is none."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise UserError(f"k must be a whole number of at least 1; got {k!r}")
    if unknown not in legal:
        raise UserError(f"unknown must be one of {', '.join(legal)}; got {unknown!r}")


def recognised(vocab: Vocab, ids: Ids, what: str, unknown: str, text: bool) -> tuple[pl.Series, Numbers]:
    """Ids as they are given back, and numbers; unknown ones have -1 where they are not skipped."""
    if isinstance(ids, str | bytes | int):
        raise UserError(f"{what}s: give a list of ids, such as [{ids!r}]")
    series = ids if isinstance(ids, pl.Series) else pl.Series("id", ids, strict=False)
    number = numbers(vocab, series, what, unknown)
    if unknown == "skip":
        series, number = series.filter(pl.Series(number >= 0, dtype=pl.Boolean)), number[number >= 0]
    if (number >= 0).all():
        return given(vocab.ids_of(number), text), number
    typed = series.cast(pl.String if text else vocab.ids.dtype, strict=False)
    return (series.cast(pl.String) if typed.null_count() > series.null_count() else typed), number


def numbers(vocab: Vocab, ids: pl.Series, what: str, unknown: str) -> Numbers:
    """Numbers of ``ids``, -1 for unknown ones; with ``unknown="error"`` they raise UserError."""
    number = vocab.numbers(ids)
    if unknown == "error" and (number < 0).any():
        first, n = ids.filter(pl.Series(number < 0))[0], int((number < 0).sum())
        more = f" (and {n - 1:,} more)" if n > 1 else ""
        raise UserError(
            f"unknown {what} id {first!r}{more}; there are {len(vocab):,} {what}s, such as {vocab.ids[0]!r}"
        )
    return number


def number_of(vocab: Vocab, id: Any, what: str) -> int:  # noqa: A002
    """The number of one id. Raises UserError for an unknown one."""
    return int(numbers(vocab, pl.Series("id", [id]), what, "error")[0])


def given(ids: pl.Series, text: bool) -> pl.Series:
    """``ids`` as they are given back: as text where they came so."""
    return ids.cast(pl.String) if text else ids
