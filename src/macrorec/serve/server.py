"""How does the server listen, and how does it end? Ready says 503 first, and requests in flight finish."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from macrorec.errors import ConfigError, UserError
from macrorec.serve.exchange import Shared
from macrorec.serve.problems import MEDIA_TYPE, Problem

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while others wait for it. Python's own 5 ms would be the event loop's
delay whenever a thread computes in Python; see ``benchmarks/serve_http.py``."""


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 by httptools, with a bound on the size of headers, and errors as problems."""

    header_bytes = 32 << 10

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._in_headers, self._taken, self._refused = True, 0, False

    def data_received(self, data: bytes) -> None:
        """Feed the parser; refuse headers that do not end within the bound."""
        if self._refused:
            return
        if self._in_headers:
            self._taken += len(data)
        super().data_received(data)
        if self._in_headers and self._taken > self.header_bytes and not self.transport.is_closing():
            self._refuse_headers()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_headers, self._taken = True, 0

    def on_headers_complete(self) -> None:
        """Its headers have come; its body, if any, follows."""
        self._in_headers = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.header_bytes:
            self._refuse_headers()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """It has come whole; what follows are the headers of another."""
        if not self._refused:
            super().on_message_complete()
        self._in_headers, self._taken = True, 0

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(Problem("bad-request", "this is not a request in HTTP/1.1"))

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


class Server(uvicorn.Server):
    """Ends on SIGTERM or SIGINT with exit code 0; a second signal does not wait for the drain."""

    def __init__(self, app: FastAPI, *, on_listening: Callable[[], None] = lambda: None) -> None:
        self._shared: Shared = app.state.shared
        self._on_listening = on_listening
        self._end = math.inf
        settings = self._shared.settings
        protocol = type("BoundedProtocol", (Protocol,), {"header_bytes": settings.header_bytes})
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                loop="uvloop" if sys.platform != "win32" else "asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell."""
        await super().startup(sockets)
        if not self.should_exit:
            self._on_listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Say 503 to ready from now on; stop listening when the drain is over, or at a second signal."""
        again, self._shared.draining = self._shared.draining, True
        if again or not self.started:
            self.should_exit = True
        else:
            self._end = time.monotonic() + self._shared.settings.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop listening; asked ten times a second."""
        if time.monotonic() >= self._end:
            self.should_exit = True
        if counter % 10 == 0:
            self._refresh_keys()
        return await super().on_tick(counter)

    def _refresh_keys(self) -> None:
        try:
            if self._shared.keys.refresh():
                self._shared.log.write("keys", count=len(self._shared.keys))
        except UserError as error:
            self._shared.log.write("keys", error=str(error))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was heeded is not raised once more in the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def bind(host: str, port: int) -> socket.socket:
    """A socket at that address, not yet listening: whether it can be had is known before anything is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}: {error.strerror}") from error
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except (OSError, OverflowError) as error:
        bound.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}"
        ) from error
    return bound


def serve(app: FastAPI, bound: socket.socket, on_listening: Callable[[], None] = lambda: None) -> None:
    """Answer until a signal comes; returns when every request in flight has its answer."""
    sys.setswitchinterval(SWITCH_SECONDS)
    server: Any = Server(app, on_listening=on_listening)
    server.run(sockets=[bound])
