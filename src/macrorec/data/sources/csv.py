"""CSV and TSV: a header, then one event per line, fields quoted where they need it. Written as RFC 4180 says."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl

from macrorec.data.log import COLUMNS
from macrorec.data.sources.columns import check_names, meaning
from macrorec.data.sources.raw import INDEX, Head, Raw, invalid_utf8
from macrorec.errors import DataError

EXTENSIONS = (".csv", ".tsv")
HOLDS = COLUMNS
SEPARATORS = (",", "\t", ";", "|")


def looks(head: Head) -> bool:
    """A header that names a user and an item, with one of ``SEPARATORS``."""
    return any(_names_both(head, separator) for separator in SEPARATORS)


def scan(path: Path, head: Head, separator: str | None, quoted: bool) -> Raw:
    """All columns as text. ``separator`` is guessed by ending or header; with ``quoted``, quotation marks quote."""
    if separator is None:
        fitting = [s for s in SEPARATORS if _names_both(head, s)]
        likely = "\t" if path.suffix.lower() == ".tsv" else max(SEPARATORS, key=head.lines[0].count)
        separator = fitting[0] if len(fitting) == 1 else likely
    written, n_lines = header(path, head, separator, quoted)
    frame = pl.scan_csv(
        path,
        skip_lines=head.n_blank,
        schema=dict.fromkeys(written, pl.String()),
        separator=separator,
        quote_char='"' if quoted else None,
        row_index_name=INDEX,
        raise_if_empty=False,
        glob=False,
    )
    names = tuple(name.strip() for name in written)
    check_names(names, str(path))
    frame = frame.rename(dict(zip(written, names, strict=True)))
    return Raw(frame, names, first_line=n_lines + 1, separator=separator)


def header(path: Path, head: Head, separator: str, quoted: bool) -> tuple[tuple[str, ...], int]:
    """The names in the header as they stand there, and how many lines of the file come before the first row."""
    reader = csv.reader(
        (line + "\n" for line in head.lines),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
    )
    try:
        names = tuple(next(reader))
    except csv.Error as error:
        raise DataError(f"{path}: the header cannot be read: {error}") from error
    check_names(names, str(path))
    if not any(map(meaning, names)) and all(_is_number(name.strip()) for name in names):
        raise DataError(f"{path}: line 1 holds numbers, not a header; put one there, or say format=edges")
    return names, head.n_blank + reader.line_num


def diagnose(path: Path, raw: Raw, quoted: bool) -> str | None:
    """The first line that breaks the file: not UTF-8, too many fields, or a stray quotation mark."""
    if broken := invalid_utf8(path):
        return broken
    assert raw.separator is not None and raw.first_line is not None
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(
            file, delimiter=raw.separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
        )
        try:
            for fields in reader:
                if len(fields) > len(raw.names):
                    return f"line {reader.line_num} has {len(fields)} fields, the header has {len(raw.names)}"
        except csv.Error as error:
            return f"line {reader.line_num}: {error}"
    if quoted and (number := _stray_quote(path, raw.separator)):
        return (
            f"line {number} has a quotation mark inside a field that is not quoted; "
            "write it doubled in a quoted field, or say quoted=false if marks are ordinary characters"
        )
    return "its quotation marks do not match" if quoted else None


def write(frame: pl.LazyFrame, out: Path) -> pl.LazyFrame:
    """A lazy sink of ``frame`` into ``out``; separated by TAB if that is how ``out`` ends."""
    separator = "\t" if ".tsv" in out.suffixes else ","
    return frame.sink_csv(out, separator=separator, maintain_order=True, sync_on_close="all", lazy=True)


def _names_both(head: Head, separator: str) -> bool:
    meanings = [meaning(name.strip().strip('"')) for name in head.lines[0].split(separator)]
    return "user_id" in meanings and "item_id" in meanings


def _is_number(text: str) -> bool:
    return text.lstrip("+-").replace(".", "", 1).isdigit()


def _stray_quote(path: Path, separator: str) -> int | None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, line in enumerate(file, 1):
            if any('"' in field and not field.startswith('"') for field in line.split(separator)):
                return number
    return None
