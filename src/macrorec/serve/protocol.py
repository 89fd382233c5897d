"""Which requests never become one? Headers without end, what is no HTTP, and reads that would wait too long.

Under five times the load four of five reads are turned away. Each of them, were it a request first, would cost the
event loop half of what an answer does, at the expense of those that are answered.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from macrorec.serve.exchange import Shared
from macrorec.serve.limits import REFUSALS
from macrorec.serve.problems import MEDIA_TYPE, Problem

READS = {b"recommend": "recommend", b"explain": "explain", b"item-to-item": "item-to-item"}
"""Second segment of a path -> route: what the door may turn away."""


def door(shared: Shared) -> Callable[[bytes], bytes | None]:
    """What answers a read that the lane would refuse, before it is a request; counted, but not in the log."""
    answers = {reason: _parts(Problem("busy", text, retry_after=1.0)) for reason, text in REFUSALS.items()}

    def turned_away(url: bytes) -> bytes | None:
        route = READS.get(url[5 : url.find(b"/", 5)]) if url.startswith(b"/api/") else None
        if route is None:
            return None
        reason = shared.reads.refusal()
        if not reason:
            return None
        shared.metrics.request(route, 503, 0.0)
        return os.urandom(8).hex().encode().join(answers[reason])

    return turned_away


def _parts(problem: Problem) -> list[bytes]:
    """The answer's bytes, to be joined by a request id of 16 characters."""
    mark = "0" * 16
    body = problem.body(mark)
    head = [
        STATUS_LINE[problem.status].rstrip(),
        b"content-type: " + MEDIA_TYPE,
        b"content-length: " + str(len(body)).encode(),
        b"cache-control: no-store",
        b"x-content-type-options: nosniff",
        b"x-request-id: " + mark.encode(),
        *(name + b": " + value for name, value in problem.all_headers()),
    ]
    return (b"\r\n".join(head) + b"\r\n\r\n" + body).split(mark.encode())


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 by httptools, with a bound on the size of headers, a door, and errors as problems."""

    header_bytes = 32 << 10
    header_seconds = 10.0
    door: Callable[[bytes], bytes | None] = staticmethod(lambda url: None)
    """The whole answer to a GET of ``url`` that is turned away; None for others."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._alarm: asyncio.TimerHandle | None = self.loop.call_later(self.header_seconds, self._too_slow)
        self._in_headers, self._taken, self._refused, self._turned_away = True, 0, False, False

    def data_received(self, data: bytes) -> None:
        """Feed the parser; refuse headers that do not end within the bound."""
        if self._refused:
            return
        if self._in_headers:
            self._taken += len(data)
        super().data_received(data)
        if self._in_headers and self._taken > self.header_bytes and not self.transport.is_closing():
            self._refuse_headers()
        elif self._in_headers and self._taken and self._alarm is None:  # only part of them has come
            self._alarm = self.loop.call_later(self.header_seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._calm()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_headers, self._taken = True, 1  # its first bytes have come

    def on_headers_complete(self) -> None:
        """Its headers have come; its body, if any, follows."""
        self._in_headers = False
        self._calm()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.header_bytes:
            self._refuse_headers()
            return
        idle = self.cycle is None or self.cycle.response_complete
        answer = self.door(self.url) if idle and self.parser.get_method() == b"GET" else None
        if answer is not None:
            self._turned_away = True
            self.transport.write(answer)
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        if not (self._refused or self._turned_away):
            super().on_body(body)

    def on_message_complete(self) -> None:
        """It has come whole; what follows are the headers of another."""
        if self._turned_away:
            self._turned_away = False
            self._wait_for_the_next()
        elif not self._refused:
            super().on_message_complete()
        self._in_headers, self._taken = True, 0

    def _wait_for_the_next(self) -> None:
        if not self.parser.should_keep_alive():
            self.transport.close()
            return
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(Problem("bad-request", "this is not a request in HTTP/1.1"))

    def _calm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _too_slow(self) -> None:
        if self._taken and not self.transport.is_closing():
            self._refuse(Problem("slow-headers", f"headers must arrive within {self.header_seconds:g} s"))
        else:  # nothing was asked
            self.transport.close()

    def _refuse_headers(self) -> None:
        detail = f"request line and headers have at most {self.header_bytes:,} bytes"
        self._refuse(Problem("header-too-large", detail))

    def _refuse(self, problem: Problem) -> None:
        self._refused = True
        body = problem.body("")
        head = [
            STATUS_LINE[problem.status].rstrip(),
            b"content-type: " + MEDIA_TYPE,
            b"content-length: " + str(len(body)).encode(),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        self.transport.close()
