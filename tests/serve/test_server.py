"""How a server ends: ready says 503 first, what was asked is answered, lines are written, the exit code is 0."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from benchmarks.load import Result, arrivals, load
from tests.serve.fakes import FakeService, running

from macrorec.errors import ConfigError
from macrorec.serve.server import bind, deaf
from macrorec.serve.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import sys
from macrorec.serve.http import create_app
from macrorec.serve.request_log import RequestLog
from macrorec.serve.server import bind, serve
from macrorec.serve.settings import Settings
from tests.serve.fakes import FakeService
service = FakeService()
service.seconds = float(sys.argv[1])
wait = int(sys.argv[3]) if sys.argv[3:] and sys.argv[3].isdigit() else 60_000
settings = Settings(drain_seconds=float(sys.argv[2]), wait_ms=wait, threads=8)
bound = bind("127.0.0.1", 0)
app = create_app(service, settings, log=RequestLog(sys.stderr))
serve(app, bound, lambda: print(bound.getsockname()[1], flush=True))
print("ended", service.calls, flush=True)
"""


@contextmanager
def process(seconds: float, drain: float, wait_ms: int = 60_000) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of its own, and its URL."""
    command = [sys.executable, "-W", "error", "-c", CODE, str(seconds), str(drain), str(wait_ms)]
    started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        yield started, f"http://127.0.0.1:{int(started.stdout.readline())}"
    finally:
        started.kill()
        started.communicate(timeout=20)


def ask_all_the_time(url: str, stop: threading.Event, found: list[Any]) -> Callable[[], None]:
    """Threads that ask on fresh connections until ``stop``; a refused connection is found, too. Returns their join."""

    def ask() -> None:
        while not stop.is_set():
            began = time.monotonic()
            try:
                found.append((began, httpx.get(f"{url}/api/recommend/ann", timeout=20, trust_env=False).status_code))
            except httpx.ConnectError:
                found.append((began, "refused"))
                return
            except httpx.TransportError as error:
                found.append((began, type(error).__name__))
                return

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()

    def join() -> None:
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()

    return join


def test_sigterm_under_load() -> None:
    with process(0.05, 1.0) as (server, url):
        stop, found = threading.Event(), []
        join = ask_all_the_time(url, stop, found)
        ready = httpx.Client(base_url=url, timeout=20, trust_env=False)
        assert ready.get("/api/health/ready").status_code == 200
        told = time.monotonic()
        while len(found) < 10:
            assert time.monotonic() < told + 20
            time.sleep(0.01)
        told = time.monotonic()
        server.send_signal(signal.SIGTERM)
        while ready.get("/api/health/ready").status_code == 200:
            assert time.monotonic() < told + 5
        said = time.monotonic()
        answer = httpx.get(f"{url}/api/health/ready", trust_env=False)
        assert answer.status_code == 503 and answer.headers["connection"] == "close"
        assert httpx.get(f"{url}/api/health/live", trust_env=False).status_code == 200
        join()
        out, err = server.communicate(timeout=30)
        assert server.returncode == 0, err
        ready.close()
    answered = [began for began, status in found if status == 200]
    left = [(began, status) for began, status in found if status not in (200, "refused")]
    assert left == [], "nobody who could connect is left without an answer"
    assert any(began > said for began in answered), "requests are taken during the drain"
    lines = [json.loads(line) for line in err.splitlines()]
    assert sum(line["route"] == "recommend" and line["status"] == 200 for line in lines) == len(answered)
    assert out == f"ended {len(answered)}\n"


def test_a_slow_request_in_flight_is_answered() -> None:
    with process(1.0, 0.0) as (server, url):
        found: list[int] = []
        asking = threading.Thread(
            target=lambda: found.append(httpx.get(f"{url}/api/recommend/ann", timeout=20, trust_env=False).status_code)
        )
        asking.start()
        time.sleep(0.5)
        server.send_signal(signal.SIGTERM)
        asking.join(20)
        _, err = server.communicate(timeout=20)
        assert (found, server.returncode) == ([200], 0), err


def test_a_second_signal_does_not_wait_for_the_drain() -> None:
    with process(0.0, 60.0) as (server, url):
        httpx.get(f"{url}/api/health/live", trust_env=False)
        server.send_signal(signal.SIGINT)
        began = time.monotonic()
        while httpx.get(f"{url}/api/health/ready", trust_env=False).status_code != 503:
            assert time.monotonic() < began + 10
            time.sleep(0.01)
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=20)
        assert server.returncode == 0 and time.monotonic() - began < 15


LISTENING = """
import uvicorn
from macrorec.cli import sigterm
sigterm.listen()
config = uvicorn.Config
uvicorn.Config = lambda *given, **named: config(*given, **{**named, "loop": sys.argv[3]})
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_one_sigterm_is_one_signal(loop: str) -> None:
    """The command line listens for it, too, and would pass it on: a second signal cuts the drain short."""
    command = [sys.executable, "-W", "error", "-c", "import sys" + LISTENING + CODE, "0", "1.5", loop]
    started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        url = f"http://127.0.0.1:{int(started.stdout.readline())}/api/health/live"
        assert httpx.get(url, trust_env=False).status_code == 200
        began = last = time.monotonic()
        started.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.TransportError):
            while last < began + 20:
                assert httpx.get(url, trust_env=False).status_code == 200
                last = time.monotonic()
        _, err = started.communicate(timeout=20)
        assert last - began > 1.2 and started.returncode == 0, err
    finally:
        started.kill()
        started.communicate(timeout=20)


