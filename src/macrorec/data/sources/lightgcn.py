"""LightGCN's lists: one line per user, ``user item item ...``, separated by blanks."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from macrorec.data.sources.raw import INDEX, Head, Raw

EXTENSIONS = ()
HOLDS = ("user_id", "item_id")
FORBIDDEN = r"[ \r\n]|^\ufeff"
DEFAULTS = {"user_id": "1", "item_id": "2"}


def looks(head: Head) -> bool:
    """Integers separated by blanks: lines of unequal length, or of more fields than an edge list could have."""
    lines = [line.split() for line in head.lines[:200]]
    integers = all(field.isdigit() for fields in lines for field in fields)
    sizes = {len(fields) for fields in lines}
    return integers and "\t" not in head.lines[0] and (len(sizes) > 1 or sizes == {2} or min(sizes) > 4)


def scan(path: Path, head: Head, separator: str | None, quoted: bool) -> Raw:
    """The columns "1" (user) and "2" (item) as text; a user without items has no row. Read at once, not lazily."""
    lines = pl.scan_lines(path, row_index_name="#line", glob=False)
    ids = pl.col("line").str.strip_chars(" \r").str.split(separator or " ")
    pairs = (
        lines.select("#line", ids)
        .select("#line", pl.col("line").list.first().alias("1"), pl.col("line").list.slice(1).alias("2"))
        .explode("2")
        .filter(pl.col("2") != "")
        .collect(engine="streaming")
        .drop("#line")
        .with_row_index(INDEX)
    )
    return Raw(pairs.lazy(), ("1", "2"), DEFAULTS)


def write(frame: pl.LazyFrame, out: Path) -> pl.LazyFrame:
    """A lazy sink of ``frame`` into ``out``: users in order of their first row, items in order of their rows."""
    text = pl.col("user_id", "item_id").cast(pl.String)
    lists = frame.select(text).group_by("user_id", maintain_order=True).agg("item_id")
    lines = lists.select(pl.concat_str("user_id", pl.col("item_id").list.join(" "), separator=" "))
    return lines.sink_csv(
        out, include_header=False, quote_style="never", maintain_order=True, sync_on_close="all", lazy=True
    )
