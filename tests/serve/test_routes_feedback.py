"""What the writing routes store, once, and what they refuse."""

import threading
from typing import Any

import pytest
from tests.serve.fakes import FakeService, Running, running

from macrorec.serve.log import LogFull, LogUnavailable
from macrorec.serve.settings import Settings

EVENT = {"user_id": "ann", "item_id": "i9", "behavior": "buy"}


def test_an_event_is_in_the_next_answer(http: Running) -> None:
    stored = http.post("/api/feedback", json=[EVENT, {**EVENT, "item_id": "i8"}])
    assert stored.status_code == 200 and stored.json() == {"added": 2, "duplicates": 0, "position": 2}
    answer = http.get("/api/recommend/ann?n=2").json()
    assert [one["item_id"] for one in answer["items"]] == ["i8", "i9"] and answer["position"] == 2


def test_gorses_names_are_understood(http: Running, fake: FakeService) -> None:
    event = {"FeedbackType": "buy", "UserId": "ann", "ItemId": "i1", "Timestamp": "2024-05-01T10:00:00Z", "Value": 2}
    assert http.post("/api/feedback", json=[event]).json()["added"] == 1
    assert fake.events[0].timestamp == 1714557600 and fake.events[0].weight == 2.0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[{", 400),
        (b"nonsense", 400),
        (b"[{'user_id': 'ann'}]", 400),
        (b'[{"user_id":"ann","item_id":"i1","weight":NaN}]', 400),
        (b'[{"user_id":"ann","item_id":"i1","weight":Infinity}]', 400),
        (b'[{"user_id":"ann","item_id":"i1","weight":1e999}]', 422),
        (b'[{"user_id":"ann","item_id":"i1","weight":-1}]', 422),
        (b'[{"user_id":"ann","item_id":"i1","weight":true}]', 422),
        (b'[{"user_id":"\\ud800","item_id":"i1"}]', 400),
        (b'[{"user_id":"\xff","item_id":"i1"}]', 400),
        (b'[{"user_id":"\\u0000","item_id":"i1"}]', 422),
        (b'[{"user_id":"","item_id":"i1"}]', 422),
        (b'[{"user_id":" ","item_id":"i1"}]', 422),
        (b'[{"user_id":"' + b"a" * 10_000 + b'","item_id":"i1"}]', 422),
        (b'[{"user_id":["ann"],"item_id":"i1"}]', 422),
        (b'[{"user_id":null,"item_id":"i1"}]', 422),
        (b'[{"user_id":"ann"}]', 422),
        (b'[{"user_id":"ann","item_id":"i1","behavior":"stare"}]', 422),
        (b'[{"user_id":"ann","item_id":"i1","timestamp":99999999999}]', 422),
        (b'[{"user_id":"ann","item_id":"i1","timestamp":1e300}]', 422),
        (b'[{"user_id":"ann","item_id":"i1","timestamp":"yesterday"}]', 422),
        (b'[{"user_id":"ann","item_id":"i1","offset":1}]', 422),
        (b'{"user_id":"ann","item_id":"i1"}', 422),
        (b"[]", 422),
        (b"[1]", 422),
        (b"[null]", 422),
        (b"null", 422),
        (b"[" * 100_000, 422),
        (b'[{"user_id":' + b"[" * 50_000 + b"]" * 50_000 + b"}]", 422),
        (b'[{"a":' * 20_000, 422),
        (b"[" + b",".join([b"{}"] * 10_001) + b"]", 422),
        (b"[" + b" " * (1 << 20) + b"]", 413),
    ],
    ids=lambda value: str(value)[:50],
)
def test_bodies_that_are_refused(http: Running, fake: FakeService, body: bytes, status: int) -> None:
    answer = http.post("/api/feedback", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == answer.json()["status"] == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert fake.events == []


def test_all_events_of_a_request_or_none(http: Running, fake: FakeService) -> None:
    answer = http.post("/api/feedback", json=[EVENT, {**EVENT, "behavior": "stare"}])
    problem = answer.json()
    assert answer.status_code == 422 and (problem["index"], problem["field"]) == (1, "behavior")
    assert "'view', 'buy'" in problem["detail"] and fake.events == []


def test_the_same_idempotency_key_counts_once(http: Running, fake: FakeService) -> None:
    headers = {"Idempotency-Key": "order-7"}
    assert http.post("/api/feedback", json=[EVENT, EVENT], headers=headers).json()["added"] == 2
    again = http.post("/api/feedback", json=[EVENT, EVENT], headers=headers)
    assert (again.status_code, again.json()["added"], again.json()["duplicates"]) == (200, 0, 2)
    other = http.post("/api/feedback", json=[EVENT], headers=headers)
    assert other.status_code == 422 and other.json()["type"].endswith(":reused-key")
    http.post("/api/feedback", json=[EVENT], headers={"Idempotency-Key": "order-8"})
    assert len(fake.events) == 3
    for wrong in ("", "a b", "a" * 256, "ü"):
        answer = http.post("/api/feedback", json=[EVENT], headers={"Idempotency-Key": wrong.encode()})
        assert answer.status_code == 422, wrong
    assert len(fake.events) == 3


def test_the_same_key_at_the_same_time_counts_once(http: Running, fake: FakeService) -> None:
    def post() -> None:
        answers.append(http.post("/api/feedback", json=[EVENT], headers={"Idempotency-Key": "one"}).json())

    answers: list[dict[str, int]] = []
    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sum(answer["added"] for answer in answers) == 1 == len(fake.events) and len(answers) == 8


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_form_of_a_foreign_page_is_refused(http: Running, fake: FakeService, kind: str) -> None:
    answer = http.post("/api/feedback", content=b"[]", headers={"content-type": kind})
    assert answer.status_code == 415 and fake.events == []
    assert http.client.options("/api/feedback").status_code == 405  # no consent to other origins


def test_json_with_a_charset_is_json_and_an_encoding_is_refused(http: Running) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    body = b'[{"user_id":"ann","item_id":"i1"}]'
    assert http.post("/api/feedback", content=body, headers=headers).status_code == 200
    headers["content-encoding"] = "gzip"
    assert http.post("/api/feedback", content=body, headers=headers).status_code == 415


# --- size and time of bodies ---


def head(*headers: str) -> bytes:
    lines = ["POST /api/feedback HTTP/1.1", "host: x", "content-type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def test_a_declared_size_is_refused_before_the_body_comes(http: Running) -> None:
    for size in ("1048577", "99999999999999999999"):
        status, headers, _ = http.raw(head(f"content-length: {size}"))
        assert status in (400, 413) and headers["connection"] == "close"
    assert http.raw(head("content-length: 1048577"))[0] == 413


def test_a_body_in_pieces_is_refused_as_soon_as_it_is_too_large(http: Running) -> None:
    piece = b"40000\r\n" + b" " * 0x40000 + b"\r\n"  # 256 KiB, and no end
    status, headers, answer = http.raw(head("transfer-encoding: chunked") + piece * 5)
    assert (status, answer["status"], headers["connection"]) == (413, 413, "close")


def test_a_body_in_pieces_is_taken(http: Running, fake: FakeService) -> None:
    body = b'[{"user_id":"ann","item_id":"i1"}]'
    pieces = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in body) + b"0\r\n\r\n"
    assert http.raw(head("transfer-encoding: chunked") + pieces)[0] == 200
    assert len(fake.events) == 1


def test_a_body_that_does_not_come_is_not_waited_for(fake: FakeService) -> None:
    with running(fake, Settings(body_seconds=0.2)) as http:
        status, headers, answer = http.raw(head("content-length: 10") + b"[")
        assert (status, answer["type"]) == (408, "urn:macrorec:problem:slow-body")
        assert headers["connection"] == "close"


# --- the log ---


@pytest.mark.parametrize(
    ("error", "status", "after"), [(LogFull("full"), 507, "60"), (LogUnavailable("read-only"), 503, "5")]
)
def test_a_log_that_cannot_be_written(
    http: Running, fake: FakeService, error: Exception, status: int, after: str
) -> None:
    fake.fail = error
    answers: list[Any] = [
        http.post("/api/feedback", json=[EVENT]),
        http.post("/api/item", json={"item_id": "new"}),
        http.client.delete("/api/user/ann"),
    ]
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (status, after)
    fake.fail = None
    assert http.post("/api/feedback", json=[EVENT]).json()["added"] == 1


# --- items and users ---


def test_items_are_announced_one_or_many(http: Running, fake: FakeService) -> None:
    assert http.post("/api/item", json={"item_id": "new", "category": "shoes"}).json()["added"] == 1
    assert http.post("/api/item", json=[{"item_id": "a"}, {"item_id": "b", "title": "B"}]).json()["added"] == 2
    assert fake.announced == ["new", "a", "b"]
    assert http.get("/api/explain/ann/new").status_code == 200
    for wrong in ({}, [], {"item_id": ""}, {"item_id": "\n"}, {"item_id": "x", "categories": []}, [[]], 7):
        assert http.post("/api/item", json=wrong).status_code == 422, wrong
    assert len(fake.announced) == 3


def test_a_user_is_removed_again_and_again(http: Running) -> None:
    http.post("/api/feedback", json=[EVENT] * 3)
    assert http.client.delete("/api/user/ann").json() == {"events": 3}
    assert http.client.delete("/api/user/ann").json() == {"events": 0}
    assert http.get("/api/recommend/ann?n=1").json()["items"][0]["item_id"] == "i0"
    assert http.client.delete("/api/user/").status_code == 422
