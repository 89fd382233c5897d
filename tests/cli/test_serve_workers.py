"""The whole of it: two processes of ``macrorec serve`` on one port, over a store that is killed under them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from benchmarks import shop
from tests.serve.stores import RedisServer, redis_server

from macrorec.serve import auth
from macrorec.serve.redis_log import RedisLog

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live") / "bundles"
    for seed, name in enumerate(("first", "second")):
        shop.write(folder / name, 300, 200, 4_000, dim=16, seed=seed)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


@contextmanager
def serving(bundles: Path, data: Path, store: RedisServer, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "macrorec", "serve", str(bundles / "first"), "--port", "0", "--json", "--quiet"]
    command += ["--data", str(data), "--api-keys", str(data / "keys.json"), "--deadline-ms", "5000", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MACROREC_STORE": store.url}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)["url"]
    finally:
        process.kill()
        process.communicate(timeout=30)


def asked(url: str, key: str, method: str, path: str, **more: object) -> httpx.Response:
    """Over a connection of its own, so that any of the processes may answer."""
    with httpx.Client(base_url=url, headers={"x-api-key": key}, timeout=30, trust_env=False, verify=False) as client:
        return client.request(method, path, **more)


def soon(what: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_two_workers_over_a_store(bundles: Path, tmp_path: Path, store: RedisServer) -> None:
    data = tmp_path / "data"
    key = auth.make(data / "keys.json", "ops", "admin")
    with serving(bundles, data, store, "--workers", "2") as (process, url):

        def ask(method: str, path: str, **more: object) -> httpx.Response:
            return asked(url, key, method, path, **more)

        def everywhere(position: int) -> bool:
            """Whether whoever answers knows the log up to a position."""
            return all(ask("GET", "/api/health").json()["log"]["position"] >= position for _ in range(12))

        health = ask("GET", "/api/health").json()
        assert health["log"]["durability"] == "fsync" and health["log"]["loss_window_seconds"] == 0
        items = [one["item_id"] for one in ask("GET", "/api/recommend/new-user").json()["items"]]
        sent = []
        for n, item in enumerate(items[:5]):
            event = {"user_id": "new-user", "item_id": item, "behavior": "buy"}
            answer = ask("POST", "/api/feedback", json=[event], headers={"idempotency-key": f"k{n}"})
            assert answer.status_code == 200, answer.text
            sent.append(answer.json()["position"])
        soon(lambda: everywhere(sent[-1]))
        for _ in range(12):
            now = [one["item_id"] for one in ask("GET", "/api/recommend/new-user").json()["items"]]
            assert not {*now} & {*items[:5]}  # whoever answers knows

        store.stop()
        answer = ask("POST", "/api/feedback", json=[{"user_id": "u", "item_id": items[0], "behavior": "buy"}])
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert ask("GET", "/api/recommend/new-user").status_code == 200  # reads go on
        store.start()
        again = {"user_id": "new-user", "item_id": items[0], "behavior": "buy"}

        def stored() -> bool:
            answer = ask("POST", "/api/feedback", json=[again], headers={"idempotency-key": "k0"})
            assert answer.status_code in (200, 503)
            return answer.status_code == 200 and answer.json()["duplicates"] == 1

        soon(stored)

        loaded = ask("POST", "/api/admin/reload", json={"bundle": "second"})
        assert loaded.status_code == 200
        soon(lambda: {ask("GET", "/api/model").json()["version"] for _ in range(12)} == {loaded.json()["version"]})

        assert ask("DELETE", "/api/user/new-user").status_code == 200
        soon(lambda: all(ask("GET", "/api/recommend/new-user").json()["path"] == "popular" for _ in range(12)))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    with RedisLog(store.url) as log:
        events = log.read(log.health().compacted, 1 << 30).events
        assert "new-user" not in events["user_id"].to_list() and log.health().report == ()
