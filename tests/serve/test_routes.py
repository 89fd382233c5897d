"""What the reading routes answer, and what they refuse."""

import pytest
from tests.serve.fakes import FakeService, Running, running

from macrorec.serve.answer import NotReady
from macrorec.serve.settings import Settings


def test_recommendations(http: Running) -> None:
    answer = http.get("/api/recommend/ann?n=3&offset=2").json()
    assert answer == {
        "items": [{"item_id": f"i{n}", "score": 97.0 - (n - 2) / 64, "rank": n + 1} for n in (2, 3, 4)],
        "path": "model",
        "version": "a" * 12,
        "position": 0,
        "ranked": 0,
        "degraded": [],
    }
    assert len(http.get("/api/recommend/ann").json()["items"]) == 10


def test_titles_stand_with_the_items_that_have_one(http: Running, fake: FakeService) -> None:
    fake.titles = {"i1": "<b>\u202e"}
    assert [one.get("title") for one in http.get("/api/recommend/ann?n=3").json()["items"]] == [None, "<b>\u202e", None]


def test_filters_reach_the_service(http: Running) -> None:
    found = http.get("/api/recommend/ann?only=i7&only=i3&exclude=i3&category=shoes&seen=true&reasons=0").json()
    assert [one["item_id"] for one in found["items"]] == ["i7"]


