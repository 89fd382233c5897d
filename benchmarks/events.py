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
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.line import emit
from macrorec.serve.bench import acknowledged, flushes
from macrorec.serve.events import Event
from macrorec.serve.sqlite_log import SqliteLog

_PAGE = 1_000_000


def written(folder: Path, producers: int, size: int, seconds: float, durability: str) -> dict[str, float]:
    """Events per second, and the wait for an acknowledgement in ms."""

    def produce(me: int) -> Iterator[list[Event]]:
        n = 0
        while time.perf_counter() < end:
            yield [Event(f"user{n % 1000}", f"item{me}", "view", key=b"%d-%d" % (me, n + k)) for k in range(size)]
            n += size

    with SqliteLog(folder / f"log-{producers}-{size}-{durability}.sqlite", durability) as log:  # type: ignore[arg-type]
        end = time.perf_counter() + seconds
        return acknowledged(log.append, [produce(me) for me in range(producers)])


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
    kept = time.perf_counter()
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
        "write_seconds": kept - began,
        "open_seconds": opened - kept,
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
        before = flushes(folder, seconds / 2)
        single = {n: written(folder, n, 1, seconds, "fsync") for n in arguments.producers}
        batches = written(folder, 4, 100, seconds, "fsync")
        others = {how: written(folder, arguments.producers[-1], 1, seconds, how) for how in ("interval", "none")}
        disk = median([before, flushes(folder, seconds / 2)])
        read = reading(folder, arguments.events)
    best = single[arguments.producers[-1]]
    emit(
        name="events",
        value=best["per_second"],
        unit="events acknowledged per second with fsync",
        baseline={"name": "fdatasync of 4 KiB, one after the other", "value": disk, "unit": "per second"},
        ratio=best["per_second"] / disk,
        target=5_000,
        latency_ms={"p50": best["p50"], "p99": best["p99"]},
        by_producers=single,
        batches=batches,
        durability=others,
        reading=read,
    )


if __name__ == "__main__":
    main()
