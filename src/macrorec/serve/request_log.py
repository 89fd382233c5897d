"""What does the server note about a request? One JSON line, without keys, bodies, or ids of users and items.

Lines are written by a thread of its own: a pipe whose reader is slow must not hold up the event loop. Where it falls
behind, lines are dropped and counted, and the count is the next line.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from typing import IO, Any

import msgspec

_ENCODER = msgspec.json.Encoder(enc_hook=str)


class RequestLog:
    """Lines of JSON to a stream; ``write`` never blocks."""

    def __init__(self, stream: IO[str] | None, capacity: int = 10_000, interval: float = 0.1) -> None:
        """``stream`` None: nothing is written. ``capacity``: lines that may wait; ``interval``: seconds."""
        self.dropped = 0
        """Lines so far that came when ``capacity`` others were waiting."""
        self._stream, self._capacity, self._interval = stream, capacity, interval
        self._lines: deque[dict[str, Any]] = deque()
        self._told = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="serve-log", daemon=True)
        if stream is not None:
            self._thread.start()

    def write(self, event: str, **members: Any) -> None:
        """Note ``event``; members that are None are left out."""
        if self._stream is None:
            return
        if len(self._lines) >= self._capacity:
            self.dropped += 1
            return
        self._lines.append({"time": time.time(), "event": event, **members})

    def fault(self, error: BaseException, request_id: str) -> None:
        """Note a fault of ours, with its traceback; where it happened, and not with which values."""
        frames = traceback.extract_tb(error.__traceback__)
        where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        self.write("fault", request_id=request_id, error=type(error).__name__, where=where[-12:])

    def flush(self) -> None:
        """Write what waits."""
        lines = []
        while self._lines:
            lines.append(_line(self._lines.popleft()))
        if self.dropped > self._told:
            lines.append(_line({"time": time.time(), "event": "dropped", "lines": self.dropped - self._told}))
            self._told = self.dropped
        if lines and self._stream is not None:
            try:
                self._stream.write("".join(lines))
                self._stream.flush()
            except (OSError, ValueError):  # its reader has gone; the server stays
                self.dropped += len(lines)
                self._told = self.dropped

    def close(self) -> None:
        """Write what waits, and stop."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self.flush()

    def _run(self) -> None:
        while not self._closing.wait(self._interval):
            self.flush()


def _line(members: dict[str, Any]) -> str:
    kept = {name: value for name, value in members.items() if value is not None}
    return _ENCODER.encode(kept).decode() + "\n"
