import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.serve.fakes import FakeService, Running

from macrorec.errors import ConfigError, UserError
from macrorec.serve.events import Event, EventError
from macrorec.serve.log import Appended, LogFull, LogUnavailable
from macrorec.serve.post import HttpSink

EVENTS = [Event("u", "i", "view", 5, 2.0, None, b"k", "s", 0), Event("v", "j", "buy", source="s", offset=1)]
OK = (200, {"position": 9, "added": 2, "duplicates": 0}, {})


class Server:
    """Answers as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any, dict[str, str]]] = []
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        server = self

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
                status, answer, headers = server.answers.pop(0) if server.answers else OK
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join(10)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited; without waiting."""
    told: list[float] = []
    monkeypatch.setattr("macrorec.serve.post.time.sleep", told.append)
    return told


def post(url: str, events: list[Event] = EVENTS, **settings: Any) -> Appended:
    sink = HttpSink(url, **settings)
    try:
        return sink.send(events).result(30)
    finally:
        sink.close()


def test_what_is_sent(server: Server) -> None:
    assert post(server.url + "/prefix/", key="shop.secret") == Appended(9, 2, 0)
    ((path, headers, body),) = server.asked
    assert path == "/prefix/api/feedback" and headers["x-api-key"] == "shop.secret"
    assert "idempotency-key" not in headers  # each event has a source and an offset
    assert body == [
        {"user_id": "u", "item_id": "i", "behavior": "view", "timestamp": 5, "weight": 2.0, "source": "s", "offset": 0},
        {"user_id": "v", "item_id": "j", "behavior": "buy", "weight": 1.0, "source": "s", "offset": 1},
    ]


def test_it_is_tried_again_as_the_same_request(server: Server, waits: list[float]) -> None:
    server.answers = [(503, {}, {"Retry-After": "7"}), (429, b"busy", {}), (507, {}, {"Retry-After": "60"}), OK]
    assert post(server.url, [Event("u", "i", "view")], patience=100) == Appended(9, 2, 0)
    assert waits == [7.0, 1.0, 60.0]
    assert len({headers["idempotency-key"] for _, headers, _ in server.asked}) == 1 and len(server.asked) == 4


def test_patience_ends(server: Server) -> None:
    server.answers = [(507, {"detail": "the disk is full"}, {})] * 2
    with pytest.raises(LogFull, match="takes no events: the disk is full"):
        post(server.url, patience=0)
    server.answers = [(503, {"detail": "not now"}, {})]
    with pytest.raises(LogUnavailable, match="not now"):
        post(server.url, patience=0)
    with pytest.raises(LogUnavailable, match="Connection refused"):
        post("http://127.0.0.1:1", patience=0)


def test_an_event_that_is_refused_is_named(server: Server) -> None:
    server.answers = [(422, {"detail": "weight is negative", "index": 1, "field": "weight"}, {})]
    with pytest.raises(EventError) as caught:
        post(server.url)
    assert (caught.value.index, caught.value.reason, caught.value.field) == (1, "weight is negative", "weight")


@pytest.mark.parametrize(
    ("status", "answer", "error", "says"),
    [
        (401, {"detail": "no key"}, ConfigError, "refuses: no key; give a key with --api-key FILE"),
        (403, {}, ConfigError, "it answered 403"),
        (422, {"detail": "too odd", "index": 5}, UserError, "too odd \\(422\\)"),
        (404, b"<html>", UserError, "it answered 404"),
        (500, {"detail": "a mistake"}, UserError, "a mistake \\(500\\)"),
    ],
)
def test_what_is_not_tried_again(server: Server, status: int, answer: Any, error: type[Exception], says: str) -> None:
    server.answers = [(status, answer, {})]
    with pytest.raises(error, match=says):
        post(server.url)
    assert len(server.asked) == 1


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://x:y", "http://u:p@x", "http://x/?q"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match="it is like http://localhost:8000"):
        HttpSink(url)


def test_a_real_server(http: Running, fake: FakeService) -> None:
    url = f"http://127.0.0.1:{http.port}"
    assert post(url).added == 2
    assert [event.item_id for event in fake.events] == ["i", "j"]
