"""How long does a start take, with many events in the log beyond the last snapshot?

Run as ``python -m benchmarks.serve_replay [items] [events]``: a shop of a million items and as many users; a snapshot
of a million events, and ten million more in the log alone. The value is the time from nothing in memory to the first
answer: the bundle verified and loaded, the snapshot, the replay, warmed up. ``again`` is the same with a snapshot of
all. Baseline: the target of 30 s.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import shop
from benchmarks.line import emit
from macrorec.serve.events import Event
from macrorec.serve.service import Service
from macrorec.serve.sqlite_log import SqliteLog

TARGET = 30.0
"""Seconds."""
_AT_ONCE = 20_000


def batches(n_events: int, n_users: int, n_items: int, seed: int) -> Iterator[list[Event]]:
    """Events of a few users more than of others, a tenth of them new, second by second."""
    random = np.random.default_rng(seed)
    for first in range(0, n_events, _AT_ONCE):
        n = min(_AT_ONCE, n_events - first)
        users = (1.1 * n_users * random.random(n) ** 1.5).astype(np.int64).tolist()
        items = (n_items * random.random(n) ** 2).astype(np.int64).tolist()
        rows = zip(users, items, strict=True)
        yield [Event(f"u{u:08}", f"i{i:08}", "buy", 1_700_000_000 + first + k) for k, (u, i) in enumerate(rows)]


def started(bundle: Path, folder: Path) -> tuple[float, dict[str, Any]]:
    """Seconds to the first answer, and what the service says of itself then."""
    start = time.perf_counter()
    log = SqliteLog(folder / "log.sqlite", durability="none")
    service = Service(bundle, log, folder / "snapshots")
    service.recommend("u00000001", 10)
    took = time.perf_counter() - start
    told = service.health()["state"]
    service.close()
    log.close()
    return took, told


def main() -> None:
    """Measure and print the line."""
    n_items = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    n_events = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = shop.write(folder / "shop", n_items, n_items, 2 * n_items)
        log = SqliteLog(folder / "log.sqlite", durability="none")
        for batch in batches(n_events // 10, n_items, n_items, 1):
            log.append(batch)
        service = Service(bundle, log, folder / "snapshots")
        service.snapshot()
        service.close()
        for batch in batches(n_events, n_items, n_items, 2):
            log.append(batch)
        log.close()
        took, told = started(bundle, folder)
        log = SqliteLog(folder / "log.sqlite", durability="none")
        service = Service(bundle, log, folder / "snapshots")
        start = time.perf_counter()
        service.snapshot()
        written = time.perf_counter() - start
        service.close()
        log.close()
        again, _ = started(bundle, folder)
    emit(
        name="serve_replay",
        value=round(took, 2),
        unit="s",
        baseline={"name": "target", "value": TARGET},
        ratio=round(TARGET / took, 2),
        events_replayed=n_events,
        items=n_items,
        state=told,
        snapshot_seconds=round(written, 2),
        again=round(again, 2),
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