@pytest.mark.skipif(sys.platform != "linux", reason="needs the packet filter of Linux")
def test_a_deaf_socket_keeps_the_connections_that_it_has() -> None:
    with bind("127.0.0.1", 0) as bound:
        bound.listen()
        address = bound.getsockname()
        with socket.create_connection(address) as before:  # in the queue, as nobody has accepted it
            deaf(bound)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.2)
            accepted, _ = bound.accept()
            with accepted:
                before.sendall(b"heard")
                assert accepted.recv(9) == b"heard"
        bound.setblocking(False)
        with pytest.raises(BlockingIOError):
            bound.accept()


def test_an_address_that_cannot_be_had_is_one_line() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        first.listen()
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1 port {port}: Address already in use"):
            bind("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        bind("192.0.2.1", 0)
    with pytest.raises(ConfigError, match=r"cannot listen on no\.such"):
        bind("no.such.host.invalid", 0)


def test_overload_is_shed_at_once_and_passes(fake: FakeService) -> None:
    """20 ms a request, 4 threads: 200 per second. Ten times as many are asked for."""
    fake.seconds = 0.02
    with running(fake, Settings(threads=4, wait_ms=100)) as http:
        http.get("/api/recommend/ann")
        found: list[tuple[int, float]] = []
        end = time.monotonic() + 2.0

        def ask() -> None:
            with httpx.Client(base_url=http.client.base_url, timeout=20, trust_env=False) as client:
                while time.monotonic() < end:
                    began = time.monotonic()
                    answer = client.get("/api/recommend/ann")
                    found.append((answer.status_code, time.monotonic() - began))
                    assert answer.status_code == 200 or int(answer.headers["retry-after"]) >= 1

        threads = [threading.Thread(target=ask) for _ in range(48)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        statuses = {status for status, _ in found}
        assert statuses == {200, 503}
        good = sorted(seconds for status, seconds in found if status == 200)
        assert good[len(good) // 2] < 1.0  # waits are bounded; on an idle machine by some .15 s
        shed = http.shared.reads.shed
        assert sum(shed.values()) == sum(status == 503 for status, _ in found)
        assert [http.get("/api/recommend/ann").status_code for _ in range(20)] == [200] * 20
        assert http.get("/api/health/ready").status_code == 200


def test_five_times_the_capacity_costs_little_of_it_and_passes_in_seconds() -> None:
    """40 ms a request, 8 threads: 200 per second can be answered, and 1,000 come, whatever becomes of the others."""

    def get(number: int) -> bytes:
        return b"GET /api/recommend/u%d HTTP/1.1\r\nhost: localhost\r\n\r\n" % number

    def come(rate: float, seconds: float) -> Result:
        due = arrivals(rate, seconds, poisson=True, seed=1)
        return asyncio.run(load("127.0.0.1", port, get, due, connections=256))

    with process(0.04, 0.0, wait_ms=100) as (_, url):
        port = int(url.rpartition(":")[2])
        peak = come(300, 2.0).goodput
        assert 100 < peak <= 220
        flood = come(1_000, 4.0)
        assert set(flood.statuses) == {200, 503} and flood.goodput > 0.8 * peak
        assert flood.quantile(0.5) < 1_000  # milliseconds: whoever is answered has not waited for long
        last = come(50, 2.0)
        assert last.statuses.get(200, 0) > 0.9 * sum(last.statuses.values())
        assert come(50, 1.0).statuses == {200: 50}
