"""How long does one request take inside the service, stage by stage, and does it matter whether events come meanwhile?

Run as ``python -m benchmarks.serve_requests [items] [requests]``: a shop of a million items and as many users, 64
dimensions, an approximate index, MacGNN over 200 candidates; no HTTP. First one thread asks, while nothing and then
while 2,000 events a second are stored; users who have done nothing since the fit (``model``), and users who have
(``fold_in``; ``cached`` asks for them again). Then ``event_to_answer``: an event stored with fsync, and the next answer
for its user. At last a snapshot is written while events go on: the longest wait of one of them. ``cpu`` is processor
time, which a busy machine does not stretch. Baseline: the same candidates ranked by the equations as the authors write
them, features given.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import shop
from benchmarks.line import emit
from benchmarks.macgnn_train import plain_logits
from macrorec.serve.bench import asked, percentiles
from macrorec.serve.canary import Canary
from macrorec.serve.events import Event
from macrorec.serve.service import Service
from macrorec.serve.sqlite_log import SqliteLog

N_EVENTS = 2_000_000
RATE = 2_000
"""Events per second beside the requests."""


def event(random: np.random.Generator, n_users: int, n_items: int) -> Event:
    """Somebody buys something."""
    return Event(f"u{random.integers(n_users):08}", f"i{random.integers(n_items):08}", "buy", int(time.time()))


def timed(service: Service, users: list[str]) -> dict[str, dict[str, float]]:
    """Percentiles of each stage, and of the whole, over one request per user."""
    return asked(service, users).milliseconds()


def during(work: Callable[[], Any], service: Service, n_users: int, n_items: int) -> tuple[Any, list[float]]:
    """What ``work`` returns while events are stored at ``RATE``, 20 at a time; seconds that each store took."""
    stop, waits, random = threading.Event(), list[float](), np.random.default_rng(3)

    def write() -> None:
        due = time.perf_counter()
        while not stop.is_set():
            events = [event(random, n_users, n_items) for _ in range(20)]
            due += len(events) / RATE
            start = time.perf_counter()
            service.feedback(events)
            waits.append(time.perf_counter() - start)
            time.sleep(max(0.0, due - time.perf_counter()))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        return work(), waits
    finally:
        stop.set()
        thread.join()


def measure(service: Service, n_users: int, n_items: int, n_requests: int) -> dict[str, Any]:
    """All that the line says."""
    random = np.random.default_rng(1)
    users = [f"u{n:08}" for n in random.choice(n_users // 2, n_requests + 50, replace=False)]
    changed = [f"u{n:08}" for n in n_users // 2 + random.choice(n_users // 2, n_requests, replace=False)]
    timed(service, users[:50])
    found: dict[str, Any] = {"model": timed(service, users[50:])}
    service.feedback([Event(user, f"i{random.integers(n_items):08}", "buy", int(time.time())) for user in changed])
    found["fold_in"] = timed(service, changed)
    found["cached"] = timed(service, changed)
    found["model_with_writes"], waits = during(lambda: timed(service, users[50:]), service, n_users, n_items)
    found["store_with_reads"] = percentiles(waits)
    took = []
    for user in users[50:250]:
        start = time.perf_counter()
        service.feedback([Event(user, f"i{random.integers(n_items):08}", "buy", int(time.time()))])
        service.recommend(user, 10)
        took.append(time.perf_counter() - start)
    found["event_to_answer"] = percentiles(took)
    start = time.perf_counter()
    _, waits = during(service.snapshot, service, n_users, n_items)
    found["snapshot"] = {"seconds": round(time.perf_counter() - start, 2), "longest_store": round(1e3 * max(waits), 1)}
    return found


def plain(service: Service, n_items: int) -> float:
    """Median milliseconds of the logits of 200 candidates by the equations as written."""
    version, random, took = service.version, np.random.default_rng(2), []
    assert version.ranker is not None
    for _ in range(50):
        features = version.state.features(1, random.choice(n_items, 200, replace=False))
        start = time.perf_counter()
        with torch.inference_mode():
            plain_logits(version.ranker, features)  # type: ignore[arg-type]
        took.append(time.perf_counter() - start)
    return float(1e3 * np.median(took))


def main() -> None:
    """Measure and print the line."""
    n_items = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    n_requests = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
    n_users = max(n_items, 4 * n_requests)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bundle = shop.write(Path(folder) / "shop", n_items, n_users, min(N_EVENTS, 4 * n_items))
        log = SqliteLog(Path(folder) / "log.sqlite")
        service = Service(bundle, log, Path(folder) / "snapshots")
        search = service.version.deployment.retriever
        if isinstance(search, Canary):
            search.wait(600)
        try:
            found = measure(service, n_users, n_items, n_requests)
            baseline = plain(service, n_items)
            told = service.model()["search"]
        finally:
            service.close()
            log.close()
    emit(
        name="serve_requests",
        value=found["model"]["whole"]["p50"],
        unit="ms, p50 of a request",
        baseline={"name": "the ranker's equations as the authors write them, PyTorch", "value": round(baseline, 3)},
        ratio=round(baseline / found["model"]["rank"]["p50"], 2),
        items=n_items,
        users=n_users,
        requests=n_requests,
        candidates=200,
        search=told,
        **found,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
