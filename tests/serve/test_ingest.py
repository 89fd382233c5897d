import io
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from macrorec.data.log import Behavior
from macrorec.errors import DataError
from macrorec.serve import ingest as module
from macrorec.serve.events import Event, EventError, Schema
from macrorec.serve.ingest import LogSink, Row, identity, ingest, json_lines, parquet_rows
from macrorec.serve.log import Appended, LogFull
from macrorec.serve.sqlite_log import SqliteLog

SCHEMA = Schema(behaviors=(Behavior(name="view", role="auxiliary"), Behavior(name="buy")), extra=True)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(tmp_path / "log.sqlite", "none") as log:
        yield log


def rows(n: int, first: int = 1) -> list[Row]:
    return [(line, {"user_id": f"u{line}", "item_id": line, "behavior": "view"}) for line in range(first, first + n)]


def items(log: SqliteLog) -> list[str]:
    return log.read(0, 1 << 30).events["item_id"].to_list()


def test_twice_adds_nothing(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogSink, "group", 7)
    given = [*rows(30), (31, {"user_id": "", "item_id": "i"}), (32, EventError("not JSON")), *rows(3, 33)]
    done = ingest(iter(given), LogSink(log), SCHEMA, "s")
    assert (done.rows, done.added, done.duplicates, done.refused) == (35, 33, 0, 2)
    assert done.reasons == [(31, "user_id is blank"), (32, "not JSON")]
    done = ingest(iter(given), LogSink(log), SCHEMA, "s")
    assert (done.rows, done.added, done.duplicates, done.refused) == (35, 0, 33, 2)
    assert ingest(iter(rows(40)), LogSink(log), SCHEMA, "s").added == 7
    assert items(log) == [str(n) for n in (*range(1, 31), 33, 34, 35, 31, 32, *range(36, 41))]
    assert ingest(iter(rows(2)), LogSink(log), SCHEMA, "another").added == 2
    assert ingest(iter(rows(2)), LogSink(log), SCHEMA, None).added == 2
    assert ingest(iter(rows(2)), LogSink(log), SCHEMA, None).added == 2


def test_what_a_row_calls_source_or_does_not_say(log: SqliteLog) -> None:
    raw = {"UserId": "u", "item": 7, "source": "web", "offset": "x", "colour": "red", "time": 5_000, "timestamp": 7_000}
    done = ingest(iter([(1, raw), (2, [])]), LogSink(log), SCHEMA, "s", behavior="view", milliseconds=True)
    assert done.added == 1 and done.reasons == [(2, "an event is an object with fields, not an array")]
    (event,) = log.read(0, 10).entries
    assert event == Event("u", "7", "view", 7)
    ingest(iter([(2, raw)]), LogSink(log), SCHEMA, "s")
    assert log.read(1, 10).entries[0] == Event("u", "7", "buy", 7_000)


class Faulty(LogSink):
    """Refuses an event where it is stored, and breaks off after some groups."""

    group = 5

    def __init__(self, log: SqliteLog, refused: tuple[str, ...], groups: int) -> None:
        super().__init__(log)
        self.refused, self.left = refused, groups

    def send(self, events: Sequence[Event]) -> Future[Appended]:
        future: Future[Appended] = Future()
        for index, event in enumerate(events):
            if event.item_id in self.refused:
                future.set_exception(EventError("not this one", index))
                return future
        if not self.left:
            future.set_exception(LogFull("the disk is full"))
            return future
        self.left -= 1
        return super().send(events)


def test_a_row_that_is_refused_later_leaves_the_others(log: SqliteLog) -> None:
    done = ingest(iter(rows(12)), Faulty(log, ("7", "9"), 100), SCHEMA, "s")
    assert (done.added, done.reasons) == (10, [(7, "not this one"), (9, "not this one")])
    assert sorted(items(log), key=int) == [str(n) for n in range(1, 13) if n not in (7, 9)]


def test_what_was_broken_off_goes_on(log: SqliteLog) -> None:
    with pytest.raises(LogFull) as caught:
        ingest(iter(rows(50)), Faulty(log, (), 3), SCHEMA, "s")
    assert caught.value.ingested.added == 15 == log.last()
    done = ingest(iter(rows(50)), LogSink(log), SCHEMA, "s")
    assert (done.added, done.duplicates) == (35, 15) and items(log) == [str(n) for n in range(1, 51)]


def test_it_tells_how_far_it_is(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogSink, "group", 5)
    told: list[int] = []
    ingest(iter(rows(12)), LogSink(log), SCHEMA, "s", tell=lambda done: told.append(done.added))
    assert told == [5, 10, 12]


def test_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_LINE", 40)
    text = b'\xef\xbb\xbf{"a": 1}\n\n  \r\n{"b": "\xc3\xbc"}\r\nnot\n[1]\n' + b"x" * 200 + b'\n{"c": "\xff"}\n{"d": 1}'
    found = [(line, str(raw) if isinstance(raw, EventError) else raw) for line, raw in json_lines(io.BytesIO(text))]
    assert [line for line, _ in found] == [1, 4, 5, 6, 7, 8, 9]
    assert found[0][1] == {"a": 1} and found[1][1] == {"b": "ü"} and found[3][1] == [1] and found[6][1] == {"d": 1}
    assert "not JSON" in found[2][1] and "longer than 40 bytes" in found[4][1] and "not JSON" in found[5][1]


def test_deep_json_is_one_refused_line() -> None:
    ((_, raw), (_, last)) = json_lines(io.BytesIO(b"[" * 100_000 + b"\n{}\n"))
    assert isinstance(raw, EventError) and last == {}


def test_parquet_rows(tmp_path: Path) -> None:
    times = [datetime(2024, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC), None, datetime(1969, 12, 31, tzinfo=UTC)]
    frame = pl.DataFrame({"user": [1, 2, 3], "item": ["a", "b", None], "datetime": times, "rating": [1.5, None, 3.0]})
    frame = frame.with_columns(pl.lit("web").alias("source"))
    frame.write_parquet(tmp_path / "f")
    seconds = int(datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp())
    assert list(parquet_rows(tmp_path / "f")) == [
        (1, {"user_id": 1, "item_id": "a", "timestamp": seconds, "label": 1.5}),
        (2, {"user_id": 2, "item_id": "b", "timestamp": None, "label": None}),
        (3, {"user_id": 3, "item_id": None, "timestamp": -86_400, "label": 3.0}),
    ]


def test_what_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"PAR1 and something else")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(parquet_rows(tmp_path / "f"))
    pl.DataFrame({"who": [1]}).write_parquet(tmp_path / "g")
    with pytest.raises(DataError, match="no column for user_id"):
        list(parquet_rows(tmp_path / "g"))


def test_a_file_is_known_by_what_it_holds(tmp_path: Path) -> None:
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).write_text(text)
    a, b, c = (identity(tmp_path / name) for name in "abc")
    assert a == b != c and a.startswith("file-") and len(a) == 37
