"""How much more do two or four processes answer than one, when they share their log in a store?

Run as ``python -m benchmarks.serve_workers [--items 100000] [--workers 1,2,4] [--seconds 5] [--writes 0.1]``: a
synthetic bundle, a Redis-compatible server of its own that flushes every event to disk before it is acknowledged, and
``macrorec serve --store --workers N``, each process with one thread for reads. The rate of requests, of which
``writes`` post an event, is raised by a quarter until goodput no longer follows; the value is the best goodput with two
workers, the baseline that with one. Load generator and store need processors of their own: with four in all, four
workers cannot be four times one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import shop
from benchmarks.line import emit
from benchmarks.serve_http import Readers, post, run, server

TARGET = 1.7


@contextmanager
def store(folder: Path) -> Iterator[str]:
    """The address of a server that flushes always."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise SystemExit("no redis-server on this machine: see scripts/services.sh")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir()
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(30)


class Mixed(Readers):
    """Requests of which a part posts an event of the user that would have asked."""

    def __init__(self, n_users: int, writes: float) -> None:
        super().__init__(n_users)
        self.every = round(1 / writes) if writes else 0

    def __call__(self, number: int) -> bytes:
        if not self.every or number % self.every:
            return super().__call__(number)
        user = f"u{self.users[number % len(self.users)]:08d}"
        event = {"user_id": user, "item_id": f"i{number * 7919 % 1000:08d}", "behavior": "buy"}
        return post("/api/feedback", [event])


def peak(port: int, request: Readers, rate: float, seconds: float) -> dict[str, Any]:
    """The load at which most was answered."""
    best: dict[str, Any] = {"goodput_per_second": 0.0}
    for step in range(16):
        result = run(port, request, rate, seconds, seed=step)
        if result.goodput > best["goodput_per_second"]:
            best = result.told()
        if result.goodput < 0.9 * result.offered:
            break
        rate *= 1.25
    return best


def main() -> None:
    """Measure and print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second to begin with, per worker")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each rate")
    parser.add_argument("--writes", type=float, default=0.1, help="part of the requests that post an event")
    given = parser.parse_args()
    request = Mixed(given.users, given.writes)
    found: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as place:
        bundle = shop.write(Path(place) / "shop.bundle", given.items, given.users, given.events)
        for n in map(int, given.workers.split(",")):
            with store(Path(place) / f"store-{n}") as url:
                flags = ("--store", url, "--workers", str(n), "--threads", "1")
                with server(bundle, Path(place) / f"data-{n}", *flags) as (port, _):
                    run(port, request, given.rate * n / 2, 3.0)  # what is compiled and paged in at first
                    found[n] = peak(port, request, given.rate * n, given.seconds)
                    print(json.dumps({"workers": n, **found[n]}), file=sys.stderr)
    one = found[min(found)]["goodput_per_second"]
    two = found[2 if 2 in found else max(found)]["goodput_per_second"]
    emit(
        name="serve_workers",
        value=round(two, 1),
        unit="requests answered per second, two workers over a shared store",
        baseline={"name": "one worker over the same store", "value": round(one, 1)},
        ratio=round(two / one, 2),
        target_ratio=TARGET,
        peaks={str(n): peak for n, peak in found.items()},
        ratios={str(n): round(peak["goodput_per_second"] / one, 2) for n, peak in found.items()},
        durability="fsync",
        writes=given.writes,
        items=given.items,
        users=given.users,
        events=given.events,
        threads_per_worker=1,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
