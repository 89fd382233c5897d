"""Which routes write? Events, items, and the removal of a user; answered when they are durable."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from macrorec.serve.events import EventError
from macrorec.serve.exchange import Exchange, Operation, Reply, Shared, decode
from macrorec.serve.log import Appended
from macrorec.serve.messages import Forgot, ItemBody, Stored
from macrorec.serve.problems import Problem

_EVENTS = msgspec.json.Decoder(list[dict[str, Any]])
_ITEMS = msgspec.json.Decoder(ItemBody | list[ItemBody])
_IDEMPOTENCY = re.compile(rb"[\x21-\x7e]{1,255}")
_REMEMBERED = 10_000
"""Idempotency-Keys whose bodies are compared; older ones are still counted once, by the log."""


async def feedback(shared: Shared, exchange: Exchange) -> Reply:
    """``POST /api/feedback``: events, stored before the answer, known to the next recommendation."""
    shared.writes.admit()
    exchange.query({})
    body = await exchange.body(shared.settings)

    def work() -> Appended:
        raw = decode(body, _EVENTS)
        _count(raw, shared.settings.max_events, "events")
        key = idempotency_key(shared, exchange, body)
        try:
            events = shared.service.check(raw, key)
        except EventError:
            shared.metrics.refused(len(raw))
            raise
        stored: Appended = shared.service.feedback(events)
        return stored

    stored = await shared.writes.run(work)
    shared.metrics.events(stored.added, stored.duplicates)
    exchange.notes["events"] = stored.added
    return Reply(msgspec.json.encode(Stored(stored.added, stored.duplicates, stored.position)))


def idempotency_key(shared: Shared, exchange: Exchange, body: bytes) -> bytes | None:
    """What the events' keys begin with, by the header Idempotency-Key, if there is one.

    Two keys of two clients differ. Raises Problem where the same key came with another body of late.
    """
    given = exchange.headers.get(b"idempotency-key")
    if given is None:
        return None
    if not _IDEMPOTENCY.fullmatch(given):
        raise Problem("invalid", "Idempotency-Key is 1 to 255 visible ASCII characters")
    owner = exchange.caller.name.encode() if exchange.caller else b""
    key = hashlib.blake2b(owner + b"\n" + given, digest_size=16).digest()
    content = hashlib.blake2b(body, digest_size=16).digest()
    seen = shared.seen_keys
    if seen.setdefault(key, content) != content:
        raise Problem("reused-key", "this Idempotency-Key came with another body before")
    while len(seen) > _REMEMBERED:
        with suppress(StopIteration, KeyError, RuntimeError):  # another thread was faster
            del seen[next(iter(seen))]
    return key


async def announce(shared: Shared, exchange: Exchange) -> Reply:
    """``POST /api/item``: items that are new; they can be recommended from now on."""
    shared.writes.admit()
    exchange.query({})
    body = await exchange.body(shared.settings)

    def work() -> Appended:
        decoded = decode(body, _ITEMS)
        items = decoded if isinstance(decoded, list) else [decoded]
        _count(items, shared.settings.max_events, "items")
        stored: Appended = shared.service.announce(items)
        return stored

    stored = await shared.writes.run(work)
    exchange.notes["items"] = stored.added
    return Reply(msgspec.json.encode(Stored(stored.added, stored.duplicates, stored.position)))


async def forget(shared: Shared, exchange: Exchange) -> Reply:
    """``DELETE /api/user/{user}``: the user leaves log, state, snapshots and answers."""
    (user,) = exchange.ids(1)
    exchange.query({})
    rows = await shared.writes.run(lambda: shared.service.forget(user))
    return Reply(msgspec.json.encode(Forgot(int(rows))))


def _count(sent: Sequence[Any], most: int, what: str) -> None:
    if not 1 <= len(sent) <= most:
        raise Problem("invalid", f"send 1 to {most:,} {what} in one request")


ROUTES = (
    Operation("POST", "/api/feedback", "feedback", "client", feedback),
    Operation("POST", "/api/item", "item", "client", announce),
    Operation("DELETE", "/api/user/{user}", "forget", "client", forget),
)
