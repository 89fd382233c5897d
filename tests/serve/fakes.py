"""A service without a model: answers at once, or as slowly and wrongly as a test wants it."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from macrorec.data.log import Behavior
from macrorec.errors import UserError
from macrorec.serve.answer import Answer, Ranked, UnknownItem
from macrorec.serve.auth import Keys
from macrorec.serve.events import Event, Schema
from macrorec.serve.exchange import Operation
from macrorec.serve.http import create_app
from macrorec.serve.log import Appended
from macrorec.serve.request_log import RequestLog
from macrorec.serve.server import Server, bind
from macrorec.serve.settings import Settings

BEHAVIORS = (Behavior(name="view", role="auxiliary", mask=False), Behavior(name="buy"))
ITEMS = [f"i{number}" for number in range(50)]


class FakeService:
    """As ``Service``: items i0 to i49, the newest event's item first."""

    def __init__(self) -> None:
        self.version = "aaaaaaaaaaaa"
        self.former: str | None = None
        self.ready = True
        self.seconds = 0.0
        """How long each read takes, asleep."""
        self.work = 0.0
        """How long each read takes, at work on the processor."""
        self.fail: BaseException | None = None
        """Raised by everything, if set."""
        self.calls = 0
        self.deadlines: list[float | None] = []
        self.keys: set[bytes] = set()
        self.events: list[Event] = []
        self.announced: list[str] = []
        self.titles: dict[str, str] = {}
        self._lock = threading.Lock()

    def _begin(self) -> str:
        with self._lock:
            self.calls += 1
        version = self.version
        if self.seconds:
            time.sleep(self.seconds)
        end = time.thread_time() + self.work
        while time.thread_time() < end:
            sum(range(100))
        if self.fail is not None:
            raise self.fail
        return version

    def _answer(self, user_id: str, items: Sequence[str], version: str, first: int = 1) -> Answer:
        last = version[0]  # every answer says in each of its items which version it is of
        ranked = tuple(
            Ranked(item, ord(last) - n / 64, first + n, title=self.titles.get(item)) for n, item in enumerate(items)
        )
        return Answer(user_id, ranked, "model", version, len(self.events), timings={"retrieve": 0.001})

    def recommend(
        self,
        user_id: str,
        n: int = 10,
        offset: int = 0,
        *,
        categories: Sequence[str] | None = None,
        only: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        seen: bool = False,
        deadline: float | None = None,
        reasons: bool = False,
    ) -> Answer:
        self.deadlines.append(deadline)
        version = self._begin()
        latest = [event.item_id for event in reversed(self.events) if event.user_id == user_id]
        items = [item for item in dict.fromkeys([*latest, *ITEMS]) if item not in (exclude or ())]
        items = [item for item in items if only is None or item in only]
        return self._answer(user_id, items[offset : offset + n], version, offset + 1)

    def rank(self, user_id: str, item_ids: Sequence[str], *, deadline: float | None = None) -> Answer:
        version = self._begin()
        return self._answer(user_id, [item for item in dict.fromkeys(item_ids) if item in ITEMS], version)

    def _known(self, item_id: str) -> None:
        if item_id not in ITEMS and item_id not in self.announced:
            raise UnknownItem(f"there is no item {item_id!r}")

    def explain(self, user_id: str, item_id: str) -> dict[str, Any]:
        self._begin()
        self._known(item_id)
        return {"user_id": user_id, "item_id": item_id, "reasons": []}

    def similar(self, item_id: str, n: int = 10) -> Answer:
        version = self._begin()
        self._known(item_id)
        return self._answer("", [item for item in ITEMS if item != item_id][:n], version)

    def item_map(self, n: int = 2_000) -> dict[str, Any]:
        self._begin()
        return {"items": [{"item_id": item, "x": 0.0, "y": 1.0, "cluster": 0} for item in ITEMS[:n]]}

    def model(self) -> dict[str, Any]:
        self._begin()
        return {"version": self.version, "retriever": "fake"}

    def health(self) -> dict[str, Any]:
        return {
            "ready": self.ready,
            "log": {"durability": "none", "loss_window_seconds": None, "position": len(self.events)},
            "snapshot": {"position": 0, "age_seconds": 1.5},
            "model": {"version": self.version, "age_seconds": 2.5},
            "state": {"users": 3, "items": len(ITEMS)},
            "index": {"kind": "ivf", "recall": 0.99, "checks": 7},
        }

    def check(self, raw: Sequence[Any], key: bytes | None = None) -> list[Event]:
        return Schema(behaviors=BEHAVIORS).check_all(raw, key)

    def feedback(self, events: Sequence[Any]) -> Appended:
        self._begin()
        added = 0
        with self._lock:
            for event in events:
                if event.key is None or event.key not in self.keys:
                    self.events.append(event)
                    added += 1
                    if event.key is not None:
                        self.keys.add(event.key)
        return Appended(len(self.events), added, len(events) - added)

    def announce(self, items: Sequence[Any]) -> Appended:
        self._begin()
        checked = [Schema().check_item(item, index) for index, item in enumerate(items)]
        self.announced += [item.item_id for item in checked]
        return Appended(len(self.events), len(items), 0)

    def forget(self, user_id: str) -> int:
        self._begin()
        before = len(self.events)
        self.events = [event for event in self.events if event.user_id != user_id]
        return before - len(self.events)

    def reload(self, folder: Any = None) -> str:
        self._begin()
        self.former, self.version = self.version, "b" * 12 if self.version[0] == "a" else "a" * 12
        return self.version

    def rollback(self) -> str:
        self._begin()
        if self.former is None:
            raise UserError("there is no model before this one")
        self.version, self.former = self.former, None
        return self.version

    def snapshot(self) -> int:
        self._begin()
        return len(self.events)

    def close(self) -> None:
        pass


class Running:
    """A server in a thread, and ways to ask it."""

    def __init__(self, port: int, client: httpx.Client, server: Server) -> None:
        self.port, self.client, self.server = port, client, server
        self.shared = server._shared

    def get(self, path: str, **settings: Any) -> httpx.Response:
        return self.client.get(path, **settings)

    def post(self, path: str, **settings: Any) -> httpx.Response:
        return self.client.post(path, **settings)

    def raw(self, request: bytes) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON of the answer to bytes as they are; status -1 where none comes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            received = b""
            while True:
                head, end, body = received.partition(b"\r\n\r\n")
                if end:
                    lines = head.decode().split("\r\n")
                    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
                    if len(body) >= int(headers["content-length"]):
                        return int(lines[0].split()[1]), headers, json.loads(body)
                piece = connection.recv(1 << 16)
                if not piece:
                    return -1, {}, None
                received += piece


@contextmanager
def running(
    service: Any,
    settings: Settings | None = None,
    keys: Keys | None = None,
    log: RequestLog | None = None,
    headers: dict[str, str] | None = None,
    pages: Sequence[Operation] = (),
) -> Iterator[Running]:
    """A server for ``service`` on a free port, ended as a signal would end it."""
    bound = bind("127.0.0.1", 0)
    port = bound.getsockname()[1]
    listening = threading.Event()
    server = Server(create_app(service, settings, keys=keys, log=log, pages=pages), on_listening=listening.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="server")
    thread.start()
    try:
        assert listening.wait(20)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, headers=headers, trust_env=False) as client:
            yield Running(port, client, server)
    finally:
        server.handle_exit(signal.SIGTERM, None)
        thread.join(30)
        assert not thread.is_alive()
