"""What does a client read when something is wrong? Problem JSON (RFC 9457), the same shape for every error.

``type`` is ``urn:macrorec:problem:<kind>``, with ``KINDS`` as the list of kinds; ``detail`` is one line for a person;
``request_id`` finds the line in the server's log. Faults of ours say nothing of their cause outside that log.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

MEDIA_TYPE = b"application/problem+json"
KINDS: dict[str, tuple[int, str]] = {
    "bad-request": (400, "The request cannot be read"),
    "no-key": (401, "An API key is needed"),
    "forbidden": (403, "This key may not do that"),
    "admin-off": (403, "Admin routes are off"),
    "not-found": (404, "There is no such route"),
    "unknown-item": (404, "There is no such item"),
    "unknown-user": (404, "There is no such user"),
    "no-method": (405, "The route does not take this method"),
    "slow-headers": (408, "The headers did not arrive in time"),
    "slow-body": (408, "The body did not arrive in time"),
    "conflict": (409, "A request with this Idempotency-Key is under way"),
    "too-large": (413, "The body is too large"),
    "not-json": (415, "The body must be JSON"),
    "wrong-host": (421, "The server does not answer to this host name"),
    "invalid": (422, "The content is not allowed"),
    "reused-key": (422, "The Idempotency-Key belongs to another body"),
    "rate": (429, "Too many requests with this key"),
    "header-too-large": (431, "The headers are too large"),
    "fault": (500, "A fault of the server"),
    "busy": (503, "The server has too much to do"),
    "timeout": (503, "The request took too long"),
    "log-unavailable": (503, "Events cannot be stored at the moment"),
    "not-ready": (503, "The server is not ready"),
    "log-full": (507, "The disk of the event log is full"),
}
"""Kind -> (status, title)."""

RETRY = {"busy": 1.0, "timeout": 1.0, "log-unavailable": 5.0, "log-full": 60.0, "not-ready": 1.0, "conflict": 1.0}
"""Kinds that may pass by themselves -> seconds after which to try again, where nothing better is known."""

Headers = tuple[tuple[bytes, bytes], ...]


class Problem(Exception):
    """Ends a request with a problem of ``kind``; ``more`` are further members of the JSON object."""

    def __init__(
        self, kind: str, detail: str, *, retry_after: float | None = None, headers: Headers = (), **more: Any
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.headers, self.more = kind, detail, headers, more
        self.status, self.title = KINDS[kind]
        self.retry_after = RETRY.get(kind) if retry_after is None else retry_after

    def body(self, request_id: str) -> bytes:
        """The JSON object."""
        return msgspec.json.encode(
            {
                "type": f"urn:macrorec:problem:{self.kind}",
                "title": self.title,
                "status": self.status,
                "detail": self.detail,
                "request_id": request_id,
                **self.more,
            }
        )

    def all_headers(self) -> Iterable[tuple[bytes, bytes]]:
        """Its own headers, and ``Retry-After`` in whole seconds where trying again makes sense."""
        yield from self.headers
        if self.retry_after is not None:
            yield b"retry-after", str(max(1, math.ceil(self.retry_after))).encode()
