"""Messages come once each, whatever is delivered again; and Kafka hears of them when they are durable, not before."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from macrorec.data.log import Behavior
from macrorec.errors import ConfigError
from macrorec.serve.events import Event, EventError, Schema
from macrorec.serve.kafka import MOST, Intake, connect
from macrorec.serve.log import Appended, LogFull, LogUnavailable
from macrorec.serve.sqlite_log import SqliteLog

SCHEMA = Schema(behaviors=(Behavior(name="view"),))


class FakeError:
    def __init__(self, text: str, fatal: bool) -> None:
        self.text, self.is_fatal = text, fatal

    def fatal(self) -> bool:
        return self.is_fatal

    def __str__(self) -> str:
        return self.text


class FakeMessage:
    def __init__(self, partition: int, offset: int, value: bytes | None, error: FakeError | None = None) -> None:
        self._fields = ("events", partition, offset, value, error)

    def topic(self) -> str:
        return self._fields[0]

    def partition(self) -> int:
        return self._fields[1]

    def offset(self) -> int:
        return self._fields[2]

    def value(self) -> bytes | None:
        return self._fields[3]

    def error(self) -> FakeError | None:
        return self._fields[4]


class FakeConsumer:
    """A topic of two partitions; a new consumer begins after what was committed, as Kafka's do."""

    def __init__(self, topic: dict[int, list[bytes | None]], committed: dict[int, int]) -> None:
        self.topic, self.committed, self.closed = topic, committed, False
        self.place = {partition: committed.get(partition, 0) for partition in topic}
        self.refuse_commit = False
        self.errors: list[FakeError] = []

    def consume(self, num_messages: int, timeout: float) -> Sequence[FakeMessage]:
        assert not self.closed
        if self.errors:
            return [FakeMessage(0, 0, None, self.errors.pop())]
        messages = []
        for partition, values in self.topic.items():
            begin = self.place[partition]
            part = values[begin : begin + num_messages // 2]
            messages += [FakeMessage(partition, begin + n, value) for n, value in enumerate(part)]
            self.place[partition] += len(part)
        if not messages:
            time.sleep(0.001)
        return messages

    def commit(self, message: FakeMessage, asynchronous: bool) -> None:
        assert not asynchronous
        if self.refuse_commit:
            raise RuntimeError("the generation is over")
        self.committed[message.partition()] = message.offset() + 1

    def close(self) -> None:
        self.closed = True


def value(n: int, **more: object) -> bytes:
    return msgspec.json.encode({"user_id": f"u{n % 7}", "item_id": f"i{n}", "timestamp": n, **more})


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(tmp_path / "log.sqlite", "none") as log:
        yield log


def items(log: SqliteLog) -> list[str]:
    return sorted(entry.item_id for entry in log.read(0, 1 << 30).entries if isinstance(entry, Event))


def run(intake: Intake, until: Callable[[], bool]) -> None:
    intake.start()
    end = time.monotonic() + 10
    while not until():
        assert time.monotonic() < end
        time.sleep(0.001)
    intake.close()


def test_all_messages_come_and_are_confirmed(log: SqliteLog) -> None:
    topic = {0: [value(n) for n in range(3 * MOST)], 1: [value(n) for n in range(3 * MOST, 3 * MOST + 10)]}
    consumer = FakeConsumer(topic, {})
    intake = Intake(consumer, log.append, SCHEMA.check)
    run(intake, lambda: consumer.committed == {0: 3 * MOST, 1: 10})
    assert items(log) == sorted(f"i{n}" for n in range(3 * MOST + 10)) and consumer.closed
    assert (intake.told.messages, intake.told.added, intake.told.duplicates) == (3 * MOST + 10, 3 * MOST + 10, 0)


def test_what_is_delivered_again_adds_nothing(log: SqliteLog) -> None:
    """Stored, and then killed before Kafka heard of it: three times over."""
    topic = {0: [value(n) for n in range(100)], 1: [value(n) for n in range(100, 150)]}
    for _ in range(3):
        consumer = FakeConsumer(topic, {})
        consumer.refuse_commit = True
        intake = Intake(consumer, log.append, SCHEMA.check)
        run(intake, lambda intake=intake: intake.told.added + intake.told.duplicates == 150)
        assert consumer.committed == {} and "was not told" in str(intake.told.last_error)
    consumer = FakeConsumer(topic, {0: 90})
    intake = Intake(consumer, log.append, SCHEMA.check)
    run(intake, lambda: consumer.committed == {0: 100, 1: 50})
    assert intake.told.duplicates == 60 and len(items(log)) == 150 == len(set(items(log)))


def test_nothing_is_confirmed_before_it_is_durable(log: SqliteLog) -> None:
    consumer = FakeConsumer({0: [value(n) for n in range(10)]}, {})
    durable, asked = threading.Event(), threading.Event()

    def append(events: Sequence[Event]) -> Appended:
        asked.set()
        assert durable.wait(10)
        return log.append(events)

    intake = Intake(consumer, append, SCHEMA.check)
    intake.start()
    assert asked.wait(10)
    time.sleep(0.02)
    assert consumer.committed == {}
    durable.set()
    run_until = time.monotonic() + 10
    while consumer.committed != {0: 10}:
        assert time.monotonic() < run_until
        time.sleep(0.001)
    intake.close()


def test_a_log_that_cannot_be_written_is_tried_again(log: SqliteLog) -> None:
    consumer = FakeConsumer({0: [value(n) for n in range(10)]}, {})
    failures = [LogUnavailable("down"), LogFull("full")]

    def append(events: Sequence[Event]) -> Appended:
        if failures:
            raise failures.pop()
        return log.append(events)

    intake = Intake(consumer, append, SCHEMA.check)
    run(intake, lambda: consumer.committed == {0: 10})
    assert len(items(log)) == 10 and intake.told.last_error is None

    def never(events: Sequence[Event]) -> Appended:
        raise LogUnavailable("down")

    consumer = FakeConsumer({0: [value(n) for n in range(10)]}, {})
    intake = Intake(consumer, never, SCHEMA.check)
    run(intake, lambda: intake.told.last_error == "down")
    assert consumer.committed == {} and consumer.closed


@pytest.mark.parametrize(
    "bad",
    [None, b"", b"{", b"[]", b"7", b"\xff", b"[" * 10_000, value(1, item_id=""), value(1, weight=-1), b" " * (2 << 20)],
)
def test_what_is_no_event_is_passed_over(log: SqliteLog, bad: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    consumer = FakeConsumer({0: [value(0), bad, value(2)], 1: [bad]}, {})
    intake = Intake(consumer, log.append, SCHEMA.check)
    run(intake, lambda: consumer.committed == {0: 3, 1: 1})
    assert items(log) == ["i0", "i2"] and intake.told.refused == 2
    assert "message 1 of events:0 is passed over" in caplog.text


def test_what_the_log_refuses_holds_nobody_up(log: SqliteLog) -> None:
    def append(events: Sequence[Event]) -> Appended:
        for n, event in enumerate(events):
            if event.item_id == "i5":
                raise EventError("not this one", n)
        return log.append(events)

    consumer = FakeConsumer({0: [value(n) for n in range(10)]}, {})
    intake = Intake(consumer, append, SCHEMA.check)
    run(intake, lambda: consumer.committed == {0: 10})
    assert len(items(log)) == 9 and intake.told.refused == 1


def test_a_message_cannot_say_where_it_is_from(log: SqliteLog) -> None:
    consumer = FakeConsumer({0: [value(n, source="s", offset=0) for n in range(3)]}, {})
    intake = Intake(consumer, log.append, SCHEMA.check)
    run(intake, lambda: consumer.committed == {0: 3})
    assert len(items(log)) == 3
    again = [Event("u", "i", "view", source="events:0", offset=n) for n in range(3)]
    assert log.append(again).added == 0


def test_errors_of_kafka(log: SqliteLog) -> None:
    consumer = FakeConsumer({0: [value(0)]}, {})
    consumer.errors = [FakeError("broker down", False)]
    intake = Intake(consumer, log.append, SCHEMA.check)
    run(intake, lambda: consumer.committed == {0: 1})
    assert not intake.told.refused
    consumer = FakeConsumer({0: []}, {})
    consumer.errors = [FakeError("fenced", True)]
    intake = Intake(consumer, log.append, SCHEMA.check)
    run(intake, lambda: consumer.closed)
    assert intake.told.last_error == "Kafka: fenced"


def test_the_client_is_imported_when_it_is_used() -> None:
    code = "import sys, macrorec.serve.kafka; assert 'confluent_kafka' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(ConfigError, match="may not be empty"):
        connect("127.0.0.1:1", "events", "")
    consumer = connect("127.0.0.1:1", "events", "macrorec")
    assert list(consumer.consume(num_messages=1, timeout=0.01)) == []
    consumer.close()
