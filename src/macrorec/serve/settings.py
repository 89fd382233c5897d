"""What may the person who runs the server decide? Limits, times and sizes, each with its reason."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, fields
from pathlib import Path

from macrorec.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Limits of one server process. Times are in milliseconds where the name says so, else in seconds."""

    deadline_ms: int = 100
    """What a request may take from its arrival until stages are left out; ``X-Deadline-Ms`` asks for another one."""
    timeout_ms: int = 10_000
    """When a request is given up altogether (503), and the longest deadline that a request may ask for."""
    threads: int = 2
    """Threads that answer reads. The event loop itself never computes. More than a few wait for one another, as each
    needs the interpreter for a third of the time: at 500 requests per second of a million items two have a p99 of 14
    ms, three of 20, four of 25; one is too few. Processes (``--workers``) do not wait for one another."""
    queue: int = 256
    """Reads that may wait for a thread; one more is answered 503."""
    wait_ms: int = 100
    """Expected wait above which a request is answered 503 at once: an answer that comes too late helps nobody."""
    write_threads: int = 32
    """Writes in flight: each waits for the disk, and those that wait together are flushed together."""
    write_queue: int = 512
    """Writes that may wait for a thread."""
    write_wait_ms: int = 1_000
    """As ``wait_ms``, for writes: a client that posts events would rather wait than try again."""
    in_flight: int = 1_024
    """Requests under way, of any kind. With ``body_bytes`` it bounds the memory that bodies can take."""
    body_bytes: int = 1 << 20
    """Largest body of a request."""
    body_seconds: float = 10.0
    """How long a body may take to arrive."""
    header_bytes: int = 32 << 10
    """Largest request line with its headers."""
    header_seconds: float = 10.0
    """How long they may take to arrive."""
    max_n: int = 1_000
    """Most items in one answer, and furthest page (``offset + n``)."""
    max_events: int = 10_000
    """Most events, or items, in one request."""
    max_ranked: int = 10_000
    """Most items that one request may have ranked."""
    rate: float | None = None
    """Requests per second that each key may make on average; a key's own rate goes before it. None: any number."""
    burst_seconds: float = 2.0
    """A key that was idle may make this many seconds' worth of requests at once."""
    drain_seconds: float = 0.0
    """Between SIGTERM and the end of listening: ready says 503 already, requests are still taken."""
    shutdown_seconds: float = 30.0
    """How long requests in flight may take to end after that."""
    bundles: Path | None = None
    """The folder whose bundles ``/api/admin/reload`` may load, by name. None: it can only load the served one anew."""
    hosts: tuple[str, ...] | None = None
    """Names that a Host header may have; None: any. Set for a server without keys on a loopback address, so that no web
    page can reach it under a name of its own (DNS rebinding)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("drain_seconds", "queue", "write_queue") else 1e-3
            if isinstance(value, int | float) and not value >= least:
                raise ConfigError(f"{field.name} is {value}; it must be {'at least 0' if not least else 'positive'}")


LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to ``host``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_bind(host: str, *, has_keys: bool, open_to_all: bool) -> tuple[str, ...] | None:
    """The Host names to answer to (None: any). Raises ConfigError for a public address without keys, unless told."""
    if has_keys or open_to_all:
        return None
    if not is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines, and there are no API keys: "
            "give --api-keys FILE (see macrorec keys make), or --open to let anybody read and write"
        )
    return LOOPBACK_NAMES
