"""How fast does a bundle answer on this machine, and how soon is an event on this disk and in the answer? No HTTP."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from macrorec import files, provenance
from macrorec.errors import ConfigError, DataError
from macrorec.serve.canary import Canary
from macrorec.serve.events import Event
from macrorec.serve.service import Service
from macrorec.serve.sqlite_log import FILE, SqliteLog

_N = 10
"""Items per answer."""
_WAITED = 200
"""Events at most whose way to the answer is timed one by one."""
_FLUSHING_SECONDS = 1.0
_INDEX_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchConfig:
    """How much is measured."""

    requests: int = 1_000
    """Of users as the fit knows them; and so many again of users with an event since."""
    candidates: int = 200
    """Items retrieved for each request; the ranker orders them."""
    events: int = 2_000
    """Stored one at a time by each thread."""
    threads: int = 16
    """That store events at once."""
    seed: int = 0
    """Of who is asked for, and of the items of events."""

    def __post_init__(self) -> None:
        for name in ("requests", "candidates", "events", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")


def bench(bundle: Path, folder: Path, config: BenchConfig, note: Callable[[str], None]) -> dict[str, Any]:
    """Times of the bundle in milliseconds, rates per second; ``note`` is told what is being done.

    The log lies in a temporary folder in ``folder``, which is removed at the end. ``known`` are users as the fit has
    them, ``changed`` those with an event since: ``paths`` counts requests by ``answer.Path``. Raises ConfigError for
    a folder that is none, DataError for a bundle that is damaged or has nobody to ask for.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; name one that is, on the disk to be measured")
    with files.told(folder):
        temporary = tempfile.TemporaryDirectory(prefix=".macrorec-bench-", dir=folder)
    threads = torch.get_num_threads()
    with temporary as name:
        place = Path(name)
        torch.set_num_threads(1)  # as the server does
        try:
            with (
                SqliteLog(place / FILE) as log,
                closing(Service(bundle, log, candidates=config.candidates)) as service,
            ):
                search = service.version.deployment.retriever
                if isinstance(search, Canary):
                    note("waiting for the index")
                    search.wait(_INDEX_SECONDS)
                found = _measured(service, config, note)
        finally:
            torch.set_num_threads(threads)
        note("flushing the disk alone")
        found["events"]["flushes_per_second"] = flushes(place, _FLUSHING_SECONDS)
    return found | {"peak_rss_bytes": provenance.peak_rss_bytes()}


