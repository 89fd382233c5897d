"""Does a server that runs for long stay as large as what it knows? Fresh users come at a fixed rate for half an hour.

Run as ``python -m benchmarks.serve_memory [--minutes 30] [--rate 30]``: ``macrorec serve`` in one process with one
thread, its log under fsync and its snapshots; every user is new, comes on a connection of its own, and is never seen
again. Three parts, of a tenth, four tenths and half of the time:

1. Warm-up: as the two others by turns.
2. Users who only read: two lists, one order of given items, and an item's like. Nobody is known after it, so memory
   must not grow at all: ``READER`` bytes per user at most, which is what a straight line through noise may have.
3. Users who write: three events with an Idempotency-Key in one request, a list before and a list after. They are known
   afterwards, in memory and on disk: ``WRITER`` bytes at most.

What grows is the line through the resident memory of the server, every few seconds, over a part; ``value`` is that of
part 3 per user, and the bound its baseline. ``series``: minute, part, and MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks import shop
from benchmarks.line import emit
from benchmarks.load import Client
from benchmarks.serve_http import HOST, get, post, server

READER = 100
"""Bytes per user who only reads, at most."""
WRITER = 2_500
"""Bytes per user with three events, at most: user and events take some 800, tables that double as they fill up twice as
much, and the rest are caches on their way to their bounds (folded-in vectors, keys)."""
EVENTS = 3
PARTS = (("warm-up", 0.1), ("readers", 0.4), ("writers", 0.5))
N_ITEMS, N_USERS, N_EVENTS = 20_000, 10_000, 200_000


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Users:
    """Whoever comes, by number; counts answers by status, 0 for none."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.statuses: Counter[int] = Counter()

    async def come(self, number: int, *, writes: bool) -> None:
        """One user's visit."""
        client = Client(HOST, self.port)
        random = np.random.default_rng(number)
        items = [f"i{item:08d}" for item in random.choice(N_ITEMS, EVENTS, replace=False)]
        user = f"visitor-{number:09d}"
        ask = get(f"/api/recommend/{user}?n=10")
        if writes:
            events = [{"user_id": user, "item_id": item, "behavior": "buy"} for item in items]
            told = post("/api/feedback", events).replace(
                b"\r\n\r\n", b"\r\nidempotency-key: " + user.encode() + b"\r\n\r\n", 1
            )
            requests = [ask, told, ask]
        else:
            order = post("/api/rank", {"user_id": user, "item_ids": items})
            requests = [ask, order, get(f"/api/item-to-item/{items[0]}?n=10"), ask]
        try:
            for request in requests:
                status, _ = await client.ask(request)
                self.statuses[status] += 1
        except (OSError, TimeoutError):
            self.statuses[0] += 1
        client.close()


async def drive(port: int, pid: int, minutes: float, rate: float) -> dict[str, Any]:
    """What the line says."""
    users, number, samples = Users(port), 0, list[tuple[float, str, int, int]]()
    began = time.perf_counter()
    every = max(1, round(rate * min(5.0, 0.6 * minutes)))  # users between two samples: five seconds of them at most
    coming: set[asyncio.Task[None]] = set()
    for part, share in PARTS:
        for n in range(round(rate * 60 * minutes * share)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writes = part == "writers" or (part == "warm-up" and n % 2 == 1)
            task = asyncio.ensure_future(users.come(number, writes=writes))
            coming.add(task)
            task.add_done_callback(coming.discard)
            number += 1
            if number % every == 0:
                samples.append((time.perf_counter() - began, part, number, resident(pid)))
        if coming:
            await asyncio.wait(coming)
    metrics = (await Client(HOST, port).ask(get("/metrics")))[1]
    health = json.loads((await Client(HOST, port).ask(get("/api/health")))[1])
    grown = {part: slope([one for one in samples if one[1] == part]) for part, _ in PARTS}
    thin = samples[:: max(1, len(samples) // 60)]
    return {
        "bytes_per_writer": round(grown["writers"]),
        "bytes_per_reader": round(grown["readers"], 1),
        "first_mib": round(samples[0][3] / 2**20, 1),
        "last_mib": round(samples[-1][3] / 2**20, 1),
        "most_mib": round(max(size for *_, size in samples) / 2**20, 1),
        "users": number,
        "requests": users.statuses.total(),
        "shed": users.statuses[503],
        "failed": users.statuses.total() - users.statuses[200] - users.statuses[503],
        "metric_lines": metrics.count(b"\n"),
        "known_users": health["state"]["users"],
        "events": health["state"]["events"],
        "series": [[round(at / 60, 2), part, round(size / 2**20, 1)] for at, part, _, size in thin],
    }


def slope(samples: list[tuple[float, str, int, int]]) -> float:
    """Bytes per user of the line through some samples."""
    if len(samples) < 2:
        return 0.0
    number, size = np.array([(n, size) for _, _, n, size in samples], dtype=float).T
    return float(np.polyfit(number, size, 1)[0])


def main() -> None:
    """Measure and print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=30.0, help="fresh users per second")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        bundle = shop.write(Path(place) / "shop.bundle", N_ITEMS, N_USERS, N_EVENTS)
        with server(bundle, Path(place) / "data", "--threads", "1") as (port, pid):
            found = uvloop.run(drive(port, pid, given.minutes, given.rate))
    value = found.pop("bytes_per_writer")
    emit(
        name="serve_memory",
        value=value,
        unit=f"bytes of memory per new user with {EVENTS} events",
        baseline={"name": "bound", "value": WRITER},
        ratio=round(WRITER / max(value, 1), 2),
        within=value <= WRITER and found["bytes_per_reader"] <= READER and not found["failed"],
        reader_bound=READER,
        **found,
        items=N_ITEMS,
        minutes=given.minutes,
        users_per_second=given.rate,
        durability="fsync",
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
