"""RecBole's atomic files: a header of ``name:type``, fields separated by TAB, no quoting."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from macrorec.data.log import COLUMNS
from macrorec.data.sources.columns import check_names
from macrorec.data.sources.raw import INDEX, Head, Raw, invalid_utf8, odd_line
from macrorec.errors import DataError

EXTENSIONS = (".inter",)
HOLDS = COLUMNS
FORBIDDEN = r"[\t\r\n]"
TYPES = ("token", "token_seq", "float", "float_seq")
WRITTEN = dict(zip(COLUMNS, ("token", "token", "token", "float", "float", "float"), strict=True))


def looks(head: Head) -> bool:
    """Every field of the first line ends in ``:`` and one of ``TYPES``."""
    return all(_split(field) for field in head.lines[0].split("\t"))


def scan(path: Path, head: Head, separator: str | None, quoted: bool) -> Raw:
    """All columns as text, under their names without types."""
    separator = separator or "\t"
    fields = [(field, _split(field)) for field in head.lines[0].split(separator)]
    for field, parts in fields:
        if parts is None:
            raise DataError(f"{path}: line 1: {field[:40]!r} is not name:type with a type of {', '.join(TYPES)}")
    names = tuple(parts[0] for _, parts in fields if parts)
    check_names(names, str(path))
    frame = pl.scan_csv(
        path,
        skip_lines=head.n_blank,
        schema=dict.fromkeys((field for field, _ in fields), pl.String()),
        separator=separator,
        quote_char=None,
        row_index_name=INDEX,
        raise_if_empty=False,
        glob=False,
    )
    frame = frame.rename({field: parts[0] for field, parts in fields if parts})
    sequences = tuple(parts[0] for _, parts in fields if parts and parts[1].endswith("_seq"))
    return Raw(frame, names, first_line=head.n_blank + 2, separator=separator, sequences=sequences)


def diagnose(path: Path, raw: Raw, quoted: bool) -> str | None:
    """The first line that is not UTF-8, or has not the number of fields that it should have."""
    return invalid_utf8(path) or odd_line(path, raw)


def write(frame: pl.LazyFrame, out: Path) -> pl.LazyFrame:
    """A lazy sink of ``frame`` into ``out``, in the frame's order."""
    typed = frame.rename(lambda name: f"{name}:{WRITTEN[name]}")
    return typed.sink_csv(out, separator="\t", quote_style="never", maintain_order=True, sync_on_close="all", lazy=True)


def _split(field: str) -> tuple[str, str] | None:
    found = re.fullmatch(r"\s*(.+?):(\w+)\s*", field)
    return (found[1], found[2]) if found and found[2] in TYPES else None
