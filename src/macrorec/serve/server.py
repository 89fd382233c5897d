"""How does the server listen, and how does it end? Ready says 503 first, and requests in flight finish."""

from __future__ import annotations

import asyncio
import ctypes
import math
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from macrorec.errors import ConfigError, UserError
from macrorec.serve.exchange import Shared
from macrorec.serve.protocol import Protocol, door

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while others wait for it. Python's own 5 ms would be the event loop's
delay whenever a thread computes in Python; see ``benchmarks/serve_http.py``."""
LINGER_SECONDS = 0.25
"""How long, in the end, the server waits for the first request of a connection that was made before it."""
DEAF_SECONDS = 0.05
"""How long before that a connection under way has to be made; a new one is not begun any more."""


class Server(uvicorn.Server):
    """Ends on SIGTERM or SIGINT with exit code 0; a second signal does not wait for the drain."""

    def __init__(self, app: FastAPI, *, on_listening: Callable[[], None] = lambda: None) -> None:
        self._shared: Shared = app.state.shared
        self._on_listening = on_listening
        self._end = math.inf
        self._keys_error = ""
        settings = self._shared.settings
        bounds = {"header_bytes": settings.header_bytes, "header_seconds": settings.header_seconds}
        protocol = type("BoundedProtocol", (Protocol,), {**bounds, "door": staticmethod(door(self._shared))})
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
        """Say 503 to ready from now on; stop listening when the drain is over, or at a second signal.

        What is not handed on to uvicorn is not raised once more in the end, so that the exit code is 0.
        """
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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen no more; let those who have connected, but not asked yet, ask; then finish what was asked."""
        for bound in sockets or []:
            deaf(bound)
        await asyncio.sleep(DEAF_SECONDS)
        for server in self.servers:
            server.close()
        end = time.monotonic() + LINGER_SECONDS
        while time.monotonic() < end and any(map(_asks_later, self.server_state.connections)):
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)

    def _refresh_keys(self) -> None:
        try:
            if self._shared.keys.refresh():
                self._shared.log.write("keys", count=len(self._shared.keys))
            self._keys_error = ""
        except UserError as error:
            if str(error) != self._keys_error:  # told once, not every second
                self._shared.log.write("keys", error=str(error))
            self._keys_error = str(error)


def _asks_later(connection: Any) -> bool:
    return connection.cycle is None


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket at that address, not yet listening: whether it can be had is known before anything is loaded.

    ``shared``: other processes may bind it, too, and each gets a part of the connections.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}: {error.strerror}") from error
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind(address)
    except (OSError, OverflowError) as error:
        bound.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}"
        ) from error
    return bound


NO_SYN = ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
"""A classic packet filter: byte 13 of the TCP header, of it SYN and ACK; a bare SYN is dropped, all else passes."""
SO_ATTACH_FILTER = 26


def deaf(bound: socket.socket) -> None:
    """Begin no more connections at a listening socket of Linux; elsewhere nothing.

    Whoever stands in the system's queue of connections as a socket is closed is cut off, and cannot know whether the
    request was heard. Behind the filter the queue runs empty first. Who comes meanwhile tries again after a second, by
    the rules of TCP, and finds another server at that address, or none.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in NO_SYN))
    with suppress(OSError):  # a system that only looks like Linux
        filters = struct.pack("HP", len(NO_SYN), ctypes.addressof(program))
        bound.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filters)


def serve(app: FastAPI, bound: socket.socket, on_listening: Callable[[], None] = lambda: None) -> None:
    """Answer until a signal comes; returns when every request in flight has its answer.

    To be called in the main thread. From here on nobody else hears of signals: the command line's listener would pass
    SIGTERM on as SIGINT, and that would count as a second one, which does not wait for the drain.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    signal.set_wakeup_fd(-1)
    server: Any = Server(app, on_listening=on_listening)
    server.run(sockets=[bound])
