"""How do events of a Kafka topic come into the log, each once? Kafka hears that they arrived after they are durable.

A message's source is ``<topic>:<partition>``, with its offset. Whatever is delivered again, after a crash or because
partitions moved to another worker, the log has already, and adds nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from macrorec.errors import ConfigError, ResourceError
from macrorec.serve.events import Event, EventError
from macrorec.serve.log import Appended, LogFull, LogUnavailable

MOST = 1_000
"""Messages that are stored, and confirmed, together."""
_WAIT, _LONGEST_WAIT = 0.1, 5.0
"""Seconds until a log that cannot be written is tried again: at first, and at most."""
_LONGEST = 1 << 20
"""Bytes of a message."""

logger = logging.getLogger(__name__)
_decode = msgspec.json.Decoder().decode


class Message(Protocol):
    """As confluent_kafka's."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def value(self) -> bytes | None: ...
    def error(self) -> Any: ...


class Consumer(Protocol):
    """What is used of confluent_kafka's; ``auto commit`` is off."""

    def consume(self, num_messages: int, timeout: float) -> Sequence[Message]:
        """Messages in order within each partition, or none."""

    def commit(self, message: Message, asynchronous: bool) -> Any:
        """All of the message's partition up to it has arrived."""

    def close(self) -> None:
        """Leave the group."""


@dataclass(slots=True)
class Consumed:
    """What became of the messages so far."""

    messages: int = 0
    added: int = 0
    duplicates: int = 0
    """Delivered again, and in the log already."""
    refused: int = 0
    """No events, or none that is allowed: told in the log of errors, and passed over."""
    last_error: str | None = None


def connect(brokers: str, topic: str, group: str) -> Consumer:
    """A consumer of ``topic``, as one of ``group``, from the oldest message that the group has not confirmed.

    Raises ConfigError.
    """
    try:
        import confluent_kafka
    except ModuleNotFoundError:
        raise ConfigError("--kafka needs its client: pip install 'macrorec[kafka]'") from None
    if not (brokers and topic and group):  # the client would end the process
        raise ConfigError("Kafka's brokers, topic and group may not be empty")
    settings = {
        "bootstrap.servers": brokers,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "client.id": "macrorec",
    }
    try:
        consumer: Any = confluent_kafka.Consumer(settings, logger=logger)
        consumer.subscribe([topic])
    except (confluent_kafka.KafkaException, ValueError) as error:
        raise ConfigError(f"cannot consume {topic} of {brokers}: {error}") from None
    found: Consumer = consumer
    return found


class Intake:
    """A thread that brings messages into the log, until it is closed."""

    def __init__(
        self, consumer: Consumer, append: Callable[[Sequence[Event]], Appended], check: Callable[[Any], Event]
    ) -> None:
        """``append``: of a log, or of a service; it returns when events are durable. ``check``: as ``Schema.check``."""
        self.told = Consumed()
        self._consumer, self._append, self._check = consumer, append, check
        self._end = threading.Event()
        self._thread = threading.Thread(target=self.run, name="kafka", daemon=True)

    def start(self) -> None:
        """Begin, beside what else the process does."""
        self._thread.start()

    def close(self) -> None:
        """End; what was taken and not stored will be delivered again."""
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()

    def run(self) -> None:
        """Until ``close``, or an error that cannot be recovered from."""
        try:
            while not self._end.is_set():
                messages = self._consumer.consume(num_messages=MOST, timeout=0.2)
                if messages:
                    self._take(messages)
        except Exception as error:
            self.told.last_error = str(error)
            logger.exception("no more messages are taken from Kafka")
        finally:
            self._consumer.close()

    def _take(self, messages: Sequence[Message]) -> None:
        """Store messages; confirm them when they are durable, and only then."""
        events: list[Event] = []
        last: dict[tuple[str, int], Message] = {}
        for message in messages:
            error = message.error()
            if error is not None:
                self._heed(error)
                continue
            self.told.messages += 1
            last[message.topic(), message.partition()] = message
            event = self._event(message)
            if event is not None:
                events.append(event)
        if not self._store(events):
            return
        for message in last.values():
            try:
                self._consumer.commit(message=message, asynchronous=False)
            except Exception as error:  # the partition is another's by now, say: they are delivered again
                self.told.last_error = f"messages are stored, but Kafka was not told: {error}"
                logger.warning("%s", self.told.last_error)

    def _event(self, message: Message) -> Event | None:
        value, source = message.value(), f"{message.topic()}:{message.partition()}"
        try:
            if value is None or len(value) > _LONGEST:
                raise EventError("no value" if value is None else f"more than {_LONGEST:,} bytes")
            try:
                raw = _decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise EventError(f"not JSON: {error}") from None
            if isinstance(raw, dict):
                raw |= {"source": source, "offset": message.offset()}
            return self._check(raw)
        except EventError as error:
            self._refuse(source, message.offset(), error.reason)
            return None

    def _store(self, events: list[Event]) -> bool:
        """Whether all are in the log; it is tried until it can be written, or the end."""
        wait = _WAIT
        while events:
            try:
                stored = self._append(events)
            except EventError as error:  # the others are stored without it
                bad = events.pop(error.index)
                self._refuse(str(bad.source), bad.offset or 0, error.reason)
            except (LogUnavailable, LogFull) as error:
                self.told.last_error = str(error)
                if self._end.wait(wait):
                    return False
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                self.told.added += stored.added
                self.told.duplicates += stored.duplicates
                break
        self.told.last_error = None
        return True

    def _refuse(self, source: str, offset: int, reason: str) -> None:
        self.told.refused += 1
        logger.warning("message %d of %s is passed over: %s", offset, source, reason)

    def _heed(self, error: Any) -> None:
        if getattr(error, "fatal", bool)():
            raise ResourceError(f"Kafka: {error}")
        self.told.last_error = f"Kafka: {error}"
        logger.warning("Kafka: %s", error)