def _measured(service: Service, config: BenchConfig, note: Callable[[str], None]) -> dict[str, Any]:
    bundle = service.version.deployment.retriever_bundle
    active = np.flatnonzero(bundle.graph.target.start_U.diff().numpy())
    behavior = bundle.graph.behaviors[-1].name
    if not len(active):
        raise DataError(f"nobody in the bundle has an event of {behavior!r}: there are no requests to measure")
    random = np.random.default_rng(config.seed)

    def users(n: int) -> list[str]:
        """Of n users, in random order; each once before one comes again."""
        rounds = [random.permutation(active) for _ in range(-(-n // len(active)))]
        return [str(one) for one in bundle.users.ids_of(np.concatenate(rounds)[:n])]

    def events(whose: Sequence[str]) -> list[Event]:
        items = bundle.items.ids_of(random.integers(len(bundle.items), size=len(whose)))
        return [Event(user, str(item), behavior) for user, item in zip(whose, items, strict=True)]

    told = {key: value for key, value in service.model().items() if key in _TOLD}
    asked(service, users(min(50, config.requests)))
    note(f"{config.requests:,} requests of users as the fit knows them")
    known = asked(service, users(config.requests))
    note(f"{config.requests:,} requests of users with an event since")
    changed = Asked()
    whom = users(config.requests)
    for start in range(0, len(whom), len(active)):  # what is folded in is kept until the user's next event
        some = whom[start : start + len(active)]
        service.feedback(events(some))
        changed = asked(service, some, changed)
    n_waited = min(_WAITED, config.requests)
    note(f"{n_waited:,} events and the answer that knows each")
    waits, n_changed = list[float](), 0
    for user, other in zip(whom[:n_waited], events(whom[:n_waited]), strict=True):
        before = [item.item_id for item in service.recommend(user, _N).items]
        event = Event(user, before[0], behavior) if before else other
        start_time = time.perf_counter()
        service.feedback([event])
        after = service.recommend(user, _N)
        waits.append(time.perf_counter() - start_time)
        n_changed += [item.item_id for item in after.items] != before
    note(f"{config.events:,} events by {config.threads} threads")
    given = events(users(config.events))
    producers = [([event] for event in given[me :: config.threads]) for me in range(config.threads)]
    stored = acknowledged(service.feedback, producers)
    return {
        **told,
        "requests": config.requests,
        "candidates": config.candidates,
        "seed": config.seed,
        "known": known.told(),
        "changed": changed.told(),
        "event_to_answer": {"events": n_waited, "changed": n_changed, **percentiles(waits)},
        "events": {"stored": len(given), "threads": config.threads, **stored},
    }


_TOLD = ("version", "retriever", "ranker", "search", "users", "items")


class Asked:
    """What requests one after the other took."""

    def __init__(self) -> None:
        self.paths: Counter[str] = Counter()
        self.stages: dict[str, list[float]] = {}
        """Seconds: of each stage of ``answer.Stage`` that was reached; ``whole``; of the processor, ``cpu``."""

    def milliseconds(self) -> dict[str, dict[str, float]]:
        """``percentiles`` of each stage."""
        return {name: percentiles(seconds) for name, seconds in self.stages.items()}

    def told(self) -> dict[str, Any]:
        """``paths``, ``milliseconds``, and requests ``per_second``."""
        whole = self.stages["whole"]
        return {
            "paths": dict(self.paths),
            "milliseconds": self.milliseconds(),
            "per_second": round(len(whole) / sum(whole), 1),
        }


def asked(service: Service, users: Sequence[str], so_far: Asked | None = None) -> Asked:
    """One request per user, by one thread; added to ``so_far``."""
    found = Asked() if so_far is None else so_far
    for user in users:
        start, cpu = time.perf_counter(), time.thread_time()
        answer = service.recommend(user, _N)
        took = {"whole": time.perf_counter() - start, "cpu": time.thread_time() - cpu}
        found.paths[answer.path] += 1
        for name, seconds in (*answer.timings.items(), *took.items()):
            found.stages.setdefault(name, []).append(seconds)
    return found


def percentiles(seconds: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds."""
    p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def acknowledged(
    store: Callable[[Sequence[Event]], object], producers: Sequence[Iterator[Sequence[Event]]]
) -> dict[str, float]:
    """Events ``per_second``, and percentiles of the wait for ``store`` in milliseconds.

    Each producer has its own thread, and gives its next events when those before are acknowledged. Raises what the
    first ``store`` that failed did.
    """
    waits: list[list[float]] = [[] for _ in producers]
    counts, faults = [0] * len(producers), list[BaseException]()

    def produce(me: int) -> None:
        try:
            for events in producers[me]:
                began = time.perf_counter()
                store(events)
                waits[me].append(time.perf_counter() - began)
                counts[me] += len(events)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=produce, args=(me,), daemon=True) for me in range(len(producers))]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - began
    if faults:
        raise faults[0]
    return {"per_second": round(sum(counts) / elapsed, 1), **percentiles(np.concatenate(waits))}


def flushes(folder: Path, seconds: float) -> float:
    """Writes of 4 KiB per second, each flushed, in the same file over and over: what waits alone could acknowledge."""
    place = folder / "flushed"
    block = os.urandom(4096)
    file = os.open(place, os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(file, bytes(1 << 20), 0)
        os.fsync(file)
        n, began = 0, time.perf_counter()
        while not n or time.perf_counter() - began < seconds:
            os.pwrite(file, block, n % 256 * 4096)
            os.fdatasync(file)
            n += 1
        return round(n / (time.perf_counter() - began), 1)
    finally:
        os.close(file)
        place.unlink()
