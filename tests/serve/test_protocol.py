"""Reads that would wait too long are turned away at the door; nobody else is."""

import json
import re
import socket
import time
from typing import Any

import pytest
from tests.serve.fakes import FakeService, Running, running

from macrorec.serve.settings import Settings

ASK = b"GET /api/recommend/ann HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture
def full(http: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """The server, as if its event loop were a second late."""
    monkeypatch.setattr(type(http.shared.lag), "seconds", property(lambda _: 1.0, lambda *_: None), raising=False)
    return http


def test_the_answer_at_the_door_is_a_problem_like_others(full: Running) -> None:
    before = dict(full.shared.reads.shed)
    status, headers, answer = full.raw(ASK)
    assert status == answer["status"] == 503 and answer["detail"] == "the server cannot keep up"
    assert headers["content-type"] == "application/problem+json" and headers["retry-after"] == "1"
    assert re.fullmatch(r"[0-9a-f]{16}", headers["x-request-id"]) and answer["request_id"] == headers["x-request-id"]
    assert full.raw(ASK)[1]["x-request-id"] != headers["x-request-id"]
    assert full.shared.reads.shed["loop"] == before["loop"] + 2
    text = full.get("/metrics").text
    assert 'macrorec_requests_total{route="recommend",status="503"} 2.0' in text
    assert full.shared.in_flight == 0


def test_a_connection_goes_on_after_it(full: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_connection(("127.0.0.1", full.port), timeout=10) as connection:

        def ask(request: bytes) -> tuple[int, Any]:
            connection.sendall(request)
            received = b""
            while True:
                received += connection.recv(1 << 16)
                head, _, body = received.partition(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                if length and len(body) >= int(length[1]):
                    assert len(body) == int(length[1])
                    return int(head.split()[1]), json.loads(body)

        for _ in range(3):
            assert ask(ASK)[0] == 503
            assert ask(ASK.replace(b"\r\n\r\n", b"\r\ncontent-length: 4\r\n\r\nbody"))[0] == 503
            assert ask(ASK.replace(b"recommend/ann", b"health/live"))[0] == 200
        monkeypatch.undo()
        assert ask(ASK)[0] == 200


def test_a_connection_that_is_to_end_ends(full: Running) -> None:
    with socket.create_connection(("127.0.0.1", full.port), timeout=10) as connection:
        connection.sendall(ASK.replace(b"host: x", b"host: x\r\nconnection: close"))
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece
    assert received.startswith(b"HTTP/1.1 503 ") and received.count(b"HTTP/1.1") == 1


def test_requests_in_one_packet_are_answered_in_order(full: Running) -> None:
    with socket.create_connection(("127.0.0.1", full.port), timeout=10) as connection:
        live = ASK.replace(b"recommend/ann", b"health/live")
        connection.sendall(ASK + live + ASK + live.replace(b"host: x", b"host: x\r\nconnection: close"))
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", received)] == [503, 200, 503, 200]


@pytest.mark.parametrize("path", ["/api/health/live", "/api/health/ready", "/api/health", "/metrics", "/api/model"])
def test_others_pass(full: Running, path: str) -> None:
    assert full.get(path).status_code == 200


def test_headers_that_do_not_come_are_not_waited_for() -> None:
    with running(FakeService(), Settings(header_seconds=0.3)) as http:
        assert http.raw(b"") == (-1, {}, None)
        assert http.raw(b"GET /api/health/live HTTP/1.1\r\nhost:")[0] == 408
        with socket.create_connection(("127.0.0.1", http.port), timeout=10) as connection:
            live = ASK.replace(b"recommend/ann", b"health/live")
            for _ in range(3):  # between requests a connection may rest for longer
                connection.sendall(live)
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
                time.sleep(0.4)
            connection.sendall(live[:20])
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408")


def test_writes_have_a_longer_wait_of_their_own(full: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    event = {"user_id": "ann", "item_id": "i1"}
    assert full.post("/api/feedback", json=[event]).status_code == 200
    monkeypatch.setattr(full.shared.writes, "wait", 0.5)
    answer = full.post("/api/feedback", json=[event])
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
