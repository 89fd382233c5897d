"""The whole service, short of HTTP's own tests: killed, on a full or read-only disk, over damaged files."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.serve import market
from tests.serve.fakes import Running, running

from macrorec.errors import DataError, ResourceError
from macrorec.serve import snapshots
from macrorec.serve.log import LogDamaged
from macrorec.serve.service import Service, view_of
from macrorec.serve.settings import Settings
from macrorec.serve.sqlite_log import SqliteLog

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return market.write(tmp_path_factory.mktemp("market"))


def served(bundle: Path, data: Path) -> tuple[Service, SqliteLog]:
    log = SqliteLog(data / "log.sqlite")
    try:
        return Service(bundle, log, data / "snapshots"), log
    except BaseException:
        log.close()
        raise


def close(service: Service, log: SqliteLog) -> None:
    service.close()
    log.close()


# --- killed ---

SOME = 100
"""Bytes of acknowledged names, each shorter than ten, before a kill may come: a loaded machine is slow to say them."""


@pytest.mark.parametrize("rounds", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_killed_under_load_it_knows_each_acknowledged_event_once(bundle: Path, tmp_path: Path, rounds: int) -> None:
    """Killed at random moments while events are stored and snapshots written; whatever a start is made of."""
    data, told = tmp_path / "data", tmp_path / "acknowledged"
    data.mkdir()
    told.touch()
    random = np.random.default_rng(rounds)
    command = [sys.executable, "-m", "tests.serve.killed_service", str(bundle), str(data), str(told)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        try:
            for turn in range(rounds):
                enough, limit = told.stat().st_size + SOME, time.monotonic() + 60
                print("go", file=server.stdin, flush=True)
                pid = int(server.stdout.readline())
                while told.stat().st_size < enough and time.monotonic() < limit and turn % 5 < 4:
                    time.sleep(0.005)  # in every fifth round it may be killed while it starts
                time.sleep(float(random.uniform(0, 0.3)))
                os.kill(pid, signal.SIGKILL)
                assert server.stdout.readline() == "ended\n"
                if turn % 8 == 1 or turn == rounds - 1:
                    check(bundle, data, told)
        finally:
            server.stdin.close()


def check(bundle: Path, data: Path, told: Path) -> None:
    acknowledged = told.read_text().split()
    assert len(acknowledged) == len(set(acknowledged)) >= 20
    service, log = served(bundle, data)
    views = [view_of(service, user) for user in acknowledged]
    assert all(view is not None and view.events == 1 and len(view.items) == 1 for view in views)
    health = service.health()
    assert health["snapshot"]["skipped"] == [] and health["log"]["report"] == ()
    assert health["state"]["events"] == log.last() == health["state"]["users"] - market.N_USERS
    close(service, log)


# --- torn and changed ---


@pytest.fixture
def kept(bundle: Path, tmp_path: Path) -> Path:
    """A folder of a service that has stopped: two snapshots, and events behind them."""
    service, log = served(bundle, tmp_path / "kept")
    for n in range(3):
        service.feedback([market.bought(f"x{n}", f"i{n}")])
        if n < 2:
            service.snapshot()
    close(service, log)
    return tmp_path / "kept"


def flip(path: Path, place: float) -> None:
    body = bytearray(path.read_bytes())
    body[int(place * (len(body) - 1))] ^= 16
    path.write_bytes(body)


def test_a_damaged_snapshot_is_told_and_the_start_is_made_of_the_one_before(bundle: Path, kept: Path) -> None:
    flip(kept / "snapshots" / "snapshot-2" / "tensors.safetensors", 0.9)
    service, log = served(bundle, kept)
    (line,) = service.health()["snapshot"]["skipped"]
    assert "snapshot-2" in line
    for n in range(3):
        view = view_of(service, f"x{n}")
        assert view is not None and view.items.tolist() == [n]
    close(service, log)


def test_a_start_without_any_sound_snapshot_is_refused(bundle: Path, kept: Path) -> None:
    """The log has dropped what they cover: to go on without would lose events without a word."""
    for position in (1, 2):
        flip(kept / "snapshots" / f"snapshot-{position}" / "tensors.safetensors", 0.5)
    with pytest.raises(DataError, match="snapshot-1"):
        served(bundle, kept)
    shutil.rmtree(kept / "snapshots")
    with pytest.raises(DataError, match="a snapshot that covers them is needed"):
        served(bundle, kept)


def test_a_damaged_log_is_refused_with_what_to_do(bundle: Path, kept: Path) -> None:
    place = next(n for n, byte in enumerate((kept / "log.sqlite").read_bytes()) if n > 4096 and byte)
    flip(kept / "log.sqlite", place / ((kept / "log.sqlite").stat().st_size - 1))
    with pytest.raises(LogDamaged, match="macrorec log repair"):
        served(bundle, kept)


# --- full, and read-only ---


@pytest.fixture
def http(bundle: Path, tmp_path: Path) -> Iterator[tuple[Running, SqliteLog]]:
    service, log = served(bundle, tmp_path / "data")
    with running(service, Settings(wait_ms=60_000)) as server:
        yield server, log
    close(service, log)


def post(http: Running, first: int, n: int) -> int:
    """Events of n users of their own; the status."""
    body = [{"user_id": f"v{first + k}", "item_id": "i3", "behavior": "buy"} for k in range(n)]
    answer = http.client.post("/api/feedback", json=body)
    assert answer.status_code == 200 or int(answer.headers["retry-after"]) >= 1
    return answer.status_code


def test_on_a_full_disk_writes_say_507_reads_go_on_and_all_is_well_when_there_is_space(
    http: tuple[Running, SqliteLog],
) -> None:
    server, log = http
    log._call(lambda: log._writer._db.execute("PRAGMA max_page_count=40"))
    sent = 0
    while (status := post(server, sent, 200)) == 200:
        sent += 200
        assert sent < 100_000
    assert status == 507
    for _ in range(3):
        assert post(server, sent, 200) == 507
        answer = server.get(f"/api/recommend/v{sent - 1}").json()
        assert answer["path"] == "fold_in" and "i3" not in [one["item_id"] for one in answer["items"]]
        assert server.get(f"/api/recommend/v{sent}").json()["path"] == "popular"  # not stored, so not counted
        told = server.get("/api/health").json()
        assert told["state"]["events"] == sent and "full" in told["log"]["last_error"]
    log._call(lambda: log._writer._db.execute("PRAGMA max_page_count=100000"))
    assert post(server, sent, 200) == 200
    told = server.get("/api/health").json()
    assert told["state"]["events"] == sent + 200 == log.last() and told["log"]["last_error"] is None


def test_on_a_read_only_disk_writes_say_503_and_reads_go_on(http: tuple[Running, SqliteLog]) -> None:
    server, log = http
    assert post(server, 0, 3) == 200
    log._call(lambda: log._writer._db.execute("PRAGMA query_only=ON"))
    assert post(server, 3, 3) == 503
    assert server.get("/api/recommend/v0").json()["path"] == "fold_in"
    assert server.get("/api/recommend/v3").json()["path"] == "popular"
    assert post(server, 3, 3) == 200  # the file is opened anew by itself
    assert server.get("/api/health").json()["state"]["events"] == 6 == log.last()


def test_a_snapshot_that_cannot_be_written_costs_nothing(
    http: tuple[Running, SqliteLog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, log = http
    service = server.shared.service
    post(server, 0, 3)
    assert service.snapshot() == 3

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("macrorec.weights.save_file", full)
        post(server, 3, 3)
        with pytest.raises(ResourceError, match="the disk is full"):
            service.snapshot()
    assert snapshots.positions(tmp_path / "data" / "snapshots") == (3,) and log.health().compacted <= 3
    assert post(server, 6, 3) == 200 and service.snapshot() == 9
