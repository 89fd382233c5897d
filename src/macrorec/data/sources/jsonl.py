"""JSON lines: one object per line. Numbers and text are read as text, so that the id 7 and the id "7" are one."""

from __future__ import annotations

import glob
import json
from pathlib import Path

import polars as pl

from macrorec.data.log import COLUMNS
from macrorec.data.sources.columns import check_names
from macrorec.data.sources.raw import INDEX, Head, Raw, invalid_utf8
from macrorec.errors import DataError

EXTENSIONS = (".jsonl", ".ndjson")
HOLDS = COLUMNS


def looks(head: Head) -> bool:
    """The first line is a JSON object."""
    return isinstance(_parsed(head.lines[0]), dict)


def scan(path: Path, head: Head, separator: str | None, quoted: bool) -> Raw:
    """All keys of the first lines as columns of text; a key that a line lacks is missing there."""
    names: dict[str, None] = {}
    for number, line in enumerate(head.lines, head.n_blank + 1):
        row = _parsed(line)
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number} is not a JSON object")
        names |= dict.fromkeys(row)
    check_names(tuple(names), str(path))
    frame = pl.scan_ndjson(glob.escape(str(path)), schema=dict.fromkeys(names, pl.String()), row_index_name=INDEX)
    return Raw(frame, tuple(names), first_line=head.n_blank + 1)


def diagnose(path: Path, raw: Raw, quoted: bool) -> str | None:
    """The first line that is not UTF-8, or not a JSON object."""
    if broken := invalid_utf8(path):
        return broken
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip() and not isinstance(_parsed(line), dict):
                return f"line {number} is not a JSON object"
    return None


def write(frame: pl.LazyFrame, out: Path) -> pl.LazyFrame:
    """A lazy sink of ``frame`` into ``out``, in the frame's order."""
    return frame.sink_ndjson(out, maintain_order=True, sync_on_close="all", lazy=True)


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
