"""Which verbs fill and look after the event log of a service? Ingest files, and check or repair the log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from macrorec.cli.options import Json, group
from macrorec.cli.output import answer, note
from macrorec.errors import ConfigError, DataError, ResourceError, UserError

if TYPE_CHECKING:
    from macrorec.serve.events import Schema
    from macrorec.serve.ingest import Ingested, Row, Sink

Place = Annotated[Path, typer.Argument(metavar="DIR|FILE", help="The service's folder, or the log in it.")]


def ingest(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="JSON lines or Parquet; -: JSON lines from a pipe.")],
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="The folder of a service that does not run.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="A service that runs, such as http://localhost:8000.")
    ] = None,
    api_key: Annotated[
        Path | None, typer.Option("--api-key", metavar="FILE", help="With --url: a file that holds a key.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="With --data: take the behaviours and ids of this bundle only.")
    ] = None,
    behavior: Annotated[str | None, typer.Option("--behavior", help="Of rows that do not say.")] = None,
    time_unit: Annotated[str, typer.Option("--time-unit", help="Of whole timestamps: s or ms.")] = "s",
    source: Annotated[
        str | None,
        typer.Option(
            "--source", help="A name for what grows; its lines are told by their numbers.  [default: content]"
        ),
    ] = None,
    durability: Annotated[
        str, typer.Option("--durability", help="With --data: when an event counts as stored: fsync, interval, none.")
    ] = "fsync",
    json: Json = False,
) -> None:
    """Add a file's events to the log of a service; those that it has already are not added again.

    What is broken off can be called again: it goes on where it ended.

    Example: macrorec ingest events.jsonl --data shop-data
    """
    from macrorec.serve import ingest as from_file

    if (data is None) == (url is None):
        raise ConfigError("where to? Give --data DIR, of a service that does not run, or --url, of one that does")
    if time_unit not in ("s", "ms"):
        raise ConfigError(f"--time-unit is {time_unit!r}; allowed are s and ms")
    if file != "-" and not Path(file).is_file():
        raise DataError(f"{file} is not a file")
    if file == "-" and source is None:
        note("note: without --source, what comes by a pipe is added again when it is sent again")
    with ExitStack() as stack:
        schema = _schema(bundle)
        sink = _sink(stack, data, url, api_key, durability)
        rows = _rows(stack, file)
        name = source if file == "-" or source is not None else from_file.identity(Path(file))
        tell = _teller()
        began = time.perf_counter()
        try:
            done = from_file.ingest(
                rows, sink, schema, name, behavior=behavior, milliseconds=time_unit == "ms", tell=tell
            )
        except UserError as error:
            so_far: Ingested | None = getattr(error, "ingested", None)
            if so_far is None or not isinstance(error, ResourceError):
                raise
            again = "call it again to go on" if name is not None else "what follows was not added"
            more = f"{error}; {so_far.added:,} events were added before, {again}"
            raise type(error)(more) from error
        seconds = time.perf_counter() - began
    for number, reason in done.reasons:
        note(f"line {number}: {reason}")
    if done.refused > len(done.reasons):
        note(f"and {done.refused - len(done.reasons):,} more")
    if done.refused and done.refused == done.rows:
        raise DataError(
            f"{file}: none of {done.rows:,} rows could be taken; line {done.reasons[0][0]}: {done.reasons[0][1]}"
        )
    result = {
        "rows": done.rows,
        "added": done.added,
        "duplicates": done.duplicates,
        "refused": done.refused,
        "reasons": [{"line": number, "reason": reason} for number, reason in done.reasons],
        "source": name,
        "seconds": seconds,
    }
    line = f"{done.rows:,} rows: {done.added:,} added, {done.duplicates:,} duplicates, {done.refused:,} refused"
    answer(result, json, [f"{line}; {seconds:.1f} s"])


log = group("Check or repair the event log of a service that does not run.")


@log.command("check")
def check(place: Place, json: Json = False) -> None:
    """Read all of a log and test every checksum.

    Example: macrorec log check shop-data
    """
    from macrorec.serve.sqlite_log import SqliteLog

    with SqliteLog(_log_of(place)) as opened:
        health = opened.health()
        entries = sum(len(batch) for batch in _batches(opened))
    result = {"entries": entries, "position": health.position, "compacted": health.compacted, "bytes": health.bytes}
    told = f"{entries:,} entries up to position {health.position:,}, {health.bytes / 2**20:.1f} MiB: all is sound"
    answer({**result, "report": list(health.report)}, json, [*health.report, told])


@log.command("repair")
def repair(place: Place, json: Json = False) -> None:
    """Replace a damaged log by what is sound of it, and tell what is lost. Copy the folder before.

    Example: macrorec log repair shop-data
    """
    from macrorec.serve.sqlite_log import SqliteLog

    with SqliteLog(_log_of(place), repair=True) as opened:
        report = list(opened.health().report)
    answer({"report": report}, json, report or ["nothing is damaged"])


def _log_of(place: Path) -> Path:
    from macrorec.serve.sqlite_log import FILE

    path = place / FILE if place.is_dir() else place
    if not path.is_file() and not path.with_name(f"{path.name}.acknowledged").is_file():
        raise DataError(f"there is no log in {place}")
    return path


def _batches(opened: Any) -> Iterator[Any]:
    position = opened.health().compacted
    while len(batch := opened.read(position, 500_000)):
        yield batch
        position = batch.last


def _schema(bundle: Path | None) -> Schema:
    """What may be in the file: with a bundle, its behaviours and types of ids."""
    from macrorec.serve.events import Schema

    if bundle is None:
        return Schema(extra=True)
    from macrorec.bundle import Bundle

    known = Bundle.load(bundle)
    return Schema(
        behaviors=known.graph.behaviors,
        users_are_text=known.users.is_text,
        items_are_text=known.items.is_text,
        extra=True,
    )


def _sink(stack: ExitStack, data: Path | None, url: str | None, api_key: Path | None, durability: Any) -> Sink:
    if url is not None:
        from macrorec.serve.post import HttpSink

        sink = HttpSink(url, _key(api_key))
        stack.callback(sink.close)
        return sink
    from macrorec.serve.ingest import LogSink
    from macrorec.serve.sqlite_log import FILE, SqliteLog

    assert data is not None
    opened = stack.enter_context(SqliteLog(data / FILE, durability))
    for line in opened.health().report:
        note(f"note: {line}")
    return LogSink(opened)


def _key(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is no key'}") from error


def _rows(stack: ExitStack, file: str) -> Iterator[Row]:
    from macrorec.serve import ingest as from_file

    if file == "-":
        return from_file.json_lines(sys.stdin.buffer)
    path = Path(file)
    try:
        stream = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    if stream.read(4) == b"PAR1":
        return from_file.parquet_rows(path)
    stream.seek(0)
    return from_file.json_lines(stream)


def _teller() -> Callable[[Ingested], None]:
    """Tells on standard error how far it is: a line that changes on a terminal, else one every ten seconds."""
    bar = sys.stderr.isatty()
    began = last = time.monotonic()

    def tell(done: Ingested) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < (0.2 if bar else 10):
            return
        last = now
        line = f"{done.rows:,} rows, {done.added:,} added, {done.rows / (now - began):,.0f} per second"
        if bar:
            sys.stderr.write(f"\r\x1b[K{line}\r")
            sys.stderr.flush()
        else:
            note(line)

    return tell
