"""What is known about one request, and what do all requests share?"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from macrorec.serve.auth import Key, Keys
from macrorec.serve.events import EventError, Schema
from macrorec.serve.limits import Lag, Lane, Rates
from macrorec.serve.metrics import Metrics
from macrorec.serve.problems import Problem
from macrorec.serve.request_log import RequestLog
from macrorec.serve.settings import Settings

T = TypeVar("T")
Headers = tuple[tuple[bytes, bytes], ...]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{8,128}")
_MS = re.compile(rb"[0-9]{1,6}")
_SCHEMA = Schema()


class Reply:
    """A complete answer, ready to be sent."""

    __slots__ = ("body", "headers", "media_type", "status")

    def __init__(
        self, body: bytes, status: int = 200, media_type: bytes = b"application/json", headers: Headers = ()
    ) -> None:
        self.body, self.status, self.media_type, self.headers = body, status, media_type, headers

    async def send(self, send: Any) -> None:
        """Send it over ASGI."""
        headers = [
            (b"content-type", self.media_type),
            (b"content-length", str(len(self.body)).encode()),
            (b"cache-control", b"no-store"),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Exchange:
    """One request on its way to an answer; belongs to the event loop."""

    __slots__ = ("arrived", "caller", "headers", "notes", "operation", "raw_path", "receive", "request_id", "scope")

    def __init__(self, scope: Any, receive: Any) -> None:
        self.arrived = time.monotonic()
        self.scope, self.receive = scope, receive
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.raw_path: bytes = scope["raw_path"]
        self.operation = "none"
        self.caller: Key | None = None
        self.notes: dict[str, Any] = {}
        """What the log line says beyond the usual."""
        given = self.headers.get(b"x-request-id", b"")
        self.request_id = given.decode() if _REQUEST_ID.fullmatch(given) else os.urandom(8).hex()

    def ids(self, n: int) -> list[str]:
        """The last ``n`` segments of the path as ids; a slash inside an id is written %2F.

        Raises Problem where there are more or fewer, or where one is no id.
        """
        parts = self.raw_path.split(b"/")[3:]  # after "", "api", and the name of the route
        if len(parts) != n:
            raise Problem("not-found", f"the path takes {n} id{'s' * (n > 1)}; write a slash inside an id as %2F")
        try:
            return [check_id(unquote_to_bytes(part).decode()) for part in parts]
        except UnicodeDecodeError:
            raise Problem("invalid", "an id in the path is not UTF-8") from None

    def query(self, allowed: Mapping[str, bool]) -> dict[str, Any]:
        """The parameters after ``?``: name -> text, or list of texts where ``allowed`` says True. Raises Problem."""
        raw = self.scope["query_string"]
        if not raw:
            return {}
        try:
            pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=1_000)
        except (UnicodeDecodeError, ValueError):
            raise Problem("invalid", "the query is not percent-encoded UTF-8 of at most 1,000 parameters") from None
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name not in allowed:
                known = ", ".join(allowed) or "none"
                raise Problem("invalid", f"unknown query parameter; known are: {known}", parameter=name[:100])
            if allowed[name]:
                found.setdefault(name, []).append(value)
            elif name in found:
                raise Problem("invalid", f"{name} is given twice", parameter=name)
            else:
                found[name] = value
        return found

    async def body(self, settings: Settings) -> bytes:
        """The whole body. Raises Problem where it is no JSON by its header, too large, or too slow."""
        kind = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":  # a form could be sent by any web page; JSON needs the server's consent
            raise Problem("not-json", "send the header Content-Type: application/json")
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Problem("not-json", "send the body without Content-Encoding")
        limit = settings.body_bytes
        too_large = Problem("too-large", f"a body has at most {limit:,} bytes", headers=((b"connection", b"close"),))
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
            raise too_large
        message = await self.receive()
        if not message.get("more_body") and message["type"] == "http.request":  # the usual case: one piece
            if len(message["body"]) > limit:
                raise too_large
            return bytes(message["body"])
        try:
            async with asyncio.timeout(settings.body_seconds):
                body = bytearray()
                while True:
                    if message["type"] != "http.request":
                        raise Problem("bad-request", "the client went away before the end of the body")
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise too_large
                    if not message.get("more_body"):
                        return bytes(body)
                    message = await self.receive()
        except TimeoutError:
            raise Problem(
                "slow-body",
                f"a body must arrive within {settings.body_seconds:g} s",
                headers=((b"connection", b"close"),),
            ) from None

    def deadline(self, settings: Settings) -> float:
        """When stages are left out, in seconds of ``time.monotonic``."""
        asked = self.headers.get(b"x-deadline-ms")
        if asked is None:
            return self.arrived + settings.deadline_ms / 1e3
        if not _MS.fullmatch(asked) or not 1 <= int(asked) <= settings.timeout_ms:
            raise Problem("invalid", f"X-Deadline-Ms is a whole number from 1 to {settings.timeout_ms}")
        return self.arrived + int(asked) / 1e3


def check_id(text: str, name: str = "an id") -> str:
    """``text``, if it can be an id; else Problem."""
    try:
        return _SCHEMA.id_of(text, name)
    except EventError as error:
        raise Problem("invalid", error.reason) from None


def whole(text: str | None, name: str, default: int, least: int, most: int) -> int:
    """A whole number from the query; raises Problem where it is none, or outside its range."""
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most):
        raise Problem("invalid", f"{name} is a whole number from {least} to {most}", parameter=name)
    return int(text)


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The JSON ``body`` as the decoder's type; raises Problem 400 for what is no JSON, 422 for other content."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Problem("invalid", str(error)[:300]) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:300]
        raise Problem("bad-request", f"the body cannot be read as JSON: {reason}") from None
    except RecursionError:
        raise Problem("invalid", "the body is nested too deeply") from None


@dataclass(slots=True, eq=False)
class Shared:
    """What all requests of a server share."""

    service: Any
    settings: Settings
    keys: Keys
    metrics: Metrics
    log: RequestLog
    reads: Lane
    writes: Lane
    inner: Lane
    """For health, metrics and the like: answered while ``reads`` is full."""
    admin: Lane
    lag: Lag
    rates: Rates
    in_flight: int = 0
    draining: bool = False
    """The server has been told to end: ready says 503."""
    seen_keys: dict[bytes, bytes] = field(default_factory=dict)
    """Idempotency-Key of late -> hash of its body."""

    def lanes(self) -> Sequence[Lane]:
        """All of them."""
        return (self.reads, self.writes, self.inner, self.admin)


@dataclass(frozen=True, slots=True)
class Operation:
    """A route: how it is reached, who may use it, what answers it, and how it is described."""

    method: str
    path: str
    """As OpenAPI writes it."""
    name: str
    access: str
    """``open``, ``client`` or ``admin``."""
    answer: Callable[[Shared, Exchange], Awaitable[Reply]]
