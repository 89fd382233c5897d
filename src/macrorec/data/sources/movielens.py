"""MovieLens without a header: 100K's ``u.data`` (TAB) and the ``ratings.dat`` of 1M and 10M (``::``).

User, item, rating, seconds. The later editions are CSV with a header, and are read as such.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from macrorec.data.sources.raw import INDEX, Head, Raw, invalid_utf8, odd_line

EXTENSIONS = ()
DEFAULTS = {"user_id": "1", "item_id": "2", "label": "3", "timestamp": "4"}
NAMES = tuple(DEFAULTS.values())


def looks(head: Head) -> bool:
    """Lines of four numbers: a rating in the third place, seconds in the fourth."""
    lines = [line.split("::" if "::" in line else "\t") for line in head.lines[:50]]
    return all(len(fields) == 4 and _number(fields[2]) <= 10 and _number(fields[3]) >= 1e8 for fields in lines)


def scan(path: Path, head: Head, separator: str | None, quoted: bool) -> Raw:
    """The four columns "1" to "4" as text."""
    separator = separator or ("::" if "::" in head.lines[0] else "\t")
    if len(separator) == 1:
        frame = pl.scan_csv(
            path,
            has_header=False,
            schema=dict.fromkeys(NAMES, pl.String()),
            separator=separator,
            quote_char=None,
            row_index_name=INDEX,
            glob=False,
        )
    else:
        fields = pl.col("line").str.strip_suffix("\r").str.splitn(separator, len(NAMES)).struct.rename_fields(NAMES)
        frame = pl.scan_lines(path, row_index_name=INDEX, glob=False).select(INDEX, fields).unnest("line")
    return Raw(frame, NAMES, DEFAULTS, first_line=1, separator=separator)


def diagnose(path: Path, raw: Raw, quoted: bool) -> str | None:
    """The first line that is not UTF-8, or has more than four fields."""
    return invalid_utf8(path) or odd_line(path, raw)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
