"""How is a log's file opened? Its place, format, columns and types, before any row is looked at."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast

import polars as pl

from macrorec.data.log import COLUMNS
from macrorec.data.sources.checks import Typed, typed
from macrorec.data.sources.columns import match
from macrorec.data.sources.formats import chosen, name_of, separator_of
from macrorec.data.sources.home import locate
from macrorec.data.sources.raw import Raw, check_text, head, invalid_utf8
from macrorec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from macrorec.data.sources.source import Source

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Part = Literal["train", "valid", "test"]


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A file whose format and columns are known, before any row was checked."""

    path: Path
    format: ModuleType
    raw: Raw
    mapping: Mapping[str, str]
    log: Typed
    notes: tuple[str, ...]
    source: Source

    @property
    def columns(self) -> tuple[str, ...]:
        """The canonical columns of ``frame``."""
        constant = self.source.behavior is not None and "behavior" not in self.log.columns
        return tuple(name for name in COLUMNS if name in self.log.columns or (constant and name == "behavior"))

    @property
    def frame(self) -> pl.LazyFrame:
        """The canonical columns, and ``INDEX``; of all rows, good or bad."""
        name = self.source.behavior
        frame = self.log.frame
        if "behavior" in self.columns and "behavior" not in self.log.columns:
            frame = frame.with_columns(behavior=pl.lit(name, pl.String))
        return frame

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turns what goes wrong while rows are read into one DataError that says where the file is broken."""
        with told(self.path, lambda: broken_at(self.format, self.path, self.raw, self.source.quoted)):
            yield


def open_part(source: Source, part: Part = "train") -> Opened:
    """Find the file of ``part``, its format and its columns. Raises ConfigError and DataError; reads only its head."""
    if source.time_unit not in (None, "s", "ms"):
        raise ConfigError(f"time_unit is {source.time_unit!r}; allowed are s and ms")
    place = source.path if part == "train" else getattr(source, part)
    if place is None:
        raise ConfigError(f"the source of {source.path} has no {part} part")
    path = locate(place)
    start = head(path)
    module, why = chosen(path, start, source.format)
    separator = separator_of(source.separator)
    if name_of(module) != "parquet":
        check_text(path, start.start)
    with told(path, lambda: broken_at(module, path, None, source.quoted)):
        raw = module.scan(path, start, separator, source.quoted)
    with told(path, lambda: broken_at(module, path, raw, source.quoted)):
        mapping = match(raw.names, source.columns, raw.defaults, str(path))
        names = tuple(behavior.name for behavior in source.behaviors)
        log = typed(raw, mapping, source.time_unit, names, str(path))
    notes = [f"format is {name_of(module)}, {why}"] if why else []
    if separator is None and raw.separator not in (None, "\t"):
        notes.append(f"fields are separated by {raw.separator!r}")
    for ours, theirs in mapping.items():
        if ours != theirs and ours not in source.columns:
            notes.append(f"{ours} is {'column ' if raw.defaults else ''}{theirs!r}")
    return Opened(path, module, raw, mapping, log, (*notes, *log.notes), source)


@contextmanager
def told(path: Path, diagnose: Callable[[], str | None]) -> Iterator[None]:
    """Turns failures of the reader into one DataError about ``path``; ``diagnose`` may say where it is broken.

    A full disk, met by a writer in the same pass, stays an OSError, with its number.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, UnicodeError, OSError) as error:
        number = getattr(error, "errno", None) or _number_in(str(error))
        if number in FULL:
            raise OSError(number, os.strerror(number)) from error
        if isinstance(error, OSError):
            raise DataError(f"{path}: cannot be read: {error.strerror or _one_line(error)}") from error
        what = diagnose() or _one_line(error)
        raise DataError(f"{path}: {what}") from error


def _number_in(message: str) -> int:
    """The error number that polars gives only in words; 0 where there is none."""
    found = re.search(r"\(os error (\d+)\)", message)
    return int(found[1]) if found else 0


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return re.split(r" (?:Consider|You might|The current offset|Specify these)", text)[0][:200]


def broken_at(format: ModuleType, path: Path, raw: Raw | None, quoted: bool) -> str | None:  # noqa: A002
    """Where the file is broken, if its format can tell; ``raw`` is None where the file could not even be opened."""
    diagnose: Any = getattr(format, "diagnose", None)
    if diagnose and (raw is not None or name_of(format) == "parquet"):
        return cast(str | None, diagnose(path, raw, quoted))
    return invalid_utf8(path)