def test_ids_of_any_text_reach_the_service_as_they_are(http: Running, fake: FakeService) -> None:
    for text, path in (("a/b", "a%2Fb"), ("ü €", "%C3%BC%20%E2%82%AC"), ("..", ".."), ("a+b", "a+b"), ("a%b", "a%25b")):
        status, _, answer = http.raw(f"GET /api/recommend/{path}?n=1 HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert status == 200, text
        event = {"user_id": text, "item_id": "i30", "behavior": "buy"}
        assert http.post("/api/feedback", json=[event]).status_code == 200
        status, _, answer = http.raw(f"GET /api/recommend/{path}?n=1 HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert answer["items"][0]["item_id"] == "i30", text
        fake.events.clear()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/recommend/", 422),
        ("/api/recommend/a/b", 404),
        ("/api/recommend", 404),
        ("/api/recommend/%00", 422),
        ("/api/recommend/%0A", 422),
        ("/api/recommend/a%0D%0AX-Injected:1", 422),
        ("/api/recommend/%20", 422),
        ("/api/recommend/%ff", 422),
        ("/api/recommend/%ED%A0%80", 422),  # half of a pair, in UTF-8
        ("/api/recommend/" + "a" * 256, 200),
        ("/api/recommend/" + "a" * 257, 422),
        ("/api/recommend/" + "a" * 10_000, 422),
        ("/api/recommend/" + "%41" * 10_000, 422),
        ("/api/recommend/" + "a" * 40_000, 431),
        ("/api/recommend/%", 200),
        ("/api/recommend/%zz", 200),
        ("/api/recommend/..%2F..%2Fetc%2Fpasswd", 200),  # an id like any other
        ("/api/recommend/../admin/reload", 404),
        ("//api/recommend/ann", 404),
        ("/api/explain/ann/i1", 200),
        ("/api/explain/ann", 404),
        ("/api/explain/ann/i1/i2", 404),
        ("/api/explain/ann/", 422),
        ("/api/explain/ann/i99", 404),
        ("/api/item-to-item/i99", 404),
        ("/api/item-to-item/%2F", 404),
        ("/api/recommend/ann?n=1000", 200),
        ("/api/recommend/ann?n=0", 422),
        ("/api/recommend/ann?n=1001", 422),
        ("/api/recommend/ann?n=-1", 422),
        ("/api/recommend/ann?n=1.0", 422),
        ("/api/recommend/ann?n=", 422),
        ("/api/recommend/ann?n=%D9%A3", 422),  # a digit, but an Arabic one
        ("/api/recommend/ann?n=9999999999999999999999", 422),
        ("/api/recommend/ann?n=NaN", 422),
        ("/api/recommend/ann?n=1&n=1", 422),
        ("/api/recommend/ann?offset=990&n=10", 200),
        ("/api/recommend/ann?offset=991&n=10", 422),
        ("/api/recommend/ann?limit=3", 422),
        ("/api/recommend/ann?reasons=maybe", 422),
        ("/api/recommend/ann?only=%FF", 422),
        ("/api/recommend/ann?only=%00", 422),
        ("/api/recommend/ann?only=" + "a" * 257, 422),
        ("/api/recommend/ann?" + "&".join(["only=i1"] * 100), 200),
        ("/api/recommend/ann?" + "&".join(["only=i1"] * 101), 422),
        ("/api/recommend/ann?" + "&".join(["only=i1"] * 1_500), 422),
        ("/api/model?x=1", 422),
        ("/api/map?n=20001", 422),
        ("/api/health/live", 200),
        ("/api/health/live/", 404),
        ("/", 404),
        ("*", 404),
    ],
    ids=lambda value: str(value)[:40],
)
def test_hostile_paths(http: Running, path: str, status: int) -> None:
    found, headers, answer = http.raw(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    assert found == status, answer
    assert headers["content-type"] == ("application/json" if status == 200 else "application/problem+json")
    assert "x-injected" not in headers
    if status >= 400:
        assert answer["status"] == status and answer["type"].startswith("urn:macrorec:problem:")


@pytest.mark.parametrize("path", [b"/api/recommend/\xff", b"/api/recommend/\x00", b"/api/recommend/a b", b"\xc3\xbc"])
def test_bytes_that_are_no_path(http: Running, path: bytes) -> None:
    status, _, answer = http.raw(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert status == answer["status"] == 400


def test_ranking(http: Running) -> None:
    body = {"user_id": "ann", "item_ids": ["i5", "i2", "nobody-knows", "i5"]}
    answer = http.post("/api/rank", json=body).json()
    assert [one["item_id"] for one in answer["items"]] == ["i5", "i2"]
    assert http.post("/api/rank", json={**body, "item_ids": []}).status_code == 422
    assert http.post("/api/rank", json={**body, "item_ids": ["i1"] * 10_001}).status_code == 422
    assert http.post("/api/rank", json={**body, "more": 1}).status_code == 422
    assert http.post("/api/rank", json={"user_id": "ann"}).status_code == 422
    assert http.post("/api/rank", json={**body, "user_id": "\n"}).status_code == 422


def test_alike_items_reasons_the_model_and_the_map(http: Running) -> None:
    assert [one["item_id"] for one in http.get("/api/item-to-item/i0?n=2").json()["items"]] == ["i1", "i2"]
    assert http.get("/api/explain/ann/i1").json() == {"user_id": "ann", "item_id": "i1", "reasons": []}
    assert http.get("/api/model").json()["version"] == "a" * 12
    assert len(http.get("/api/map?n=7").json()["items"]) == 7


def test_the_deadline_counts_from_arrival(http: Running, fake: FakeService) -> None:
    import time

    for headers, ms in (({}, 100), ({"X-Deadline-Ms": "7"}, 7), ({"X-Deadline-Ms": "2500"}, 2500)):
        before = time.monotonic()
        assert http.get("/api/recommend/ann", headers=headers).status_code == 200
        deadline = fake.deadlines[-1]
        assert deadline is not None and before + ms / 1e3 < deadline < time.monotonic() + ms / 1e3
    for wrong in ("0", "-1", "x", "1.5", "10001", "9999999", "", "٣"):
        assert http.get("/api/recommend/ann", headers={"X-Deadline-Ms": wrong.encode()}).status_code == 422


def test_what_takes_too_long_is_given_up(fake: FakeService) -> None:
    fake.seconds = 0.5
    with running(fake, Settings(timeout_ms=100)) as http:
        answer = http.get("/api/recommend/ann")
        assert answer.status_code == 503 and answer.json()["type"].endswith(":timeout")
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("ann's secret"), 500), (NotReady("not yet"), 503)])
def test_faults_of_the_service(http: Running, fake: FakeService, error: Exception, status: int) -> None:
    fake.fail = error
    for path in ("/api/recommend/ann", "/api/explain/ann/i1", "/api/item-to-item/i1", "/api/model", "/api/map"):
        answer = http.get(path)
        assert answer.status_code == status and "secret" not in answer.text
    fake.fail = None
    assert http.get("/api/recommend/ann").status_code == 200
