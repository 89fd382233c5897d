"""What can Prometheus read? Routes, stages, paths, lanes, the log, the age of model and snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

MEDIA_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Bounds of the histograms' buckets; the targets of 5, 20 and 50 ms are among them."""

GAUGES = {
    "log_position": "Position of the newest durable entry of the event log",
    "log_bytes": "Size of the event log",
    "log_queue": "Entries that wait to be written to the event log",
    "log_loss_window_seconds": "Acknowledged events younger than this may be lost by a power cut",
    "snapshot_age_seconds": "Seconds since the newest snapshot",
    "snapshot_position": "Log position of the newest snapshot",
    "model_age_seconds": "Seconds since the model was loaded",
    "state_users": "Users that are known",
    "state_items": "Items that are known",
    "index_recall": "Share of exact answers that the approximate index finds, moving average of the canary",
    "index_checks": "Requests that the canary has answered exactly, too",
}
"""Name -> help, for the numbers that ``Service.health`` gives: ``log_bytes`` is ``bytes`` of ``log``."""


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._requests = Counter("macrorec_requests", "Requests answered", ("route", "status"), registry=self.registry)
        self._seconds = Histogram(
            "macrorec_request_seconds",
            "From arrival to answer",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "macrorec_stage_seconds",
            "Time of one stage of a request",
            ("stage",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._paths = Counter("macrorec_answers", "Answers by what made them", ("path",), registry=self.registry)
        self._degraded = Counter(
            "macrorec_degraded", "Stages left out for want of time", ("stage",), registry=self.registry
        )
        self._events = Counter("macrorec_events", "Events by what became of them", ("outcome",), registry=self.registry)
        self._children: dict[tuple[Any, ...], Any] = {}

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._child(self._requests, route, str(status)).inc()
        self._child(self._seconds, route).observe(seconds)

    def answer(self, path: str, stages: Mapping[str, float], degraded: Iterable[str]) -> None:
        """Count an answer of the service; ``stages``: seconds by name."""
        self._child(self._paths, path).inc()
        for stage, seconds in stages.items():
            self._child(self._stages, stage).observe(seconds)
        for stage in degraded:
            self._child(self._degraded, stage).inc()

    def events(self, added: int, duplicates: int) -> None:
        """Count acknowledged events."""
        self._child(self._events, "added").inc(added)
        self._child(self._events, "duplicate").inc(duplicates)

    def refused(self, count: int) -> None:
        """Count events that were not allowed."""
        self._child(self._events, "refused").inc(count)

    def watch(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Have ``read`` called at each scrape."""
        self.registry.register(_Watched(read))

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)

    def _child(self, metric: Counter | Histogram, *labels: str) -> Any:
        """``metric.labels(*labels)``, remembered: finding it takes longer than counting."""
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child


class _Watched:
    """A collector that asks when it is scraped; nothing is asked when it is registered."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._read()


def gauge(name: str, text: str, values: Mapping[tuple[str, ...], float], labels: tuple[str, ...] = ()) -> Metric:
    """A gauge with a value per tuple of labels."""
    family = GaugeMetricFamily(f"macrorec_{name}", text, labels=labels)
    for at, value in values.items():
        family.add_metric(at, value)
    return family


def counter(name: str, text: str, values: Mapping[tuple[str, ...], float], labels: tuple[str, ...] = ()) -> Metric:
    """A counter with a value per tuple of labels."""
    family = CounterMetricFamily(f"macrorec_{name}", text, labels=labels)
    for at, value in values.items():
        family.add_metric(at, value)
    return family
