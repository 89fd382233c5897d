"""Alive, ready, in detail, and in numbers."""

import re
import threading
import time

from tests.serve.fakes import FakeService, Running, running

from macrorec.serve.log import LogFull
from macrorec.serve.settings import Settings


def numbers(http: Running) -> dict[str, float]:
    """Metric with labels -> value."""
    answer = http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_live_and_ready(http: Running, fake: FakeService) -> None:
    assert http.get("/api/health/live").json() == {"status": "live"}
    assert http.get("/api/health/ready").json() == {"status": "ready"}
    fake.ready = False
    answer = http.get("/api/health/ready")
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert http.get("/api/health").json()["status"] == "starting"
    assert http.get("/api/health/live").status_code == 200


def test_health_tells_durability_and_the_loss_window(http: Running) -> None:
    told = http.get("/api/health").json()
    assert told["status"] == "ready"
    assert told["log"] == {"durability": "none", "loss_window_seconds": None, "position": 0}
    assert told["lanes"]["reads"] == {"threads": 2, "busy": 0, "waiting": 0, "shed": 0}


def test_requests_answers_and_events_are_counted(fake: FakeService) -> None:
    with running(fake) as http:
        before = numbers(http)
        for _ in range(3):
            http.get("/api/recommend/ann")
        http.get("/api/recommend/%00")
        http.get("/nothing")
        event = {"user_id": "ann", "item_id": "i1"}
        http.post("/api/feedback", json=[event, event], headers={"idempotency-key": "one"})
        http.post("/api/feedback", json=[event, event], headers={"idempotency-key": "one"})
        http.post("/api/feedback", json=[event, {}])
        fake.fail = LogFull("full")
        http.post("/api/feedback", json=[event])
        fake.fail = None
        found = numbers(http)
    wanted = {
        'requests_total{route="recommend",status="200"}': 3,
        'requests_total{route="recommend",status="422"}': 1,
        'requests_total{route="none",status="404"}': 1,
        'requests_total{route="feedback",status="507"}': 1,
        'request_seconds_count{route="recommend"}': 4,
        'request_seconds_bucket{le="+Inf",route="feedback"}': 4,
        'answers_total{path="model"}': 3,
        'stage_seconds_count{stage="retrieve"}': 3,
        'events_total{outcome="added"}': 2,
        'events_total{outcome="duplicate"}': 2,
        'events_total{outcome="refused"}': 2,
        "log_position": 2,
        "snapshot_age_seconds": 1.5,
        "model_age_seconds": 2.5,
        "state_items": 50,
        "index_recall": 0.99,
        "index_checks": 7,
        "index_exact": 0,
        'model_info{version="aaaaaaaaaaaa"}': 1,
        "ready": 1,
        'threads{lane="reads"}': 2,
        'shed_total{lane="reads",reason="queue"}': 0,
        "limited_total": 0,
        "in_flight": 1,
    }
    assert {name: found.get(f"macrorec_{name}") for name in wanted} == wanted
    assert before["macrorec_log_position"] == 0
    assert "macrorec_loop_lag_seconds" in found and "process_resident_memory_bytes" in found


def test_nothing_that_a_client_chooses_is_a_label(http: Running) -> None:
    for path in ("/a", "/b", "/api/recommend/user-77", "/api/explain/user-77/item-88", "/api/zzz"):
        http.get(path)
    http.client.request("BREW", "/a")
    text = http.get("/metrics").text
    assert not re.search(r"user-77|item-88|zzz|BREW|route=\"/", text)


def test_health_is_answered_while_reads_are_full(fake: FakeService) -> None:
    fake.seconds = 1.0
    with running(fake, Settings(threads=1, queue=1, wait_ms=10_000)) as http:
        held = [threading.Thread(target=lambda: http.get("/api/recommend/ann")) for _ in range(6)]
        for thread in held:
            thread.start()
        began = time.monotonic()
        while http.shared.reads.busy < 1:
            assert time.monotonic() < began + 10
            time.sleep(0.005)
        fake.seconds = 0.0
        began = time.monotonic()
        assert http.get("/api/health/ready").status_code == 200
        assert numbers(http)['macrorec_busy_threads{lane="reads"}'] == 1
        assert time.monotonic() - began < 0.9
        for thread in held:
            thread.join(20)
