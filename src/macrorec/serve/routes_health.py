"""Which routes tell how the server is? Alive, ready, in detail, and in numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import Metric

from macrorec.serve import metrics
from macrorec.serve.exchange import Exchange, Operation, Reply, Shared
from macrorec.serve.problems import Problem
from macrorec.serve.routes import encoded


async def live(shared: Shared, exchange: Exchange) -> Reply:
    """``GET /api/health/live``: the process answers."""
    return Reply(b'{"status":"live"}')


async def ready(shared: Shared, exchange: Exchange) -> Reply:
    """``GET /api/health/ready``: requests may be sent here; 503 from the moment that the server is told to end."""
    if shared.draining:
        raise Problem("not-ready", "the server is about to end")
    if not (await shared.inner.run(shared.service.health))["ready"]:
        raise Problem("not-ready", "the service has not finished starting")
    return Reply(b'{"status":"ready"}')


async def health(shared: Shared, exchange: Exchange) -> Reply:
    """``GET /api/health``: how durable events are, how much could be lost, and what waits."""
    exchange.query({})
    return Reply(await shared.inner.run(lambda: encoded(told(shared))))


async def numbers(shared: Shared, exchange: Exchange) -> Reply:
    """``GET /metrics``: Prometheus' text format."""
    return Reply(await shared.inner.run(shared.metrics.text), media_type=metrics.MEDIA_TYPE)


def told(shared: Shared) -> dict[str, Any]:
    """What ``/api/health`` says."""
    lanes = {
        lane.name: {
            "threads": lane.n_threads,
            "busy": lane.busy,
            "waiting": lane.waiting,
            "shed": sum(lane.shed.values()),
        }
        for lane in shared.lanes()
    }
    health = shared.service.health()
    return {
        "status": "ending" if shared.draining else "ready" if health["ready"] else "starting",
        **health,
        "in_flight": shared.in_flight,
        "lanes": lanes,
    }


def watched(shared: Shared) -> Iterator[Metric]:
    """The metrics that are read when they are asked for."""
    lanes = shared.lanes()
    yield metrics.gauge(
        "queue_length", "Requests that wait for a thread", {(lane.name,): lane.waiting for lane in lanes}, ("lane",)
    )
    yield metrics.gauge("busy_threads", "Threads at work", {(lane.name,): lane.busy for lane in lanes}, ("lane",))
    yield metrics.gauge("threads", "Threads", {(lane.name,): lane.n_threads for lane in lanes}, ("lane",))
    shed: dict[tuple[str, ...], float] = {
        (lane.name, reason): float(count) for lane in lanes for reason, count in lane.shed.items()
    }
    yield metrics.counter("shed", "Requests turned away for want of time", shed, ("lane", "reason"))
    yield metrics.counter("limited", "Requests beyond their key's rate", {(): shared.rates.limited})
    yield metrics.counter("log_lines_dropped", "Lines that the request log could not write", {(): shared.log.dropped})
    yield metrics.gauge("loop_lag_seconds", "How late the event loop is", {(): shared.lag.seconds})
    yield metrics.gauge("in_flight", "Requests under way", {(): shared.in_flight})
    yield metrics.gauge("ready", "1 while ready says so", {(): float(not shared.draining)})
    health = shared.service.health()
    for name, text in metrics.GAUGES.items():
        part, _, member = name.partition("_")
        value = (health.get(part) or {}).get(member)
        if isinstance(value, int | float):
            yield metrics.gauge(name, text, {(): float(value)})
    exact = (health.get("index") or {}).get("kind", "exact") == "exact"
    text = "1 where candidates are searched exactly, 0 where by an approximate index"
    yield metrics.gauge("index_exact", text, {(): float(exact)})
    yield metrics.gauge("model_info", "The model that answers", {(health["model"]["version"],): 1.0}, ("version",))


ROUTES = (
    Operation("GET", "/api/health/live", "live", "open", live),
    Operation("GET", "/api/health/ready", "ready", "open", ready),
    Operation("GET", "/api/health", "health", "client", health),
    Operation("GET", "/metrics", "metrics", "client", numbers),
)
