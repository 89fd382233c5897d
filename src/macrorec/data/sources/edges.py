"""Edge lists without a header: ``user TAB item``, with a weight in the third column and a time in the fourth."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from macrorec.data.sources.raw import INDEX, Head, Raw, invalid_utf8, odd_line
from macrorec.errors import DataError

EXTENSIONS = (".edges",)
ORDER = ("user_id", "item_id", "weight", "timestamp")
HOLDS = ("user_id", "item_id", "weight")
FORBIDDEN = r"[\t\r\n]|^\ufeff"


def looks(head: Head) -> bool:
    """Lines of two or three numbers, separated by TAB."""
    lines = [line.split("\t") for line in head.lines[:50]]
    return all(len(fields) == len(lines[0]) in (2, 3) and all(map(_is_number, fields)) for fields in lines)


def scan(path: Path, head: Head, separator: str | None, quoted: bool) -> Raw:
    """The columns "1", "2", ... as text; ``separator`` is TAB, blank or comma, whichever is in the first line."""
    line = head.lines[0]
    separator = separator or next((s for s in ("\t", " ", ",") if s in line), "\t")
    names = tuple(str(number) for number in range(1, line.count(separator) + 2))
    if not 2 <= len(names) <= len(ORDER):
        raise DataError(
            f"{path}: line {head.n_blank + 1} has {len(names)} fields; an edge list has 2 to 4: {', '.join(ORDER)}"
        )
    frame = pl.scan_csv(
        path,
        has_header=False,
        schema=dict.fromkeys(names, pl.String()),
        separator=separator,
        quote_char=None,
        row_index_name=INDEX,
        glob=False,
    )
    return Raw(frame, names, dict(zip(ORDER, names, strict=False)), first_line=1, separator=separator)


def diagnose(path: Path, raw: Raw, quoted: bool) -> str | None:
    """The first line that is not UTF-8, or has not the number of fields that it should have."""
    return invalid_utf8(path) or odd_line(path, raw)


def write(frame: pl.LazyFrame, out: Path) -> pl.LazyFrame:
    """A lazy sink of ``frame`` into ``out``, in the frame's order."""
    return frame.sink_csv(
        out,
        separator="\t",
        include_header=False,
        quote_style="never",
        maintain_order=True,
        sync_on_close="all",
        lazy=True,
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
