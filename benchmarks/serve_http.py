"""How soon does a server answer, how soon does an event change an answer, and what is left at five times the load?

Run as ``python -m benchmarks.serve_http [--items 1000000] [--rate 500] [--seconds 30]``: a synthetic bundle of so many
items with 64 numbers each, MacGNN ranks 200 candidates; ``macrorec serve`` in one process, with its log under fsync;
this process makes the load. Three parts:

1. Recommendations at Poisson (or ``--fixed``) arrivals of ``rate`` per second, counted from when each was due.
2. While half of that goes on: an event is posted and, when it is acknowledged, the user asked for again, until an
   answer leaves the item out. From the post to the end of that answer.
3. The rate is raised until goodput no longer follows: the peak. Then five times the peak; then the first rate again,
   second by second, until one second's p99 is within the target.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks import shop
from benchmarks.line import emit
from benchmarks.load import Client, Result, arrivals, load

TARGET_P50, TARGET_P99, TARGET_EVENT_P99 = 5.0, 20.0, 50.0
"""Milliseconds."""
HOST = "127.0.0.1"


@contextmanager
def server(bundle: Path, data: Path, *flags: str) -> Iterator[tuple[int, int]]:
    """Port and process id of ``macrorec serve``."""
    command = [sys.executable, "-m", "macrorec", "serve", str(bundle), "--port", "0", "--data", str(data), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    process = subprocess.Popen([*command, "--json", *flags], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit("the server did not start")
        print(f"serving after {time.perf_counter() - began:.1f} s", file=sys.stderr)
        yield int(json.loads(line)["url"].rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        process.wait(60)


def get(path: str) -> bytes:
    """A request."""
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\n\r\n".encode()


def post(path: str, value: Any) -> bytes:
    """A request with a body."""
    body = json.dumps(value).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


class Readers:
    """Requests for recommendations to users at random, the first ones more often."""

    def __init__(self, n_users: int, seed: int = 0) -> None:
        self.users = (n_users * np.random.default_rng(seed).random(1 << 16) ** 1.5).astype(np.int64)

    def __call__(self, number: int) -> bytes:
        return get(f"/api/recommend/u{self.users[number % len(self.users)]:08d}?n=10")


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def indexed(port: int, seconds: float = 600.0) -> float:
    """Seconds until the index answers: until then exact search does, which a million items make slow."""
    client, began = Client(HOST, port), time.perf_counter()
    while time.perf_counter() - began < seconds:
        index = json.loads((await client.ask(get("/api/health")))[1]).get("index", {"state": "index"})
        if index["state"] == "index":
            break
        if index["state"] != "building":
            raise SystemExit(f"there is no index: {index}")
        await asyncio.sleep(0.2)
    client.close()
    return time.perf_counter() - began


async def event_to_answer(port: int, n_users: int, samples: int) -> list[float]:
    """Milliseconds from posting an event to an answer without its item."""
    random, client, found = np.random.default_rng(7), Client(HOST, port), []
    for _ in range(samples):
        path = f"/api/recommend/u{random.integers(0, n_users):08d}?n=10"
        status, body = await client.ask(get(path))
        if status != 200:  # turned away: the machine is too busy for this measurement
            continue
        item = json.loads(body)["items"][0]["item_id"]
        user = path[15:24]
        await asyncio.sleep(0.02 * random.random())
        began = time.perf_counter()
        status, body = await client.ask(post("/api/feedback", [{"user_id": user, "item_id": item, "behavior": "buy"}]))
        while status == 200:
            status, body = await client.ask(get(path))
            if status == 200 and item not in [one["item_id"] for one in json.loads(body)["items"]]:
                found.append((time.perf_counter() - began) * 1e3)
                break
    client.close()
    return found


async def beside(port: int, readers: Readers, rate: float, n_users: int, samples: int) -> list[float]:
    """``event_to_answer`` while others ask."""
    due = arrivals(rate, 600, poisson=True, seed=3)
    others = asyncio.ensure_future(load(HOST, port, readers, due))
    found = await event_to_answer(port, n_users, samples)
    others.cancel()
    return found


def run(port: int, readers: Readers, rate: float, seconds: float, *, poisson: bool = True, seed: int = 1) -> Result:
    """One load."""
    due = arrivals(rate, seconds, poisson=poisson, seed=seed)
    result = uvloop.run(load(HOST, port, readers, due, connections=1024 if rate > 2_000 else 256))
    print(json.dumps(result.told()), file=sys.stderr)
    return result


def overload(port: int, readers: Readers, rate: float, seconds: float) -> dict[str, Any]:
    """The peak, five times the peak, and how long until all is as before."""
    peak = at = rate
    best = 0.0
    for _ in range(12):
        result = run(port, readers, at, seconds)
        if result.goodput > best:
            best, peak = result.goodput, at
        if result.goodput < 0.9 * at:
            break
        at *= 1.3
    flood = run(port, readers, 5 * best, max(2 * seconds, 5))
    began = time.perf_counter()
    recovery = float("inf")
    for second in range(30):
        after = run(port, readers, rate, 1.0, seed=second)
        if after.quantile(0.99) <= TARGET_P99 and set(after.statuses) == {200}:
            recovery = time.perf_counter() - began
            break
    return {
        "peak_goodput_per_second": round(best, 1),
        "peak_at_offered": round(peak, 1),
        "overloaded": flood.told(),
        "goodput_over_peak": round(flood.goodput / best, 3),
        "recovered_after_s": round(recovery, 1),
    }


def main() -> None:
    """Measure and print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--samples", type=int, default=500, help="events of part 2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fixed", action="store_true", help="arrivals at equal distances")
    parser.add_argument("--skip-overload", action="store_true")
    given = parser.parse_args()
    readers = Readers(given.users)
    with tempfile.TemporaryDirectory() as place:
        bundle = shop.write(Path(place) / "shop.bundle", given.items, given.users, given.events)
        print("bundle written", file=sys.stderr)
        with server(bundle, Path(place) / "data", "--threads", str(given.threads)) as (port, pid):
            index_seconds = uvloop.run(indexed(port))
            run(port, readers, given.rate / 2, 3.0)  # what is paged in at first
            before = cpu_seconds(pid)
            steady = run(port, readers, given.rate, given.seconds, poisson=not given.fixed)
            cpu_ms = (cpu_seconds(pid) - before) * 1e3 / (given.rate * given.seconds)
            changed = uvloop.run(beside(port, readers, given.rate / 2, given.users, given.samples))
            flood = {} if given.skip_overload else overload(port, readers, given.rate, given.seconds / 5)
    p99 = steady.quantile(0.99)
    emit(
        name="serve_http",
        value=round(p99, 2),
        unit=f"ms, p99 of a recommendation at {given.rate:g} requests per second",
        baseline={"name": "target", "value": TARGET_P99},
        ratio=round(TARGET_P99 / p99, 2),
        p50=round(steady.quantile(0.5), 2),
        p50_target=TARGET_P50,
        steady=steady.told(),
        server_cpu_ms_per_request=round(cpu_ms, 3),
        index_after_s=round(index_seconds, 1),
        event_to_answer={
            "samples": len(changed),
            "p50_ms": round(float(np.quantile(changed, 0.5)), 2),
            "p99_ms": round(float(np.quantile(changed, 0.99)), 2),
            "target_p99_ms": TARGET_EVENT_P99,
            "durability": "fsync",
        },
        overload=flood,
        items=given.items,
        users=given.users,
        events=given.events,
        dim=64,
        candidates=200,
        threads=given.threads,
        arrivals="fixed" if given.fixed else "poisson",
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
