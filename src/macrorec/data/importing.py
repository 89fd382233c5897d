"""How does a raw log, larger than memory perhaps, become a canonical Parquet file, or a file of another format?

One streaming pass reads, checks and writes. The file appears whole or not at all: it is written beside its place,
flushed to the disk, and renamed; a failure or Ctrl-C removes it, and leaves an earlier file as it was.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import polars as pl

from macrorec.data.sources import parquet
from macrorec.data.sources.formats import formats, name_of
from macrorec.data.sources.opening import FULL, Opened, Part, open_part
from macrorec.data.sources.raw import INDEX
from macrorec.data.sources.source import Inference, Source, examine, inference, line, refuse, shown
from macrorec.data.sources.verdict import Verdict, answers, questions
from macrorec.errors import ConfigError, DataError, ResourceError
from macrorec.files import flush

CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What was read, and what was written."""

    inference: Inference
    out: Path
    format: str
    columns: tuple[str, ...]
    """Columns that were written."""
    lost: tuple[str, ...]
    """Columns that the format of ``out`` cannot hold."""
    rows_read: int
    rows_written: int
    rejected: tuple[Mapping[str, str | int], ...]
    """One mapping per reason, with keys ``column``, ``reason``, ``rows`` and ``first`` (where, and the value). A row
    that is wrong in two ways counts under both."""
    behaviors: Mapping[str, int] | None
    """Rows per behaviour, the most frequent first; None where the log has no behaviours."""
    bytes_written: int
    seconds: float


def import_log(
    source: Source, out: str | Path, *, part: Part = "train", on_error: Literal["raise", "skip"] = "raise"
) -> ImportReport:
    """Write ``part`` of ``source`` to ``out`` as canonical Parquet (zstd), in the file's order.

    ``on_error="skip"`` leaves wrong rows out and reports them; a file that is broken as such, or mixes units of time,
    is refused all the same. Raises DataError for the log, ResourceError for the disk, ConfigError for ``out``.
    """
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error is {on_error!r}; allowed are raise and skip")
    return _write(source, Path(out), parquet, part, skip=on_error == "skip")


def convert(
    source: Source, out: str | Path, *, to: str | None = None, part: Part = "train", allow_loss: bool = False
) -> ImportReport:
    """Write ``part`` of ``source`` to ``out`` in the format ``to``, by default the one that ``out``'s ending says.

    Raises ConfigError for a format that cannot be written, or, unless ``allow_loss``, that cannot hold all columns;
    DataError for ids that it cannot hold; and as ``import_log``.
    """
    out = Path(out)
    return _write(source, out, _writable(out, to), part, allow_loss=allow_loss)


def _write(
    source: Source, out: Path, module: ModuleType, part: Part, *, skip: bool = False, allow_loss: bool = True
) -> ImportReport:
    begin = time.perf_counter()
    opened = open_part(source, part)
    columns = tuple(name for name in opened.columns if name in module.HOLDS)
    lost = tuple(name for name in opened.columns if name not in module.HOLDS)
    if lost and not allow_loss:
        raise ConfigError(f"the format {name_of(module)} cannot hold {', '.join(lost)}; allow the loss or take another")
    if hasattr(module, "FORBIDDEN"):
        _refuse_ids(opened, module)
    good = opened.frame.filter(opened.log.good) if skip else opened.frame
    plans = [questions(opened.log)]
    if "behavior" in opened.columns:
        plans.append(good.group_by("behavior").len())
    with whole(out) as unfinished:
        with opened.reading():
            found, *counted, _ = pl.collect_all(
                [*plans, module.write(good.select(columns), unfinished)], engine="streaming"
            )
        verdict = answers(opened.log, found)
        refuse(opened, verdict, faults=not skip)
        written = verdict.rows - (_n_wrong(opened) if skip and verdict.faults else 0)
        if not written:
            raise DataError(f"{opened.path}: every row is wrong; the first reason: {verdict.faults[0].reason}")
    behaviors = None
    if counted:
        behaviors = dict(counted[0].sort("len", "behavior", descending=[True, False]).rows())
    return ImportReport(
        inference=inference(opened, verdict),
        out=out,
        format=name_of(module),
        columns=columns,
        lost=lost,
        rows_read=verdict.rows,
        rows_written=written,
        rejected=tuple(_rejected(opened, verdict)) if skip else (),
        behaviors=behaviors,
        bytes_written=out.stat().st_size,
        seconds=time.perf_counter() - begin,
    )


def _n_wrong(opened: Opened) -> int:
    return int(opened.frame.select((~opened.log.good).sum()).collect(engine="streaming").item())


def _rejected(opened: Opened, verdict: Verdict) -> Iterator[Mapping[str, str | int]]:
    for fault in verdict.faults:
        first = f"{line(opened, fault.first, fault.column)}{shown(opened, fault.first, fault.column)}"
        yield {"column": fault.column, "reason": fault.reason, "rows": fault.rows, "first": first}


def _writable(out: Path, to: str | None) -> ModuleType:
    able = {name: module for name, module in formats().items() if hasattr(module, "write")}
    if to is None:
        fitting = [module for module in able.values() if out.suffix.lower() in module.EXTENSIONS]
        if not fitting:
            raise ConfigError(f"the ending of {out.name!r} names no format; say which: {', '.join(able)}")
        return fitting[0]
    if to not in able:
        raise ConfigError(f"cannot write the format {to!r}; allowed are {', '.join(able)}")
    return able[to]


def _refuse_ids(opened: Opened, module: ModuleType) -> None:
    """Raise DataError for the first text that ``module``, which knows no quoting, cannot hold."""
    examine(opened)
    texts = [name for name in ("user_id", "item_id", "behavior") if name in opened.columns and name in module.HOLDS]
    schema = opened.frame.collect_schema()
    for name in texts:
        if schema[name] != pl.String:
            continue
        bad = opened.frame.filter(pl.col(name).str.contains(module.FORBIDDEN)).select(INDEX, name)
        first = bad.bottom_k(1, by=INDEX).collect(engine="streaming")
        if len(first):
            raise DataError(
                f"{opened.path}: the format {name_of(module)} cannot hold the {name} {first[name][0][:80]!r} "
                f"of row {first[INDEX][0] + 1}; choose csv, parquet or jsonl"
            )


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A path beside ``out`` to write to; renamed to ``out`` after the block, or removed if the block fails."""
    unfinished = out.with_name(f".partial-{os.getpid()}-{out.name}"[:200])
    try:
        if out.is_dir():
            raise ConfigError(f"{out} is a folder; give the name of a file in it")
        if not out.parent.is_dir():
            raise ConfigError(f"there is no folder {out.parent}; make it first")
        unfinished.touch()
        yield unfinished
        flush(unfinished)
        unfinished.replace(out)
        flush(out.parent)
    except OSError as error:
        if error.errno in FULL:
            raise ResourceError(f"{out}: the disk is full (or a limit on file sizes is reached); free some") from error
        if error.errno in CLOSED:
            raise ResourceError(f"{out}: {error.strerror}; choose a place that you may write to") from error
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
