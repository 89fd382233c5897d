"""How are events sent to a server that runs? In groups over HTTP, again where that helps, and never counted twice."""

from __future__ import annotations

import http.client
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import msgspec

from macrorec.errors import ConfigError, UserError
from macrorec.serve.events import Event, EventError
from macrorec.serve.log import Appended, LogFull, LogUnavailable

_FIELDS = ("user_id", "item_id", "behavior", "timestamp", "weight", "label", "source", "offset")


class HttpSink:
    """The feedback route of a server; groups arrive in order."""

    group = 1_000

    def __init__(self, url: str, key: str | None = None, *, patience: float = 60.0, timeout: float = 30.0) -> None:
        """``url``: of the server, such as http://localhost:8000; ``key``: what X-API-Key says; ``patience``: seconds
        for which a server that is busy, full or away is tried again. Raises ConfigError for what is no such URL."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.username:
            raise ConfigError(f"--url is {url!r}; it is like http://localhost:8000")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, port, timeout=timeout)
        self._path = parts.path.rstrip("/") + "/api/feedback"
        self._headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
        self._patience = patience
        self._where = f"{parts.scheme}://{parts.netloc}"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="post")

    def send(self, events: Sequence[Event]) -> Future[Appended]:
        return self._thread.submit(self._post, list(events))

    def close(self) -> None:
        """Wait for what is under way, drop what is not begun, and close the connection."""
        self._thread.shutdown(cancel_futures=True)
        self._connection.close()

    def _post(self, events: Sequence[Event]) -> Appended:
        body = msgspec.json.encode([_told(event) for event in events])
        known = all(event.source is not None for event in events)
        headers = self._headers if known else {**self._headers, "Idempotency-Key": str(uuid.uuid4())}
        until = time.monotonic() + self._patience
        while True:
            try:
                status, answer, wait = self._ask(body, headers)
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                status, answer, wait = 0, {"detail": f"{error or type(error).__name__}"}, 1.0
            if status == 200:
                return Appended(answer["position"], answer["added"], answer["duplicates"])
            detail = str(answer.get("detail", f"it answered {status}"))
            if status == 422 and isinstance(index := answer.get("index"), int) and 0 <= index < len(events):
                raise EventError(detail, index, answer.get("field"))
            if status in (401, 403):
                raise ConfigError(f"{self._where} refuses: {detail}; give a key with --api-key FILE")
            if status not in (0, 408, 409, 429, 503, 507):
                raise UserError(f"{self._where} refuses: {detail} ({status})")
            if time.monotonic() + wait > until:
                kind = LogFull if status == 507 else LogUnavailable
                raise kind(f"{self._where} takes no events: {detail}")
            time.sleep(wait)

    def _ask(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, Any], float]:
        """Status, the JSON object, and seconds after which to try again."""
        self._connection.request("POST", self._path, body, dict(headers))
        response = self._connection.getresponse()
        data = response.read(1 << 20)
        if not response.isclosed():
            self._connection.close()
        try:
            answer = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            answer = {}
        after = response.headers.get("Retry-After", "1")
        wait = min(float(after), 60.0) if after.isdigit() else 1.0
        return response.status, answer if isinstance(answer, dict) else {}, wait


def _told(event: Event) -> dict[str, Any]:
    values = ((name, getattr(event, name)) for name in _FIELDS)
    return {name: value for name, value in values if value is not None}
