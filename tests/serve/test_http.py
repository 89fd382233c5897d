"""What every request meets: an id, a host, a key, a rate, a bound on what is under way, and errors of one shape."""

import io
import itertools
import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.serve.fakes import FakeService, Running, running

from macrorec.serve import auth
from macrorec.serve.exchange import Exchange, Operation, Reply, Shared
from macrorec.serve.http import OPERATIONS
from macrorec.serve.request_log import RequestLog
from macrorec.serve.settings import LOOPBACK_NAMES, Settings

EXAMPLES = {"{user}": "ann", "{item}": "i1"}
BODIES: dict[str, Any] = {
    "rank": {"user_id": "ann", "item_ids": ["i1"]},
    "feedback": [{"user_id": "ann", "item_id": "i1"}],
    "item": {"item_id": "new"},
    "reload": {},
}
CALLS = [
    (operation.method, re.sub(r"\{\w+\}", lambda found: EXAMPLES[found[0]], operation.path), operation)
    for operation in OPERATIONS
]
BY_NAME = pytest.mark.parametrize(("method", "path", "operation"), CALLS, ids=[one.name for _, _, one in CALLS])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def call(http: Running, method: str, path: str, name: str, **headers: str) -> tuple[int, Any]:
    answer = http.client.request(method, path, json=BODIES.get(name), headers=headers)
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])
    return answer.status_code, answer


# --- the framework's own errors ---


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api", 404),
        ("GET", "/docs", 404),
        ("DELETE", "/api/recommend/ann", 405),
        ("HEAD", "/api/recommend/ann", 405),
        ("TRACE", "/api/feedback", 405),
        ("BREW", "/api/feedback", 400),
        ("PUT", "/metrics", 405),
        ("POST", "/openapi.json", 405),
    ],
)
def test_errors_of_the_framework_are_problems_too(http: Running, method: str, path: str, status: int) -> None:
    answer = http.client.request(method, path)
    assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"
    assert ("allow" in answer.headers) is (status == 405)
    if method != "HEAD":
        assert answer.json()["status"] == status
        assert answer.json()["request_id"] == answer.headers.get("x-request-id", "")


@pytest.mark.parametrize("request_", [b"\x16\x03\x01\x02", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 100])
def test_what_is_no_http(http: Running, request_: bytes) -> None:
    status, headers, answer = http.raw(request_ + b"\r\n\r\n")
    assert (status, headers["connection"]) == (400, "close") and answer["type"].endswith(":bad-request")


def test_headers_without_end(http: Running) -> None:
    many = b"".join(b"x-%d: %s\r\n" % (n, b"a" * 1_000) for n in range(200))
    for request in (many, b"x: " + b"a" * 200_000):  # never an empty line
        assert http.raw(b"GET /api/health/live HTTP/1.1\r\n" + request)[0] == 431
    assert http.raw(b"GET /api/health/live HTTP/1.1\r\n" + many + b"\r\n")[0] == 431


def test_requests_one_after_the_other_on_one_connection(http: Running) -> None:
    for _ in range(50):
        assert http.get("/api/health/live", headers={"x-filler": "a" * 2_000}).status_code == 200


# --- request ids ---


@pytest.mark.parametrize("given", ["12345678", "a.b-c_d:e", "A" * 128, "0f8fad5b-d9cb-469f-a165-70867728950e"])
def test_a_well_formed_request_id_is_kept(http: Running, given: str) -> None:
    for path in ("/api/health/live", "/nothing", "/api/recommend/%00"):
        answer = http.get(path, headers={"x-request-id": given})
        assert answer.headers["x-request-id"] == given
        if answer.status_code != 200:
            assert answer.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "short", "A" * 129, "a b c d e f", "<script>1", "ünïcödé1", '"quoted"'])
def test_another_one_is_replaced(http: Running, given: str) -> None:
    found = [http.get("/api/health/live", headers={"x-request-id": given.encode()}) for _ in range(2)]
    first, second = (answer.headers["x-request-id"] for answer in found)
    assert first != second and re.fullmatch(r"[0-9a-f]{16}", first)


def test_every_answer_forbids_guessing_its_type(http: Running) -> None:
    for path in ("/api/recommend/ann", "/nothing", "/openapi.json", "/metrics"):
        assert http.get(path).headers["x-content-type-options"] == "nosniff"


