"""What does a format hand over, and what do all text formats need to look at before they do?

A format is a module of this package with

- ``EXTENSIONS``: endings of file names that it claims;
- ``looks(head) -> bool``: whether the first lines are of this format; asked where the ending tells nothing;
- ``scan(path, head, separator, quoted) -> Raw``: the file as it stands, lazily;
- ``diagnose(path, raw) -> str | None`` (optional): after a failure, where the file is broken;
- ``write(frame, out) -> None`` (optional): a canonical frame to a file of this format;
- ``HOLDS`` (with ``write``): the canonical columns that the format can hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import polars as pl

from macrorec.errors import DataError

INDEX = "#row"
"""The column of every raw frame with the number of the row in the file, from 0."""
HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """A file as its format sees it."""

    frame: pl.LazyFrame
    """All raw columns, and ``INDEX``; text formats give text."""
    names: tuple[str, ...]
    """Names of the raw columns; "1", "2", ... where the format has no header."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Ours -> the file's, where the format itself says so."""
    first_line: int | None = None
    """Line of the file on which row 0 stands, counting from 1; None where a file is not made of lines."""
    separator: str | None = None
    sequences: tuple[str, ...] = ()
    """Columns of text that hold several values, separated by spaces, where the format itself says so."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first whole lines of a file, at most 64 KiB (one line, where the first is longer)."""

    start: bytes
    """The first bytes, as they are."""
    lines: tuple[str, ...]
    """Lines without their ends; blank ones left out."""
    n_blank: int
    """Blank lines before the first of ``lines``."""


def head(path: Path) -> Head:
    """The head of ``path``. Raises DataError if the file is empty or cannot be opened."""
    try:
        with path.open("rb") as file:
            start = file.read(HEAD_BYTES)
            if len(start) == HEAD_BYTES:
                start += file.readline(1 << 24)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    if not start.strip():
        raise DataError(f"{path}: the file is empty")
    text = start.decode("utf-8-sig", errors="replace")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    full = [number for number, line in enumerate(lines) if line.strip()]
    return Head(start, tuple(lines[number] for number in full), full[0])


def check_text(path: Path, start: bytes) -> None:
    """Raise DataError where the first bytes already tell that ``path`` is no UTF-8 text, with what it seems to be."""
    for magic, what in _MAGIC.items():
        if start.startswith(magic):
            raise DataError(f"{path}: {what}")
    if (line := invalid_utf8(path, len(start))) is not None:
        raise DataError(f"{path}: {line}")


def invalid_utf8(path: Path, limit: int | None = None) -> str | None:
    """The first line that is not UTF-8, in words, within the first ``limit`` bytes; None if there is none."""
    seen = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                what = f"byte 0x{line[error.start]:02x} at place {error.start + 1}"
                return f"line {number} is not UTF-8 ({what}); save the file as UTF-8"
            seen += len(line)
            if limit is not None and seen >= limit:
                return None
    return None


def odd_line(path: Path, raw: Raw) -> str | None:
    """The first line with more fields than columns, else with fewer, in words; for formats without quotes."""
    assert raw.separator is not None
    short = None
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, 1):
            n_fields = line.count(raw.separator) + 1
            what = f"line {number} has {n_fields} fields, not {len(raw.names)}"
            if n_fields > len(raw.names):
                return what
            if n_fields < len(raw.names) and line.strip():
                short = short or what
    return short


def line_of(path: Path, raw: Raw, row: int, value: object) -> str:
    """Where row ``row`` stands: "line 17" if that line holds ``value`` (quoted fields may span lines), else the row."""
    if raw.first_line is not None:
        number = raw.first_line + row
        with path.open("rb") as file:
            line = next(islice(file, number - 1, number), b"")
        if value is None or str(value).encode() in line:
            return f"line {number}"
    return f"row {row + 1}"


_MAGIC = {
    b"\x1f\x8b": "the file is compressed (gzip); unpack it first",
    b"\x28\xb5\x2f\xfd": "the file is compressed (zstd); unpack it first",
    b"PK\x03\x04": "the file is a zip archive; unpack it first",
    b"\xff\xfe": "the file is UTF-16; save it as UTF-8",
    b"\xfe\xff": "the file is UTF-16; save it as UTF-8",
    b"PAR1\x15": "the file is Parquet; say format=parquet",
}
