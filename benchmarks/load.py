"""What does a server do under a load that does not wait for it? Requests leave on schedule, come what may of others.

A latency is counted from the moment that a request was due, so that a stall of the server, or of the generator, shows
in every request that it delayed (open loop).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httptools
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a load."""

    offered: float
    """Requests per second that were due."""
    seconds: float
    """From the first request to the last answer."""
    ms: npt.NDArray[np.float64]
    """Latencies of the answers with status 200, from when they were due."""
    statuses: dict[int, int]
    """Answers by status; 0 where a connection broke."""
    late_ms: float
    """99th percentile of how late the generator itself sent what was due, with a connection at hand or not."""
    bodies: list[bytes] = field(default_factory=list)
    """Of the answers that were kept."""

    @property
    def goodput(self) -> float:
        """Answers with status 200 per second."""
        return self.statuses.get(200, 0) / self.seconds

    def quantile(self, q: float) -> float:
        """A quantile of the latencies in milliseconds; infinite where nothing was answered."""
        return float(np.quantile(self.ms, q)) if len(self.ms) else float("inf")

    def told(self) -> dict[str, Any]:
        """Plain values for a line of JSON."""
        return {
            "offered_per_second": round(self.offered, 1),
            "goodput_per_second": round(self.goodput, 1),
            "p50_ms": round(self.quantile(0.5), 2),
            "p99_ms": round(self.quantile(0.99), 2),
            "p999_ms": round(self.quantile(0.999), 2),
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
            "generator_late_p99_ms": round(self.late_ms, 2),
        }


def arrivals(rate: float, seconds: float, *, poisson: bool, seed: int) -> npt.NDArray[np.float64]:
    """Times in seconds at which requests are due."""
    if not poisson:
        return np.arange(round(rate * seconds)) / rate
    gaps = np.random.default_rng(seed).exponential(1 / rate, size=round(rate * seconds))
    times: npt.NDArray[np.float64] = np.cumsum(gaps)
    return times


async def load(
    host: str,
    port: int,
    request: Callable[[int], bytes],
    due: npt.NDArray[np.float64],
    *,
    connections: int = 256,
    patience: float = 10.0,
    keep: Callable[[int], bool] = lambda number: False,
) -> Result:
    """Send ``request(n)``, whole HTTP/1.1 requests, at the times ``due``; over at most so many connections.

    A request for which no connection is free waits for one, and its clock runs. ``patience``: seconds to wait for
    answers after the last request. ``keep``: of which requests the bodies are kept.
    """
    pool = _Pool(host, port, connections, len(due), keep)
    await pool.open(min(32, connections))
    began = time.perf_counter() + 0.05
    late = np.zeros(len(due))
    for number, at in enumerate(due):
        wait = began + at - time.perf_counter()
        if wait > 0.0005:
            await asyncio.sleep(wait)
        elif number % 64 == 0:
            await asyncio.sleep(0)
        late[number] = time.perf_counter() - began - at
        pool.send(request(number), number, began + at)
    end = time.perf_counter() + patience
    while pool.open_requests and time.perf_counter() < end:
        await asyncio.sleep(0.005)
    seconds = pool.last - began
    pool.close()
    statuses = dict(pool.statuses)
    if pool.open_requests:
        statuses[0] = statuses.get(0, 0) + pool.open_requests
    offered = len(due) / due[-1] if len(due) > 1 else 0.0
    return Result(offered, seconds, np.array(pool.ms), statuses, float(np.quantile(late, 0.99)) * 1e3, pool.bodies)


class _Pool:
    """Connections, and what waits for one."""

    def __init__(self, host: str, port: int, most: int, n_requests: int, keep: Callable[[int], bool]) -> None:
        self.host, self.port, self.most, self.keep = host, port, most, keep
        self.free: list[_Connection] = []
        self.all: set[_Connection] = set()
        self.waiting: deque[tuple[bytes, int, float]] = deque()
        self.statuses: Counter[int] = Counter()
        self.ms: list[float] = []
        self.bodies: list[bytes] = []
        self.open_requests = 0
        self.last = time.perf_counter()
        self._opening: set[asyncio.Task[None]] = set()

    async def open(self, n: int) -> None:
        await asyncio.gather(*(self._connect() for _ in range(n)))

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: _Connection(self), self.host, self.port)
        except OSError:
            if self.waiting:
                self.waiting.popleft()
                self.done(0, 0.0, b"", -1)

    def send(self, data: bytes, number: int, due: float) -> None:
        self.open_requests += 1
        if self.free:
            self.free.pop().ask(data, number, due)
            return
        self.waiting.append((data, number, due))
        if len(self.all) + len(self._opening) < self.most:
            task = asyncio.ensure_future(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def at_hand(self, connection: _Connection) -> None:
        if self.waiting:
            connection.ask(*self.waiting.popleft())
        else:
            self.free.append(connection)

    def done(self, status: int, due: float, body: bytes, number: int) -> None:
        self.open_requests -= 1
        self.last = time.perf_counter()
        self.statuses[status] += 1
        if status == 200:
            self.ms.append((self.last - due) * 1e3)
            if self.keep(number):
                self.bodies.append(body)

    def close(self) -> None:
        for connection in self.all:
            connection.transport.abort()


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self, pool: _Pool) -> None:
        self.pool = pool
        self.busy = False
        self.closing = False
        self.body = b""
        self.due, self.number = 0.0, 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)
        self.pool.all.add(self)
        self.pool.at_hand(self)

    def ask(self, data: bytes, number: int, due: float) -> None:
        self.busy, self.due, self.number, self.body = True, due, number, b""
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        self.closing = not self.parser.should_keep_alive()
        self.busy = False
        self.pool.done(status, self.due, self.body, self.number)
        if not self.closing:
            self.pool.at_hand(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.pool.all.discard(self)
        if self in self.pool.free:
            self.pool.free.remove(self)
        if self.busy:
            self.busy = False
            self.pool.done(0, 0.0, b"", self.number)


class Client:
    """One request after the other on one connection."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._connection: _Asked | None = None

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to a whole HTTP/1.1 request."""
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        if self._connection is None or self._connection.transport.is_closing():
            _, self._connection = await asyncio.get_running_loop().create_connection(_Asked, self.host, self.port)
        self._connection.begin(data, future)
        return await asyncio.wait_for(future, 30)

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.transport.abort()


class _Asked(asyncio.Protocol):
    """A connection that answers into a future."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)

    def begin(self, data: bytes, future: asyncio.Future[tuple[int, bytes]]) -> None:
        self.future, self.body = future, b""
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if not self.future.done():
            self.future.set_result((self.parser.get_status_code(), self.body))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.future.done():
            self.future.set_exception(ConnectionError("the server closed the connection"))