# --- keys ---


@BY_NAME
def test_without_keys_all_but_admin_routes_are_open(http: Running, method: str, path: str, operation: Any) -> None:
    status, answer = call(http, method, path, operation.name)
    assert status == (403 if operation.access == "admin" else 200)
    if status == 403:
        assert answer.json()["type"].endswith(":admin-off")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with a client's and an admin's key, and both keys."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    keys = {"client": auth.make(file, "shop", "client"), "admin": auth.make(file, "ops", "admin")}
    with running(FakeService(), keys=auth.Keys(file)) as server:
        yield server, keys


WRONG = ["", "x", "shop", "shop.", "shop.wrong", ".", "nobody.wrong", "ü", "a" * 5_000, "' OR 1=1 --"]


@BY_NAME
def test_wrong_keys_open_nothing(guarded: Any, method: str, path: str, operation: Any) -> None:
    http, keys = guarded
    wanted = 200 if operation.access == "open" else 401
    wrong: list[dict[str, Any]] = [{}, *({"x-api-key": text.encode()} for text in WRONG)]
    wrong += [{"x-api-key": keys["client"][:-1]}, {"x-api-key": keys["admin"] + "x"}]
    wrong += [{"authorization": "Basic " + keys["admin"]}, {"authorization": "Bearer wrong"}]
    calls = http.shared.service.calls
    for headers in wrong:
        answer = http.client.request(method, path, json=BODIES.get(operation.name), headers=headers)
        assert answer.status_code == wanted, headers
        if wanted == 401:
            assert answer.headers["www-authenticate"] == "Bearer" and answer.json()["status"] == 401
    if wanted == 401:
        assert http.shared.service.calls == calls  # nothing reached the service


@BY_NAME
def test_right_keys_open_what_they_should(guarded: Any, method: str, path: str, operation: Any) -> None:
    http, keys = guarded
    for role, key in keys.items():
        wanted = 403 if operation.access == "admin" and role == "client" else 200
        for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}):
            http.shared.service.former = "c" * 12  # so that there is something to go back to
            assert call(http, method, path, operation.name, **headers)[0] == wanted


def test_admin_routes_are_off_without_an_admins_key(file: Path) -> None:
    key = auth.make(file, "shop", "client")
    with running(FakeService(), keys=auth.Keys(file), headers={"x-api-key": key}) as http:
        assert http.post("/api/admin/reload", json={}).status_code == 403
        assert http.get("/api/model").status_code == 200
        auth.remove(file, "shop")
        http.server._refresh_keys()
        assert http.get("/api/model").status_code == 401  # no key left: nobody, not everybody
        file.write_text("damaged")
        http.server._refresh_keys()
        assert http.get("/api/model").status_code == 401


def test_two_clients_may_use_the_same_idempotency_key(file: Path) -> None:
    keys = [auth.make(file, name, "client") for name in ("one", "two")]
    fake = FakeService()
    with running(fake, keys=auth.Keys(file)) as http:
        for key in keys * 2:
            headers = {"x-api-key": key, "idempotency-key": "order-1"}
            event = {"user_id": key[:3], "item_id": "i1"}
            assert http.post("/api/feedback", json=[event], headers=headers).status_code == 200
    assert sorted(event.user_id for event in fake.events) == ["one", "two"]


# --- hosts ---


def test_only_names_of_this_machine_where_nobody_needs_a_key() -> None:
    with running(FakeService(), Settings(hosts=LOOPBACK_NAMES)) as http:
        for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "[::1]", "127.0.0.1"):
            assert http.get("/api/model", headers={"host": host}).status_code == 200, host
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "[::2]:1", "10.0.0.1"):
            for path in ("/api/model", "/api/health/live"):
                assert http.get(path, headers={"host": host}).status_code == 421, host
        assert http.raw(b"GET /api/model HTTP/1.0\r\n\r\n")[0] == 421


# --- rates and bounds ---


