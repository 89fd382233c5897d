"""The whole of it: ``macrorec serve`` on a bundle, asked over HTTP, killed, started again, given another bundle."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from benchmarks import shop

from macrorec.errors import DataError
from macrorec.serve import auth
from macrorec.serve.events import Event
from macrorec.serve.sqlite_log import SqliteLog

ROOT = Path(__file__).resolve().parents[2]
USER = "u00000003"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles of 300 items and 200 users, and a file of keys."""
    folder = tmp_path_factory.mktemp("live")
    for seed, name in enumerate(("first", "second")):
        shop.write(folder / "bundles" / name, 300, 200, 4_000, dim=16, seed=seed)
    return folder


@contextmanager
def serving(
    folder: Path, data: Path, key: str, *more: str
) -> Iterator[tuple[subprocess.Popen[str], httpx.Client, str]]:
    """The process, a client with a key, and the version that it starts with."""
    command = [sys.executable, "-m", "macrorec", "serve", str(folder / "bundles" / "first"), "--port", "0", "--json"]
    command += ["--data", str(data), "--api-keys", str(data / "keys.json"), "--deadline-ms", "5000", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::RuntimeWarning"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        told = json.loads(line)
        with httpx.Client(base_url=told["url"], headers={"x-api-key": key}, timeout=30, trust_env=False) as client:
            yield process, client, told["version"]
    finally:
        process.kill()
        process.communicate(timeout=30)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def key(data: Path) -> str:
    return auth.make(data / "keys.json", "ops", "admin")


def items(client: httpx.Client, user: str, n: int = 10) -> list[str]:
    answer = client.get(f"/api/recommend/{user}?n={n}")
    assert answer.status_code == 200, answer.text
    return [one["item_id"] for one in answer.json()["items"]]


def test_events_count_at_once_and_survive_a_kill(folder: Path, data: Path, key: str) -> None:
    with serving(folder, data, key) as (process, client, version):
        assert client.get("/api/health/ready").status_code == 200
        answer = client.get(f"/api/recommend/{USER}").json()
        assert answer["path"] == "model" and answer["version"] == version and len(answer["items"]) == 10
        assert client.get("/api/recommend/nobody").json()["path"] == "popular"
        first = answer["items"][0]["item_id"]
        stored = client.post("/api/feedback", json=[{"user_id": USER, "item_id": first, "behavior": "buy"}]).json()
        assert stored["added"] == 1
        after = items(client, USER, 50)
        assert first not in after
        client.post("/api/feedback", json=[{"user_id": "newcomer", "item_id": first, "behavior": "buy"}])
        assert client.get("/api/recommend/newcomer").json()["path"] in ("fold_in", "macro_fallback")
        assert client.get(f"/api/explain/{USER}/{after[0]}").status_code == 200
        assert client.get(f"/api/explain/{USER}/absent").status_code == 404
        ranked = client.post("/api/rank", json={"user_id": USER, "item_ids": after[:5]}).json()
        assert sorted(one["item_id"] for one in ranked["items"]) == sorted(after[:5])
        assert len(client.get(f"/api/item-to-item/{first}?n=5").json()["items"]) == 5
        assert client.post("/api/item", json={"item_id": "brand-new"}).status_code == 200
        told = client.get("/api/health").json()
        assert told["log"]["durability"] == "fsync" and told["log"]["position"] >= 3
        assert client.get("/metrics").status_code == 200
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    with serving(folder, data, key) as (process, client, _):
        assert items(client, USER, 50) == after
        assert client.delete(f"/api/user/{USER}").json()["events"] >= 1
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    with serving(folder, data, key) as (_, client, _):
        assert client.get(f"/api/recommend/{USER}").json()["path"] == "popular"


def test_sigterm_under_load(folder: Path, data: Path, key: str) -> None:
    """Ready says 503 first, what is under way is finished, and what was acknowledged is on the disk."""
    acknowledged: list[str] = []
    broken: list[str] = []
    stop = threading.Event()
    with serving(folder, data, key, "--drain", "1") as (process, client, _):

        def send(thread: int) -> None:
            n = 0
            with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=30, trust_env=False) as own:
                while not stop.is_set():
                    user = f"t{thread}-{n}"
                    try:
                        answer = own.post("/api/feedback", json=[{"user_id": user, "item_id": "i00000001"}])
                        assert answer.status_code == 200, answer.text
                        acknowledged.append(user)
                        assert own.get(f"/api/recommend/{user}").status_code == 200
                    except httpx.ConnectError:  # nobody listens any more
                        return
                    except httpx.TransportError as error:
                        broken.append(f"{user}: {error!r}")
                        return
                    n += 1

        threads = [threading.Thread(target=send, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        while len(acknowledged) < 50:
            assert all(thread.is_alive() for thread in threads), broken
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        while client.get("/api/health/ready").status_code == 200:
            assert time.monotonic() < told + 5
        during = len(acknowledged)
        _, err = process.communicate(timeout=60)
        stop.set()
        for thread in threads:
            thread.join(30)
        assert process.returncode == 0 and "Traceback" not in err, err
    assert len(acknowledged) > during and broken == []
    with SqliteLog(data / "log.sqlite") as log:
        assert log.health().report == ()
        users = log.read(0, 1 << 30).events["user_id"].to_list()
    assert len(users) == len(set(users)) and set(acknowledged) <= set(users)


def test_a_damaged_log_is_one_line_with_what_to_do(folder: Path, data: Path) -> None:
    with SqliteLog(data / "log.sqlite") as log:
        log.append([Event(f"u{n}", "i1", "buy", n) for n in range(2_000)])
    body = bytearray((data / "log.sqlite").read_bytes())
    body[len(body) // 2] ^= 1
    (data / "log.sqlite").write_bytes(body)
    command = [sys.executable, "-m", "macrorec", "serve", str(folder / "bundles" / "first"), "--port", "0"]
    ended = subprocess.run([*command, "--data", str(data)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == DataError.exit_code and ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: the log") and "is damaged" in line and "macrorec log repair" in line


@pytest.mark.slow
def test_a_swap_under_load(folder: Path, data: Path, key: str) -> None:
    with serving(folder, data, key) as (_, client, version):
        wanted = {version: set(items(client, USER))}
        other = client.post("/api/admin/reload", json={"bundle": "second"}).json()["version"]
        wanted[other] = set(items(client, USER))
        assert other != version and wanted[other] != wanted[version]
        stop, answers = threading.Event(), []

        def ask() -> None:
            while not stop.is_set():
                answers.append(client.get(f"/api/recommend/{USER}"))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        found = [client.post("/api/admin/rollback").json()["version"]]
        asked = ({"bundle": name} for name in ("second", "first", "second"))
        found += [client.post("/api/admin/reload", json=body).json()["version"] for body in asked]
        stop.set()
        for thread in threads:
            thread.join(30)
        assert found == [version, other, version, other]
        assert {answer.status_code for answer in answers} == {200} and len(answers) > 5
        for answer in answers:
            assert {one["item_id"] for one in answer.json()["items"]} == wanted[answer.json()["version"]]
        (folder / "bundles" / "broken").mkdir(exist_ok=True)
        assert client.post("/api/admin/reload", json={"bundle": "broken"}).status_code == 422
        assert client.get("/api/model").json()["version"] == other
