"""How many events per second are on disk before they are acknowledged, and how fast do they come back?

Run as ``python -m benchmarks.events [FOLDER] [--producers 64] [--seconds 5] [--events 10000000]``. The value is single
events with a key each, appended with fsync by so many producers at a time, each of which waits for its acknowledgement;
``latency_ms`` is that wait. ``batches`` are of 100 events, from 4 producers. Baseline: the disk's own fdatasync after
writes of 4 KiB, in the same file over and over, before and after: what one could acknowledge that waits alone.
``reading`` is of so many events back, as columns: opening the log with all its checksums, then reading it by pages of a
million as who replays it does.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.line import emit
from macrorec.serve.events import Event
from macrorec.serve.sqlite_log import SqliteLog

_PAGE = 1_000_000


def fsyncs(folder: Path, seconds: float) -> float:
    """Writes of 4 KiB per second, each flushed."""
    place = folder / "flushed"
    block = os.urandom(4096)
    file = os.open(place, os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(file, bytes(1 << 20), 0)
        os.fsync(file)
        n, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            os.pwrite(file, block, n % 256 * 4096)
            os.fdatasync(file)
            n += 1
        return n / (time.perf_counter() - began)
    finally:
        os.close(file)
        place.unlink()


def acknowledged(folder: Path, producers: int, size: int, seconds: float, durability: str) -> dict[str, float]:
    """Events per second, and the wait for an acknowledgement in ms."""
    stop = threading.Event()
    waits: list[list[float]] = [[] for _ in range(producers)]
    with SqliteLog(folder / f"log-{producers}-{size}-{durability}.sqlite", durability) as log:  # type: ignore[arg-type]

        def produce(me: int) -> None:
            n = 0
            while not stop.is_set():
                events = [
                    Event(f"user{n % 1000}", f"item{me}", "view", key=b"%d-%d" % (me, n + k)) for k in range(size)
                ]
                began = time.perf_counter()
                log.append(events)
                waits[me].append(time.perf_counter() - began)
                n += size

        threads = [threading.Thread(target=produce, args=(me,)) for me in range(producers)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        stop.set()
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - began
    every = np.concatenate([np.array(one) for one in waits]) * 1000
    p50, p99 = np.percentile(every, [50, 99])
    return {"per_second": len(every) * size / elapsed, "p50_ms": float(p50), "p99_ms": float(p99)}


def reading(folder: Path, n_events: int) -> dict[str, float]:
    """Seconds to write so many events, to open the log again, and to read them all as columns."""
    path = folder / "log-read.sqlite"
    group = 20_000
    random = np.random.default_rng(0)
    began = time.perf_counter()
    with SqliteLog(path, "none") as log:
        for start in range(0, n_events, group):
            n = min(group, n_events - start)
            users, items = random.integers(0, 1_000_000, n).tolist(), random.integers(0, 1_000_000, n).tolist()
            events = [
                Event(f"u{user}", f"i{item}", "view", 1_700_000_000 + start + k, source="bulk", offset=start + k)
                for k, (user, item) in enumerate(zip(users, items, strict=True))
            ]
            log.append(events)
    written = time.perf_counter()
    with SqliteLog(path, "none") as log:
        opened = time.perf_counter()
        position = count = 0
        while len(batch := log.read(position, _PAGE)):
            count += len(batch.events)
            position = batch.last
        read = time.perf_counter()
        size = log.health().bytes
    assert count == n_events
    return {
        "events": n_events,
        "write_seconds": written - began,
        "open_seconds": opened - written,
        "read_seconds": read - opened,
        "bytes_per_event": size / n_events,
    }


def main() -> None:
    """Measure, and print the line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, help="on the disk to be measured; by default here")
    parser.add_argument("--producers", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--events", type=int, default=10_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="events-", dir=arguments.folder or Path.cwd()) as name:
        folder, seconds = Path(name), arguments.seconds
        before = fsyncs(folder, seconds / 2)
        single = {n: acknowledged(folder, n, 1, seconds, "fsync") for n in arguments.producers}
        batches = acknowledged(folder, 4, 100, seconds, "fsync")
        others = {how: acknowledged(folder, arguments.producers[-1], 1, seconds, how) for how in ("interval", "none")}
        disk = median([before, fsyncs(folder, seconds / 2)])
        read = reading(folder, arguments.events)
    best = single[arguments.producers[-1]]
    emit(
        name="events",
        value=best["per_second"],
        unit="events acknowledged per second with fsync",
        baseline={"name": "fdatasync of 4 KiB, one after the other", "value": disk, "unit": "per second"},
        ratio=best["per_second"] / disk,
        target=5_000,
        latency_ms={"p50": best["p50_ms"], "p99": best["p99_ms"]},
        by_producers=single,
        batches=batches,
        durability=others,
        reading=read,
    )


if __name__ == "__main__":
    main()