def test_a_key_has_its_rate_and_others_theirs(file: Path) -> None:
    slow, quick = auth.make(file, "slow", "client", 0.5), auth.make(file, "quick", "client")
    with running(FakeService(), Settings(rate=1_000.0), keys=auth.Keys(file)) as http:
        found = [http.get("/api/model", headers={"x-api-key": slow}) for _ in range(4)]
        assert [answer.status_code for answer in found] == [200, 429, 429, 429]
        assert found[1].headers["retry-after"] in ("1", "2") and found[1].json()["type"].endswith(":rate")
        assert http.get("/api/model", headers={"x-api-key": quick}).status_code == 200
        assert http.get("/api/model", headers={"x-api-key": slow[:-1]}).status_code == 401
        assert http.get("/api/health/live").status_code == 200  # probes have no rate


def test_more_requests_than_may_be_under_way(fake: FakeService) -> None:
    fake.seconds = 0.6
    with running(fake, Settings(in_flight=3, threads=8)) as http:
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda: found.append(http.get("/api/recommend/ann").status_code)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(found) == [200] * 3 + [503] * 5
        assert http.shared.in_flight == 0


# --- pages ---


def test_pages_stand_beside_the_routes(fake: FakeService) -> None:
    async def page(shared: Shared, exchange: Exchange) -> Reply:
        return Reply(b"<p>", media_type=b"text/html")

    with running(fake, Settings(hosts=LOOPBACK_NAMES), pages=(Operation("GET", "/", "page", "open", page),)) as http:
        answer = http.get("/")
        assert (answer.text, answer.headers["content-type"]) == ("<p>", "text/html")
        assert http.get("/", headers={"host": "evil.example"}).status_code == 421
        assert http.post("/").status_code == 405 and http.get("/x").status_code == 404
        assert "/" not in http.get("/openapi.json").json()["paths"]


# --- the log ---


def test_the_log_has_a_line_per_request_and_nothing_secret(file: Path) -> None:
    key, stream, fake = auth.make(file, "shop", "client"), io.StringIO(), FakeService()
    with running(fake, keys=auth.Keys(file), log=RequestLog(stream), headers={"x-api-key": key}) as http:
        sent = {"x-request-id": "request-1"}
        http.get("/api/recommend/user-77?exclude=item-88", headers=sent)
        http.post(
            "/api/feedback", json=[{"user_id": "user-77", "item_id": "item-88"}], headers={"idempotency-key": "k-99"}
        )
        http.get("/api/explain/user-77/item-88")
        http.get("/user-77")
        http.get("/api/model", headers={"x-api-key": "shop.wrong-66"})
        fake.fail = KeyError("user-77")
        http.get("/api/recommend/user-77")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["status"] for line in requests] == [200, 200, 404, 404, 401, 500]
    assert [line["route"] for line in requests] == ["recommend", "feedback", "explain", "none", "model", "recommend"]
    first = requests[0]
    assert (first["request_id"], first["key"], first["path"], first["version"]) == (
        "request-1",
        "shop",
        "model",
        "a" * 12,
    )
    assert 0 < first["ms"] < 20_000 and requests[1]["events"] == 1
    (fault,) = (line for line in lines if line["event"] == "fault")
    assert fault["error"] == "KeyError" and fault["request_id"] == requests[-1]["request_id"]
    for secret in ("user-77", "item-88", "k-99", "wrong-66", key, key.partition(".")[2]):
        assert secret not in stream.getvalue()


# --- swapping models ---


def test_a_swap_under_load_fails_nobody_and_mixes_nothing(file: Path) -> None:
    admin = auth.make(file, "ops", "admin")
    fake = FakeService()
    fake.seconds = 0.002
    with running(fake, Settings(wait_ms=5_000), keys=auth.Keys(file), headers={"x-api-key": admin}) as http:
        stop, answers = threading.Event(), []

        def ask() -> None:
            while not stop.is_set():
                answers.append(http.get("/api/recommend/ann?n=3"))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        versions = [
            http.post(path, json=body).json()["version"]
            for path, body in itertools.islice(
                itertools.cycle([("/api/admin/reload", {}), ("/api/admin/rollback", None)]), 20
            )
        ]
        stop.set()
        for thread in threads:
            thread.join(20)
    assert versions == ["b" * 12, "a" * 12] * 10
    assert len(answers) > 20 and {answer.status_code for answer in answers} == {200}
    for answer in answers:
        body = answer.json()
        first = ord(body["version"][0])
        assert [one["score"] for one in body["items"]] == [first, first - 1 / 64, first - 2 / 64]
